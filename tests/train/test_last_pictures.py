"""What a run of pictures shows when it has ended: its adapter at several strengths, as `generate` makes them, and numbers
of over-fitting, as diffusers makes them; neither touches its results. And colours that change in training."""
import hashlib
import json
import zlib

import diffusers
import diffusion_reference as reference
import h5py
import numpy as np
import pytest
import yaml
from harness import execute
from PIL import Image
from reference import metrics, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SIZES = [(32, 32)] * 6
PROMPTS = ["a red cat", "a zzz dog --n grass --l 2 --d 77", "zzz --w 48 --s 3", "a house --h 48 --d 5", "not shown"]
STRENGTHS = [0, 0.4, 0.8, 1.2]
STEPS = 4


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("last")
    reference.make_pipeline(folder / "model")
    pictures = reference.make_pictures(folder / "train", SIZES, ["zzz, a cat", "a dog, zzz", "Zzz, a red sky"])
    reference.prepare(pictures, folder / "model", folder / "train.h5", "--no-deduplicate")
    return folder


def settings(inputs, folder, **changes):
    config = {
        "run": {"output_dir": str(folder / "run"), "threads": 1, "device": "cpu", "reduction": "exact"},
        "model": {"path": str(inputs / "model"), "dtype": "fp32"},
        "adapter": {"rank": 2, "alpha": 3},
        "data": {"train": str(inputs / "train.h5")},
        "batch": {"global": 4, "micro": 2},
        "optimizer": {"lr": 2e-2},
        "sample": {"every": "100 steps", "prompts": PROMPTS, "steps": 4},
        "budget": f"{STEPS} steps",
    }
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def results(folder):
    """The bytes of what was learnt."""
    files = sorted(path for path in folder.rglob("*.safetensors"))
    assert len(files) > 1
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def measures(folder):
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    found = [event for event in events if event["event"] == "preview"]
    assert len(found) <= 1 and all(event["step"] == STEPS for event in found)
    return {measure["name"]: measure for event in found for measure in event["measures"]}


def advice(folder):
    decisions = [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]
    return [line["reason"] for line in decisions if line["kind"] == "advice" and line["step"] == STEPS]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


@pytest.fixture(scope="module")
def ended(program, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended")
    run(program, "train", settings(inputs, folder))
    assert list(folder.glob("cache/latents-*"))
    return folder


def test_strengths_are_those_of_generate(program, ended, tmp_path):
    """Of the first four prompts, one below the other; two of them are asked for."""
    shown = pixels(ended / "run/samples/strengths.png")
    assert shown.shape == (32 + 32 + 32 + 48, 4 * 48, 3)
    top = 0
    for number, (prompt, height, width) in enumerate(zip(PROMPTS[:4], (32, 32, 32, 48), (32, 32, 48, 32))):
        seed = "" if "--d" in prompt else f" --d {number}"
        if number not in (1, 2):
            top += height
            continue
        made = tmp_path / f"{number}.png"
        run(program, "generate", ended / "run.yaml", "--prompt", prompt + seed, "--strength", "0,0.4,0.8,1.2", "--output", made)
        row = pixels(made)
        assert row.shape == (height, 4 * width, 3)
        assert (shown[top:top + height, :4 * width] == row).all(), prompt
        assert (shown[top:top + height, 4 * width:] == 255).all()
        assert np.abs(row[:, :width] - row[:, 3 * width:]).max() > 10  # the adapter makes a difference
        top += height
    text = Image.open(ended / "run/samples/strengths.png").text["parameters"].split("\n")
    assert text[:2] == ["a red cat", f"Steps: 4, Sampler: ddim, CFG scale: 7.5, Seed: 0, Size: 32x32, Model: model, LoRA: "
                                     f"{ended}/run/adapter at 0, 0.4, 0.8, 1.2"]
    assert text[2:4] == ["a zzz dog", "Negative prompt: grass"] and len(text) == 4 * 2 + 1
    board = EventAccumulator(str(ended / "run/tensorboard"))
    board.Reload()
    assert "samples/strengths" in board.Tags()["images"]


def test_they_leave_the_results_as_they_are(program, inputs, ended, tmp_path):
    run(program, "train", settings(inputs, tmp_path, sample={"strengths": [], "prompts": PROMPTS[:1]}, advice=False))
    assert not (tmp_path / "run/samples/strengths.png").exists() and not measures(tmp_path / "run")
    assert results(tmp_path / "run") == results(ended / "run")
    assert json.loads((ended / "run/status.json").read_text())["outcome"] == "done"


def test_numbers_of_over_fitting_are_those_of_diffusers(program, inputs, ended):
    made = diffusers.StableDiffusionPipeline.from_pretrained(inputs / "model", safety_checker=None, feature_extractor=None)
    made.set_progress_bar_config(disable=True)

    def latents(prompt, scale):
        made.set_adapters(["ours"], [scale])
        return [made(prompt, negative_prompt="grass", height=32, width=32, num_inference_steps=4, guidance_scale=2.0,
                     latents=reference.Draws(seed, 0, 0).normal(2, (4, 16, 16)), output_type="latent").images.double()
                for seed in (77, 78, 79)]

    made.load_lora_weights(str(ended / "run/adapter/lora.safetensors"), adapter_name="ours")
    # Of all prompts the first that has what the captions share, and something else.
    with_words, without = ([latents(prompt, scale) for scale in (0.0, 1.0)] for prompt in ("a zzz dog", "a dog"))

    def distances(pictures):
        return sum(float((a - b).norm()) for i, a in enumerate(pictures) for b in pictures[:i])

    def change(base, now):
        return sum(float((a - b).norm()) for a, b in zip(base, now)) / sum(float(a.norm()) for a in base)

    found = measures(ended / "run")
    assert found.keys() == {"seeds_distance", "change_without_words"}
    assert found["seeds_distance"]["of"] == "a zzz dog" and found["change_without_words"]["of"] == "zzz"
    assert found["seeds_distance"]["value"] == pytest.approx(distances(with_words[1]) / distances(with_words[0]), rel=1e-3)
    leak = change(*without) / change(*with_words)
    assert found["change_without_words"]["value"] == pytest.approx(leak, rel=1e-3)
    # A model of random weights knows no words: the change is everywhere.
    assert leak > 0.5
    (said,) = [text for text in advice(ended / "run") if "without its words" in text]
    assert f"without 'zzz', which the captions share, changes {round(leak, 2):g} times as much" in said
    assert "byte for byte" in run(program, "inspect", ended / "run", "--replay").stdout


def test_any_number_of_ranks_says_the_same(program, inputs, ended, tmp_path):
    run(program, "train", settings(inputs, tmp_path), ranks=2)
    assert measures(tmp_path / "run") == measures(ended / "run")
    assert (pixels(tmp_path / "run/samples/strengths.png") == pixels(ended / "run/samples/strengths.png")).all()
    assert "byte for byte" in run(program, "inspect", tmp_path / "run", "--replay").stdout


def test_what_fails_there_loses_nothing(program, inputs, ended, tmp_path):
    outcome = execute([program, "train", settings(inputs, tmp_path, sample={"prompts": PROMPTS[:1]},
                                                faults=[f"oom step={STEPS} phase=sample times=2"])])
    assert outcome.code == 0, outcome.stderr
    assert not (tmp_path / "run/samples/strengths.png").exists() and not list((tmp_path / "run/samples").glob("after*"))
    assert results(tmp_path / "run") == results(ended / "run")
    decisions = [json.loads(line) for line in (tmp_path / "run/decisions.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "memory" and "sampling" in line["reason"] for line in decisions) == 2
    # A file that cannot be written.
    folder = tmp_path / "taken"
    (folder / "run/samples/strengths.png").mkdir(parents=True)
    outcome = execute([program, "train", settings(inputs, folder, sample={"prompts": PROMPTS[:1]})])
    assert outcome.code == 0 and "samples show last is not all there" in outcome.stderr, outcome.stderr
    assert json.loads((folder / "run/status.json").read_text())["outcome"] == "done"


@pytest.mark.slow
def test_full_training_has_no_strengths_but_numbers(program, inputs, tmp_path):
    run(program, "train", settings(inputs, tmp_path, adapter={"type": "full"}, optimizer={"lr": 1e-3},
                                   sample={"prompts": ["a cat"]}))
    assert not (tmp_path / "run/samples/strengths.png").exists()
    found = measures(tmp_path / "run")
    assert found["seeds_distance"]["of"] == "zzz, a cat"  # no prompt has the word: it is put before one
    assert found.keys() == {"seeds_distance", "change_without_words"}


def test_other_subjects_are_asked_by_their_loss(program, inputs, tmp_path):
    """Which the validation of the same pictures says, too: the first three, at the same noise."""
    reference.prepare(reference.make_pictures(tmp_path / "prior", SIZES[:3], ["a house"]), inputs / "model",
                      tmp_path / "validation.h5", "--no-deduplicate")
    reference.prepare(reference.make_pictures(tmp_path / "train", SIZES, ["a house"] * 3 + ["cat", "dog", "sky"]),
                      inputs / "model", tmp_path / "train.h5", "--no-deduplicate")
    with h5py.File(tmp_path / "train.h5", "r+") as file:
        file["regularisation"][:3] = 1
        file["checks/regularisation"][...] = zlib.crc32(file["regularisation"][...].tobytes())
    run(program, "train", settings(
        inputs, tmp_path, data={"train": str(tmp_path / "train.h5"), "validation": str(tmp_path / "validation.h5")},
        evaluate={"every": "100 steps"}, optimizer={"lr": 5e-2}, loss={"prior_weight": 1e-3},
        sample={"strengths": [], "prompts": PROMPTS[:1]}))
    lines = [line["val_loss"] for line in metrics(tmp_path / "run") if "val_loss" in line]
    found = measures(tmp_path / "run")
    assert found.keys() == {"seeds_distance", "prior_loss"}  # the captions share no word
    assert found["prior_loss"]["value"] == pytest.approx(lines[-1] / lines[0], rel=1e-5)
    assert any("other subjects fail" in text for text in advice(tmp_path / "run")) == (lines[-1] / lines[0] > 1.1)


def test_changed_colours_are_the_same_on_any_number_of_ranks(program, inputs, ended, tmp_path):
    """And no latents of them are kept."""
    for name, ranks in (("one", 1), ("two", 2)):
        run(program, "train", settings(inputs, tmp_path / name, data={"augment": {"color_jitter": 0.4}},
                                       sample={"prompts": []}), ranks=ranks)
        assert not list((tmp_path / name).glob("cache/latents-*"))
    folders = (tmp_path / "one", tmp_path / "two", ended)
    one, two, plain = ([line["loss"] for line in metrics(folder / "run")] for folder in folders)
    assert one == two and one != plain
    assert results(tmp_path / "one/run") == results(tmp_path / "two/run")
