"""The training loss of models that make pictures, and what LoRA learns by it, beside diffusers, transformers and peft fed
the same latents, captions, noise and times."""
import subprocess

import diffusers
import pytest
import safetensors.torch
import torch
import yaml

import diffusion_reference as reference
from reference import metrics

SIZES = [(40, 32), (32, 32), (32, 40), (33, 47), (64, 64), (48, 32)]


def write(folder, **more):
    config = {
        "run": {"output_dir": str(folder / "run"), "threads": 1, "device": "cpu"},
        "model": {"path": str(folder / "model"), "dtype": "fp32"},
        "adapter": {"rank": 3, "alpha": 2},
        "data": {"train": str(folder / "train.h5"), "shuffle": False},
        "batch": {"global": len(SIZES), "micro": 3},
        "optimizer": {"name": "sgd", "lr": 1e-9},
        "schedule": {"name": "constant", "warmup": 0},
        "budget": "1 steps",
    }
    for section, values in more.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def train(program, config):
    done = subprocess.run([program, "train", str(config)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def world(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind)
    model = reference.make_pipeline(folder / "model", kind, "v" if kind == "sd2" else "epsilon")
    reference.prepare(reference.make_pictures(folder / "pictures", SIZES), folder / "model", folder / "train.h5")
    return folder, model, reference.Pictures(folder / "train.h5")


def test_the_loss_is_that_of_diffusers(program, world):
    folder, model, pictures = world
    train(program, write(folder, run={"output_dir": str(folder / "loss")}))
    with torch.no_grad():
        expected = [reference.sample_loss(model, pictures, i)[0].item() for i in range(len(pictures))]
    assert metrics(folder / "loss")[0]["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def pipeline_of(model):
    """As diffusers' users have it."""
    more = {} if model["kind"] == "sdxl" else dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    names = ["vae", "text_encoder", "tokenizer", "unet"] + (["text_encoder_2", "tokenizer_2"] if model["kind"] == "sdxl" else [])
    kind = diffusers.StableDiffusionXLPipeline if model["kind"] == "sdxl" else diffusers.StableDiffusionPipeline
    return kind(scheduler=diffusers.DDIMScheduler(), **{name: model[name] for name in names}, **more)


def lora_layers(pipeline):
    """Of all parts, by the module that they are on."""
    found = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        for name, module in getattr(pipeline, part, torch.nn.Module()).named_modules():
            if hasattr(module, "lora_A") and len(module.lora_A) > 0:
                found[part + "." + name] = module
    return found


def changes(pipeline):
    return {name: layer.get_delta_weight("ours").detach() for name, layer in lora_layers(pipeline).items()}


def test_lora_learns_as_in_diffusers_and_peft(program, world):
    """Thirty updates of AdamW, from the same start: the first one's file, of a rate that moves nothing."""
    folder, model, pictures = world
    steps = 30
    settings = dict(adapter={"rank": 3, "alpha": 2}, optimizer={"name": "adamw", "clip_norm": 0})
    start, end = folder / "start", folder / "end"
    train(program, write(folder, **{**settings, "optimizer": {**settings["optimizer"], "lr": 1e-12}},
                         run={"output_dir": str(start)}))
    train(program, write(folder, **{**settings, "optimizer": {**settings["optimizer"], "lr": 2e-3}},
                         run={"output_dir": str(end)}, budget=f"{steps} steps"))
    pipeline = pipeline_of(model)
    pipeline.load_lora_weights(str(start / "adapter/lora.safetensors"), adapter_name="ours")
    layers = lora_layers(pipeline)
    file = safetensors.torch.load_file(start / "adapter/lora.safetensors")
    assert len(file) == 3 * len(layers) > 30
    parameters = []
    for part in ("unet", "text_encoder", "text_encoder_2"):
        for name, parameter in getattr(pipeline, part, torch.nn.Module()).named_parameters():
            parameter.requires_grad_("lora_" in name)
            parameters += [parameter] if "lora_" in name else []
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.0)
    ours = [line["loss"] for line in metrics(end)]
    assert len(ours) == steps
    for step in range(steps):
        loss = sum(reference.sample_loss(model, pictures, row, epoch=step)[0] for row in range(len(pictures)))
        loss = loss / len(pictures)
        assert ours[step] == pytest.approx(loss.item(), rel=1e-4), step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    theirs = changes(pipeline)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(str(end / "adapter/lora.safetensors"), adapter_name="ours")
    for name, change in changes(pipeline).items():
        # Nothing is learnt above the layer that SDXL takes its first context from.
        scale = theirs[name].norm() or 1
        assert (change - theirs[name]).norm() / scale < 2e-3, name
    pipeline.unload_lora_weights()
