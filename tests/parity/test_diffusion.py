"""The training loss of models that make pictures, and what LoRA learns by it, beside diffusers, transformers and peft fed
the same latents, captions, noise and times."""
import copy
import subprocess

import diffusers
import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image

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


def load(pipeline, path):
    """diffusers leaves magnitudes of a file of sd-scripts' form out, but knows them in its own, which has no alphas."""
    tensors = safetensors.torch.load_file(path)
    if not any(key.endswith(".dora_scale") for key in tensors):
        pipeline.load_lora_weights(str(path), adapter_name="ours")
        return
    words = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight", "dora_scale": "lora_magnitude_vector"}
    alphas = {key: tensors.pop(key) for key in sorted(tensors) if key.endswith(".alpha")}
    assert all(alpha == tensors[key.replace("alpha", "lora_down.weight")].shape[0] for key, alpha in alphas.items())
    renamed = {}
    for name, _ in pipeline.unet.named_modules():
        for theirs, word in words.items():
            tensor = tensors.pop(f"lora_unet_{name.replace('.', '_')}.{theirs}", None)
            if tensor is not None and theirs == "dora_scale":  # [out, 1] or [out, 1, 1, 1] in the file
                tensor = tensor.view(1, -1, 1, 1) if tensor.dim() == 4 else tensor.flatten()
            if tensor is not None:
                renamed[f"unet.{name}.{word}"] = tensor
    assert not tensors, sorted(tensors)
    pipeline.load_lora_weights(renamed, adapter_name="ours")


def test_lora_learns_as_in_diffusers_and_peft(program, world):
    """Thirty updates of AdamW, from the same start: the first one's file, of a rate that moves nothing."""
    learn(program, world, {"rank": 3, "alpha": 2})


def learn(program, world, adapter):
    folder, model, pictures = world
    steps = 30
    settings = dict(adapter=adapter, optimizer={"name": "adamw", "clip_norm": 0})
    start, end = folder / "start", folder / "end"
    train(program, write(folder, **{**settings, "optimizer": {**settings["optimizer"], "lr": 1e-12}},
                         run={"output_dir": str(start)}))
    train(program, write(folder, **{**settings, "optimizer": {**settings["optimizer"], "lr": 2e-3}},
                         run={"output_dir": str(end)}, budget=f"{steps} steps"))
    pipeline = pipeline_of(model)
    load(pipeline, start / "adapter/lora.safetensors")
    layers = lora_layers(pipeline)
    file = safetensors.torch.load_file(start / "adapter/lora.safetensors")
    assert len(file) == (4 if adapter.get("dora") else 3) * len(layers) > 30
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
    lengths = {name: layer.lora_magnitude_vector["ours"].weight.detach().clone() for name, layer in layers.items()
               if "ours" in getattr(layer, "lora_magnitude_vector", {})}
    pipeline.unload_lora_weights()
    load(pipeline, end / "adapter/lora.safetensors")
    assert bool(lengths) == adapter.get("dora", False)
    for name, layer in lora_layers(pipeline).items():
        if lengths:
            torch.testing.assert_close(layer.lora_magnitude_vector["ours"].weight, lengths[name], rtol=1e-4, atol=1e-5)
    for name, change in changes(pipeline).items():
        # Nothing is learnt above the layer that SDXL takes its first context from.
        scale = theirs[name].norm() or 1
        assert (change - theirs[name]).norm() / scale < 2e-3, name
    pipeline.unload_lora_weights()


def test_dora_learns_as_in_diffusers_and_peft(program, tmp_path):
    """Convolutions, too, whose lengths peft keeps in another shape. Of the UNet: diffusers has no names for a text encoder's."""
    model = reference.make_pipeline(tmp_path / "model", "sd1")
    reference.prepare(reference.make_pictures(tmp_path / "pictures", SIZES), tmp_path / "model", tmp_path / "train.h5")
    learn(program, (tmp_path, model, reference.Pictures(tmp_path / "train.h5")),
          {"rank": 3, "alpha": 3, "dora": True, "targets": ["to_q", "ff.net.2", "proj_in", "conv1"]})


# --- what the configuration makes of the loss, of SD 1 ----------------------------------------------------------------

LONG = ", ".join(f"tag{i}" for i in range(40))  # some 160 tokens


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loss")
    model = reference.make_pipeline(folder / "model")
    pictures = reference.make_pictures(folder / "pictures", SIZES, captions=["a red cat", LONG, ""])
    for path in sorted(pictures.glob("*.png"))[::2]:  # half of them transparent on one side
        picture = Image.open(path).convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(path)
    reference.prepare(pictures, folder / "model", folder / "train.h5", "--masks")
    return folder, model, reference.Pictures(folder / "train.h5")


FORMS = {
    "min-SNR": (dict(loss={"min_snr_gamma": 5}), dict(weight=lambda t, snr: min(snr, 5) / snr)),
    "debiased": (dict(loss={"debiased": True}), dict(weight=lambda t, snr: min(snr, 1000) ** -0.5)),
    "noise offset": (dict(loss={"noise_offset": 0.2}), dict(offset=0.2)),
    "input perturbation": (dict(loss={"input_perturbation": 0.3}), dict(perturbation=0.3)),
    "masks": (dict(data={"masked": True}), dict(masked=True)),
    "clip skip": (dict(model={"clip_skip": 2}), dict(clip_skip=2)),
    "long captions": (dict(data={"caption": {"max_tokens": 225}}), dict(rows=3)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_what_its_settings_say(program, sd1, tmp_path, form):
    folder, model, pictures = sd1
    changes, arguments = FORMS[form]
    config = write(folder, **{**changes, "run": {"output_dir": str(tmp_path / "run")}})
    said = train(program, config).stderr
    assert ("2 of 6 captions have more than 75 tokens" in said) == (form != "long captions")
    with torch.no_grad():
        plain = [reference.sample_loss(model, pictures, i)[0].item() for i in range(len(pictures))]
        expected = [reference.sample_loss(model, pictures, i, **arguments)[0].item() for i in range(len(pictures))]
    assert expected != plain
    assert metrics(tmp_path / "run")[0]["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_validation_asks_in_each_quarter_of_the_schedule(program, sd1, tmp_path):
    folder, model, pictures = sd1
    train(program, write(folder, run={"output_dir": str(tmp_path / "run")}, data={"validation": str(folder / "train.h5")},
                         loss={"min_snr_gamma": 5}))
    line = metrics(tmp_path / "run")[0]
    with torch.no_grad():
        parts = [[reference.sample_loss(model, pictures, i, part=part, parts=4, weight=lambda t, snr: min(snr, 5) / snr)[:2]
                  for i in range(len(pictures))] for part in range(4)]
    count = len(pictures)
    assert line["val_loss"] == pytest.approx(sum(w.item() for part in parts for w, _ in part) / (4 * count), rel=1e-5)
    for quarter, part in enumerate(parts, 1):
        assert line[f"val_loss_t{quarter}"] == pytest.approx(sum(e.item() for _, e in part) / count, rel=1e-5)


def test_all_weights_of_unet_and_text_encoder_train_as_in_diffusers(program, sd1, tmp_path):
    folder, model, pictures = sd1
    steps = 5
    train(program, write(folder, run={"output_dir": str(tmp_path / "run")}, adapter={"type": "full"}, budget=f"{steps} steps",
                         optimizer={"name": "sgd", "lr": 0.02, "clip_norm": 0}))
    ours = [line["loss"] for line in metrics(tmp_path / "run")]
    unet, encoder = copy.deepcopy(model["unet"]), copy.deepcopy(model["text_encoder"])
    optimizer = torch.optim.SGD([*unet.parameters(), *encoder.parameters()], lr=0.02)
    for parameter in (*unet.parameters(), *encoder.parameters()):
        parameter.requires_grad_(True)
    for step in range(steps):
        optimizer.zero_grad()
        loss = sum(reference.sample_loss({**model, "unet": unet, "text_encoder": encoder}, pictures, row, epoch=step)[0]
                   for row in range(len(pictures))) / len(pictures)
        assert ours[step] == pytest.approx(loss.item(), rel=1e-5), step
        loss.backward()
        optimizer.step()
    assert ours[-1] < 0.95 * ours[0] or ours[-1] != pytest.approx(ours[0], rel=1e-3)


def autoencoder_loss(vae, pictures, row, epoch, kl_weight, noisy=True):
    """(loss, KL, peak signal-to-noise ratio) as docs/stable-diffusion.md has it."""
    pixels = pictures.pixels(row)
    distribution = vae.encode(pixels).latent_dist
    latents = distribution.mean
    if noisy:
        latents = latents + distribution.std * reference.Draws(0, epoch, row).normal(1, latents.shape[1:])
    d = vae.decode(latents).sample - pixels
    kl = (distribution.mean**2 + distribution.var - 1 - distribution.logvar).mean() / 2
    loss = (d.abs().mean() + d.diff(dim=2).abs().mean() + d.diff(dim=3).abs().mean()
            + torch.nn.functional.avg_pool2d(d, 2).abs().mean() + kl_weight * kl)
    return loss, kl.item(), -10 * torch.log10((d**2).mean() / 4).item()


def test_the_autoencoder_trains_as_in_diffusers(program, sd1, tmp_path):
    folder, model, pictures = sd1
    steps, kl = 5, 0.03
    train(program, write(folder, run={"output_dir": str(tmp_path / "run")}, adapter={"type": "full"}, budget=f"{steps} steps",
                         model={"part": "autoencoder"}, loss={"kl": kl}, data={"validation": str(folder / "train.h5")},
                         optimizer={"name": "sgd", "lr": 0.02, "clip_norm": 0}))
    ours = metrics(tmp_path / "run")
    vae = copy.deepcopy(model["vae"])
    with torch.no_grad():
        rows = [autoencoder_loss(vae, pictures, row, 0, kl, noisy=False) for row in range(len(pictures))]
    for key, place in (("val_loss", 0), ("val_kl", 1), ("val_psnr", 2)):
        expected = sum(float(each[place]) for each in rows) / len(rows)
        assert ours[0][key] == pytest.approx(expected, rel=1e-5), key
    ours = [line for line in ours if line["step"] > 0]
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.02)
    for step in range(steps):
        optimizer.zero_grad()
        rows = [autoencoder_loss(vae, pictures, row, step, kl) for row in range(len(pictures))]
        loss = sum(each[0] for each in rows) / len(rows)
        assert ours[step]["loss"] == pytest.approx(loss.item(), rel=1e-5), step
        assert ours[step]["psnr"] == pytest.approx(sum(each[2] for each in rows) / len(rows), rel=1e-5)
        loss.backward()
        optimizer.step()
    assert ours[-1]["loss"] < ours[0]["loss"]
    written = diffusers.AutoencoderKL.from_pretrained(tmp_path / "run/model/vae")
    for (name, value), expected in zip(written.named_parameters(), vae.parameters(), strict=True):
        # Signs of differences turn where they are nearly 0, hence not as near as smooth losses are.
        assert (value - expected).norm() <= 1e-4 * expected.norm() + 1e-6, name
    for part in ("unet", "text_encoder"):
        files = [next((at / part).glob("*.safetensors")).read_bytes() for at in (folder / "model", tmp_path / "run/model")]
        assert files[0] == files[1], part


def test_text_encoders_have_rates_of_their_own(program, sd1, tmp_path):
    folder, _, _ = sd1
    learned = []
    for name, pattern in (("plain", {}), ("other", {"text_encoder.*": 0.25})):
        train(program, write(folder, run={"output_dir": str(tmp_path / name)}, adapter={"rank": 2, "lr_pattern": pattern},
                             optimizer={"name": "sgd", "lr": 0.5, "clip_norm": 0}))
        learned.append(safetensors.torch.load_file(tmp_path / name / "adapter/lora.safetensors"))
    plain, other = learned
    ups = [key for key in plain if key.endswith("lora_up.weight")]
    assert {key.split("_")[1] for key in ups} == {"te", "unet"}
    for key in ups:
        factor = 0.25 if key.startswith("lora_te_") else 1
        assert plain[key].abs().sum() > 0
        torch.testing.assert_close(other[key], factor * plain[key], rtol=1e-6, atol=0)
