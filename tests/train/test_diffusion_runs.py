"""Runs of models that make pictures, as a whole: the same on any number of ranks, over kills and where memory runs out;
pictures as diffusers makes them; adapters that begin from files, and merged ones."""
import hashlib
import json

import diffusers
import diffusion_reference as reference
import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from harness import execute, expect_refusal, mpirun
from PIL import Image
from reference import metrics, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

USAGE, BAD_INPUT, BAD_CONFIG = 64, 65, 78
# Buckets of 1, 2 and 8 pictures.
SIZES = [(32, 32)] * 8 + [(48, 32)] * 2 + [(32, 64)]
STEPS = 6
UNDROPPED = {"dropout": 0.0, "rank_dropout": 0.0, "module_dropout": 0.0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    reference.make_pipeline(folder / "model")
    reference.prepare(reference.make_pictures(folder / "train", SIZES), folder / "model", folder / "train.h5",
                      "--repeats", "2", "--no-deduplicate", "--masks", "--keep-margin")
    reference.prepare(reference.make_pictures(folder / "validation", SIZES[5:]), folder / "model",
                      folder / "validation.h5", "--no-deduplicate", "--masks")
    return folder


def settings(inputs, folder, **changes):
    folder.mkdir(exist_ok=True, parents=True)
    config = {
        "run": {"output_dir": str(folder / "run"), "threads": 1, "device": "cpu"},
        "model": {"path": str(inputs / "model"), "dtype": "fp32"},
        "adapter": {"rank": 2, "alpha": 4, "dropout": 0.1, "rank_dropout": 0.3, "module_dropout": 0.2},
        "data": {"train": str(inputs / "train.h5"), "validation": str(inputs / "validation.h5"), "masked": True,
                 "augment": {"flip": True, "crop": True},
                 "caption": {"shuffle": True, "keep": 1, "dropout": 0.1, "tag_dropout": 0.2}},
        "loss": {"min_snr_gamma": 5, "noise_offset": 0.05, "input_perturbation": 0.1},
        "batch": {"global": 6, "micro": 2},
        "optimizer": {"lr": 1e-3},
        "evaluate": {"every": "3 steps"},
        "checkpoint": {"every": "2 steps"},
        "budget": f"{STEPS} steps",
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            config[section][key] = value
        elif isinstance(value, dict):
            config[section] = {**config.get(section, {}), **value}
        else:
            config[section] = value
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def result(folder):
    """What the arithmetic of a run leaves behind, to the last bit."""
    keys = ("step", "samples", "loss", "val_loss", "loss_t1", "val_loss_t4", "lr", "grad_norm", "images")
    records = [{key: line.get(key) for key in keys} for line in metrics(folder / "run")]
    file = (folder / "run/adapter/lora.safetensors").read_bytes()
    newest = max((folder / "run/checkpoints").glob("step-*"))
    return {"records": json.dumps(records), "adapter": hashlib.sha256(file).hexdigest(),
            "state": hashlib.sha256((newest / "tensors.safetensors").read_bytes()).hexdigest()}


@pytest.fixture(scope="module")
def exact(program, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    run(program, "train", settings(inputs, folder, run={"reduction": "exact"}))
    return folder


def test_an_epoch_has_every_picture_as_often_as_it_repeats(exact):
    """22 samples in updates of 6; the last one of an epoch is smaller."""
    updates = [line for line in metrics(exact / "run") if line["step"] > 0]
    assert [line["images"] for line in updates] == [6, 6, 6, 4, 6, 6]
    assert all(line["targets"] == line["images"] for line in updates)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_same_bits_on_any_number_of_ranks(program, inputs, exact, tmp_path, ranks):
    run(program, "train", settings(inputs, tmp_path, run={"reduction": "exact"}), ranks=ranks)
    assert result(tmp_path) == result(exact)


def test_recomputing_changes_no_bit(program, inputs, exact, tmp_path):
    run(program, "train", settings(inputs, tmp_path, run={"reduction": "exact"}, model__recompute=True))
    assert result(tmp_path) == result(exact)


def test_same_curve_on_any_number_of_ranks(program, inputs, tmp_path):
    curves = {}
    for ranks in (1, 2, 3, 4):
        run(program, "train", settings(inputs, tmp_path / f"{ranks}"), ranks=ranks)
        curves[ranks] = metrics(tmp_path / f"{ranks}/run")
    for ranks in (2, 3, 4):
        for key in ("loss", "val_loss", "grad_norm"):
            expected, actual = ([line[key] for line in curves[n] if key in line] for n in (1, ranks))
            assert actual == pytest.approx(expected, rel=1e-5), key


def test_a_kill_changes_no_bit(program, inputs, exact, tmp_path):
    path = settings(inputs, tmp_path, run={"reduction": "exact"}, faults=["kill step=4 phase=backward rank=1"])
    assert execute(mpirun(2, [program, "train", str(path)])).code != 0
    run(program, "train", settings(inputs, tmp_path, run={"reduction": "exact"}), ranks=3)
    assert result(tmp_path) == result(exact)


@pytest.mark.parametrize("phase", ["forward", "backward", "evaluation"])
def test_memory_that_runs_out_makes_leaves_smaller_and_nothing_else(program, inputs, exact, tmp_path, phase):
    run(program, "train", settings(inputs, tmp_path, faults=[f"oom step=3 phase={phase}"]))
    ours, whole = ([line["loss"] for line in metrics(folder / "run") if line["step"]] for folder in (tmp_path, exact))
    assert ours == pytest.approx(whole, rel=1e-5)


def test_validation_is_the_mean_over_quarters_of_the_schedule(program, inputs, tmp_path):
    """Where no weights of the loss part them; tests/parity has each quarter's value."""
    run(program, "train", settings(inputs, tmp_path, loss__min_snr_gamma=None, budget="3 steps"))
    lines = [line for line in metrics(tmp_path / "run") if "val_loss" in line]
    assert len(lines) == 2
    for line in lines:
        quarters = [line[f"val_loss_t{i}"] for i in range(1, 5)]
        assert len(set(quarters)) == 4
        assert line["val_loss"] == pytest.approx(sum(quarters) / 4, rel=1e-6)
    assert {"loss_t1", "loss_t4"} <= metrics(tmp_path / "run")[-1].keys()


# --- pictures ---------------------------------------------------------------------------------------------------------

SAMPLERS = {
    "ddim": diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                                    clip_sample=False, set_alpha_to_one=False),
    "euler": diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                              timestep_spacing="leading", steps_offset=1),
    "dpmpp_2m_karras": diffusers.DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012,
                                                             beta_schedule="scaled_linear", use_karras_sigmas=True),
}


def pipeline(folder, sampler):
    parts = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    made = diffusers.StableDiffusionPipeline.from_pretrained(folder, scheduler=SAMPLERS[sampler], **parts)
    made.set_progress_bar_config(disable=True)
    return made


def theirs(made, prompt, seed, **more):
    """[32, 32, 3] from the noise that this program begins with."""
    latents = reference.Draws(seed, 0, 0).normal(2, (4, 16, 16))
    return np.asarray(made(prompt, height=32, width=32, latents=latents, **more).images[0], dtype=int)


def ours(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_are_the_pictures_of_diffusers(program, inputs, tmp_path, sampler):
    """With guidance, a prompt to steer away from, and settings behind one of the prompts."""
    prompts = ["a red cat", "a dog --n grass --l 2 --s 5 --d 77 --w 32 --h 32"]
    run(program, "train", settings(inputs, tmp_path, budget="1 step", optimizer={"lr": 1e-12},
                                   sample={"every": "1 step", "prompts": prompts, "steps": 7, "guidance": 3.0, "width": 32,
                                           "height": 32, "sampler": sampler}))
    pictures = sorted((tmp_path / "run/samples").glob("after-*.png"))
    assert len(pictures) == 2 and len(list((tmp_path / "run/samples").iterdir())) == 5  # before, and strengths.png
    made = pipeline(inputs / "model", sampler)
    expected = [theirs(made, "a red cat", 0, num_inference_steps=7, guidance_scale=3.0),
                theirs(made, "a dog", 77, num_inference_steps=5, guidance_scale=2.0, negative_prompt="grass")]
    for path, picture in zip(pictures, expected):
        assert np.abs(ours(path) - picture).max() <= 1
        assert picture.std() > 5  # it is a picture
    assert Image.open(pictures[1]).text["parameters"] == (
        "a dog\nNegative prompt: grass\nSteps: 5, Sampler: " + sampler + ", CFG scale: 2, Seed: 77, Size: 32x32, Model: model")
    board = EventAccumulator(str(tmp_path / "run/tensorboard"))
    board.Reload()
    assert [tag for tag in board.Tags()["images"] if tag.startswith("samples/")] == [f"samples/{x}" for x in ("00", "01", "strengths")]


@pytest.fixture(scope="module")
def learnt(program, inputs, tmp_path_factory):
    """An adapter that makes a difference."""
    folder = tmp_path_factory.mktemp("learnt")
    run(program, "train", settings(inputs, folder, optimizer={"lr": 2e-2}, adapter={**UNDROPPED, "alpha": 3}))
    return folder


def difference(a, b):
    return np.abs(a - b).max()


def test_generate_takes_the_runs_adapter_at_any_strength(program, inputs, learnt, tmp_path):
    made = pipeline(inputs / "model", "ddim")
    base = theirs(made, "a red cat", 0, num_inference_steps=4, guidance_scale=7.5)
    made.load_lora_weights(str(learnt / "run/adapter/lora.safetensors"), adapter_name="ours")
    for strength in (1.0, 0.5):
        made.set_adapters(["ours"], [strength])
        picture = theirs(made, "a red cat", 0, num_inference_steps=4, guidance_scale=7.5)
        assert difference(picture, base) > 10
        said = run(program, "generate", learnt / "run.yaml", "--set", "sample.steps=4", "--prompt", "a red cat", "--strength",
                   strength, "--output", tmp_path / f"made/{strength}.png")
        assert difference(ours(tmp_path / f"made/{strength}.png"), picture) <= 1
        assert f"wrote {tmp_path / 'made'}" in said.stdout
    # Several, from the run's folder: side by side.
    run(program, "generate", learnt / "run.yaml", "--set", "sample.steps=4", "--prompt", "a red cat", "--strength", "0,0.5,1",
        "--adapter", learnt / "run", "--output", tmp_path / "made/all.png")
    together = ours(tmp_path / "made/all.png")
    assert difference(together, np.concatenate([base] + [ours(tmp_path / f"made/{x}.png") for x in (0.5, 1.0)], 1)) <= 1
    assert Image.open(tmp_path / "made/all.png").text["parameters"].count("LoRA: ") == 3


def test_a_merged_folder_is_the_model_with_its_adapter(program, inputs, learnt, tmp_path):
    adapter = learnt / "run/adapter"
    run(program, "merge", "--model", inputs / "model", "--adapter", adapter, "--output", tmp_path / "merged")
    made = pipeline(inputs / "model", "ddim")
    made.load_lora_weights(str(adapter / "lora.safetensors"))
    expected = theirs(made, "a red cat", 0, num_inference_steps=4, guidance_scale=7.5)
    merged = theirs(pipeline(tmp_path / "merged", "ddim"), "a red cat", 0, num_inference_steps=4, guidance_scale=7.5)
    assert difference(merged, expected) <= 1
    same = "vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "merged" / same).read_bytes() == (inputs / "model" / same).read_bytes()


def norms_of_changes(file):
    tensors = {key: value.double().flatten(1) for key, value in safetensors.torch.load_file(file).items()
               if not key.endswith(".alpha")}
    downs = [key for key in tensors if key.endswith("lora_down.weight")]
    return np.array([float((tensors[down.replace("lora_down", "lora_up")] @ tensors[down]).norm()) * 3 / 2 for down in downs])


def test_no_change_is_larger_than_scale_weight_norms(program, inputs, learnt, tmp_path):
    most = 0.05
    run(program, "train", settings(inputs, tmp_path, optimizer={"lr": 2e-2},
                                   adapter={**UNDROPPED, "alpha": 3, "scale_weight_norms": most}))
    free = norms_of_changes(learnt / "run/adapter/lora.safetensors")
    held = norms_of_changes(tmp_path / "run/adapter/lora.safetensors")
    assert (free > most).any() and held.max() == pytest.approx(most, rel=1e-5)


def test_training_goes_on_from_a_file(program, inputs, learnt, tmp_path):
    """With the layers, ranks and alphas of the file, which may be of sd-scripts' making: without some layers."""
    file = safetensors.torch.load_file(learnt / "run/adapter/lora.safetensors")
    kept = {name: tensor for name, tensor in file.items() if name.startswith("lora_unet_") and "_attn1_" in name}
    assert 0 < len(kept) < len(file)
    safetensors.torch.save_file(kept, tmp_path / "start.safetensors")
    path = settings(inputs, tmp_path, adapter={"init_from": str(tmp_path / "start.safetensors")}, optimizer={"lr": 1e-12},
                    budget="1 step")
    config = yaml.safe_load(path.read_text())
    for key in ("rank", "alpha"):
        del config["adapter"][key]
    path.write_text(yaml.safe_dump(config))
    run(program, "train", path)
    after = safetensors.torch.load_file(tmp_path / "run/adapter/lora.safetensors")
    assert after.keys() == kept.keys()
    for name, tensor in kept.items():
        assert torch.allclose(after[name], tensor, atol=1e-6), name
    config["adapter"]["rank"] = 4
    config["run"]["output_dir"] = str(tmp_path / "other")
    path.write_text(yaml.safe_dump(config))
    outcome = execute([program, "train", path])
    assert outcome.code == BAD_CONFIG and "adapter.rank 4 is not that of" in outcome.messages[0], outcome.stderr
    config["adapter"]["rank"] = 2  # as the run's own config.yaml says
    path.write_text(yaml.safe_dump(config))
    outcome = execute([program, "train", path])
    assert outcome.code == 0


# --- one file of all parts --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_a_model_in_one_file_is_the_one_in_a_folder(program, tmp_path, kind):
    prediction = "v" if kind == "sd2" else "epsilon"
    reference.make_pipeline(tmp_path / "model", kind + "-file", prediction)
    file = reference.to_one_file(tmp_path / "model", tmp_path / "v1-5.safetensors")
    reference.prepare(reference.make_pictures(tmp_path / "pictures", SIZES[6:]), tmp_path / "model", tmp_path / "train.h5")
    losses = {}
    for model in (tmp_path / "model", file):
        data = {"train": str(tmp_path / "train.h5"), "validation": None, "masked": False}
        path = settings(tmp_path, tmp_path / ("of-" + model.name), model={"path": str(model), "prediction": prediction}, data=data,
                        budget="2 steps", batch={"global": 4, "micro": 2}, run={"reduction": "exact"})
        run(program, "train", path)
        losses[model.name] = [line["loss"] for line in metrics(path.parent / "run")]
        adapter = path.parent / "run/adapter"
    assert losses["model"] == losses["v1-5.safetensors"]
    run(program, "merge", "--model", file, "--adapter", adapter, "--output", tmp_path / "merged")
    merged = safetensors.torch.load_file(tmp_path / "merged/v1-5.safetensors")
    before, lora = safetensors.torch.load_file(file), safetensors.torch.load_file(adapter / "lora.safetensors")
    assert merged.keys() == before.keys()
    name = "lora_unet_down_blocks_0_attentions_0_proj_in"
    down, up, alpha = (lora[name + end] for end in (".lora_down.weight", ".lora_up.weight", ".alpha"))
    assert down.dim() == (4 if kind == "sd1" else 2)
    key = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
    change = (up.flatten(1) @ down.flatten(1)) * alpha / down.shape[0]
    assert torch.allclose(merged[key], before[key] + change.view_as(before[key]), atol=1e-6)
    if kind == "sd2":
        name = "lora_te_text_model_encoder_layers_1_self_attn_k_proj"
        down, up, alpha = (lora[name + end] for end in (".lora_down.weight", ".lora_up.weight", ".alpha"))
        key = "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight"
        expected = before[key].clone()
        expected[128:256] += up @ down * alpha / 2
        assert torch.allclose(merged[key][128:256], expected[128:256], atol=1e-6)
        assert not torch.equal(merged[key][:128], before[key][:128])  # q learns, too
        outcome = execute([program, "train", settings(tmp_path, tmp_path / "unsaid", model={"path": str(file)}, data=data)])
        assert outcome.code == BAD_CONFIG and "set model.prediction to v" in outcome.messages[0], outcome.stderr
    assert torch.equal(merged["alphas_cumprod"], before["alphas_cumprod"])


def test_ranks_share_a_model_whose_schedule_ends_in_noise_alone(program, tmp_path):
    reference.make_pipeline(tmp_path / "model", "sd2", "v")
    path = tmp_path / "model/scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_betas_zero_snr": True}))
    reference.prepare(reference.make_pictures(tmp_path / "pictures", SIZES[6:]), tmp_path / "model", tmp_path / "train.h5")
    data = {"train": str(tmp_path / "train.h5"), "validation": None, "masked": False}
    run(program, "train", settings(tmp_path, tmp_path / "at", model={"path": str(tmp_path / "model")}, data=data,
                                   budget="1 step", batch={"global": 4, "micro": 2}), ranks=2)


def test_strength_is_of_adapters(program, inputs, tmp_path):
    path = settings(inputs, tmp_path, adapter={"type": "full", **UNDROPPED}, budget="1 step")
    run(program, "train", path)
    outcome = execute([program, "generate", path, "--prompt", "a", "--strength", "0.5"], cwd=tmp_path)
    assert outcome.code == USAGE and "--strength is of adapters" in outcome.messages[0], outcome.stderr


# --- what cannot be ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("changes", "code", "message"), [
    (dict(loss={"zero_terminal_snr": True}), BAD_CONFIG, "needs a model that predicts v"),
    (dict(data__caption={"max_tokens": 100}), BAD_CONFIG, "75, 150 and 225 can be"),
    (dict(model={"clip_skip": 7}), BAD_CONFIG, "leaves nothing of a text encoder of 3 layers"),
    (dict(sample={"every": "1 step", "prompts": ["a cat --q 3"]}), BAD_CONFIG, "has --q"),
    (dict(sample={"every": "1 step", "prompts": ["a cat --l nan"]}), BAD_CONFIG, "--l takes a number from 0"),
    (dict(sample={"every": "1 step", "prompts": ["a cat --w 33"]}), BAD_CONFIG, "multiples of 2 can"),
    (dict(adapter={"targets": ["q_prj"]}), BAD_CONFIG, "q_prj"),
    (dict(adapter={"init_from": "nothing.safetensors"}), BAD_INPUT, "nothing.safetensors"),
])
def test_refused(program, inputs, tmp_path, changes, code, message):
    outcome = execute([program, "train", settings(inputs, tmp_path, **changes)])
    assert outcome.code == code, outcome.stderr
    assert len(outcome.messages) == 1 and message in outcome.messages[0], outcome.stderr
    assert "\n" not in outcome.messages[0].strip()


@pytest.mark.parametrize(("file", "change", "message"), [
    ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "not inpainting"),
    ("unet/config.json", {"in_channels": 9}, "inpainting"),
    ("unet/config.json", {"norm_num_groups": 7}, "does not divide"),
    ("unet/config.json", {"cross_attention_dim": 12}, "captions of width 12"),
    ("unet/config.json", {"block_out_channels": [16, 32, 64]}, "has shape"),
    ("vae/config.json", {"shift_factor": 0.1}, "shift_factor"),
    ("text_encoder/config.json", {"hidden_act": "relu"}, "relu"),
    ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "epsilon and v_prediction"),
])
def test_models_that_are_none_of_these_are_refused_by_name(program, inputs, tmp_path, file, change, message):
    import shutil
    shutil.copytree(inputs / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / file).read_text())
    (tmp_path / "model" / file).write_text(json.dumps({**config, **change}))
    outcome = execute([program, "train", settings(inputs, tmp_path, model={"path": str(tmp_path / "model")})])
    assert outcome.code == BAD_INPUT, outcome.stderr
    assert len(outcome.messages) == 1 and message in outcome.messages[0], outcome.stderr


@pytest.mark.parametrize("other", ["words", "padding"])
def test_captions_of_another_tokenizer_are_refused(program, inputs, tmp_path, other):
    import shutil
    shutil.copytree(inputs / "model", tmp_path / "model")
    if other == "words":
        path = tmp_path / "model/tokenizer/tokenizer.json"
        contents = json.loads(path.read_text())
        contents["model"]["merges"].reverse()
    else:
        path = tmp_path / "model/tokenizer/tokenizer_config.json"
        contents = {**json.loads(path.read_text()), "pad_token": "!"}
    path.write_text(json.dumps(contents))
    outcome = execute([program, "train", settings(inputs, tmp_path, model={"path": str(tmp_path / "model")})])
    assert outcome.code == BAD_INPUT and "another tokenizer" in outcome.messages[0], outcome.stderr


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--strength", "nan"], USAGE, "--strength takes a number"),
    (["--strength", "0.5,"], USAGE, "--strength takes a number"),
    (["--output", "x.jpg"], USAGE, "ends with .png"),
    (["--adapter", "nothing"], BAD_INPUT, "nothing does not exist"),
    (["--output", "there.png"], 73, "is there; choose another"),
])
def test_generate_refuses(program, learnt, tmp_path, arguments, code, message):
    (tmp_path / "there.png").write_bytes(b"mine")
    outcome = execute([program, "generate", learnt / "run.yaml", "--prompt", "a", *arguments], cwd=tmp_path)
    assert outcome.code == code and len(outcome.messages) == 1 and message in outcome.messages[0], outcome.stderr
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_a_folder_of_pictures_is_told_how_to_be_prepared(program, inputs, tmp_path):
    path = settings(inputs, tmp_path, data={"train": str(inputs / "train")})
    outcome = execute([program, "train", path])
    assert outcome.code == BAD_INPUT and "scripts/prepare_images.py" in outcome.messages[0], outcome.stderr


def test_plan_and_inspect(program, inputs, exact, tmp_path):
    path = settings(inputs, tmp_path)
    said = run(program, "plan", path).stdout
    assert "stable-diffusion-1" in said and "32 x 32 (height x width): 8 pictures" in said and "token" not in said
    said = run(program, "plan", path, "--headers-only").stdout
    assert "stable-diffusion-1" in said and "11 pictures" in said
    said = run(program, "inspect", inputs / "train.h5").stdout
    assert "11 pictures, 22 samples an epoch" in said and '"a red cat"' in said
    adapter = exact / "run/adapter"
    assert f"{adapter}: LoRA rank 2 on 102 layers" in run(program, "inspect", exact / "run").stdout
    for path in (adapter, adapter / "lora.safetensors"):
        said = run(program, "inspect", path).stdout
        assert "lora_unet_mid_block_attentions_0_proj_in" in said and "rank 2" in said and "alpha 4" in said


@pytest.mark.parametrize(("path", "message"), [("unet", "is one part of a model"), ("a-lora.safetensors", "is a LoRA")])
def test_what_is_no_model_is_named(program, inputs, tmp_path, path, message):
    tensors = {"lora_unet_mid_block_attentions_0_proj_in.alpha": torch.ones(())}
    safetensors.torch.save_file(tensors, tmp_path / "a-lora.safetensors")
    model = inputs / "model/unet" if path == "unet" else tmp_path / path
    outcome = execute([program, "train", settings(inputs, tmp_path, model={"path": str(model)})])
    assert outcome.code == BAD_INPUT and len(outcome.messages) == 1 and message in outcome.messages[0], outcome.stderr
