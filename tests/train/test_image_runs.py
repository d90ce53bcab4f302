"""Runs of image classification as a whole: the same on any number of ranks, over kills, in every verb; and what does not
belong together is refused in one line."""
import csv
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from harness import execute, expect_refusal, mpirun
from image_reference import SmallResNet, make_pictures, save_model, write_pictures, write_settings
from PIL import Image
from reference import make_documents, make_model, metrics, run, write_dataset
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
USAGE, BAD_INPUT, BAD_CONFIG = 64, 65, 78
STEPS = 12


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    training = write_pictures(folder, "train", *make_pictures(45, 8, 3))  # an epoch ends with an update of 9
    write_pictures(folder, "validation", *make_pictures(13, 8, 3, seed=1), classes_from=training)
    return folder


def settings(inputs, folder, norm="batch", **changes):
    """A run whose leaves are three: no two ranks have as many, and a fourth has none."""
    folder.mkdir(exist_ok=True, parents=True)
    config = {
        "model": {"path": "", "architecture": "resnet",
                  "resnet": {"layers": [1, 1], "width": 4, "norm": norm, "groups": 2}},
        "data": {"train": str(inputs / "train.h5"), "validation": str(inputs / "validation.h5"), "shuffle": True,
                 "augment": {"flip": True, "shift": 2}},
        "batch": {"global": 12, "micro": 4},
        "evaluate": {"every": "3 steps"},
        "checkpoint": {"every": "2 steps"},
        "budget": f"{STEPS} steps",
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        target, name = (config.setdefault(section, {}), key) if key else (config, section)
        target[name] = value
    return write_settings(folder, "run", config)


def result(folder):
    """What the arithmetic of a run leaves behind, to the last bit."""
    keys = ("step", "samples", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "grad_norm", "images")
    records = [{key: line.get(key) for key in keys} for line in metrics(folder / "run")]
    models = {name: hashlib.sha256((folder / "run" / name / "model.safetensors").read_bytes()).hexdigest()
              for name in ("model", "best")}
    newest = max((folder / "run/checkpoints").glob("step-*"))
    return {"records": json.dumps(records), **models,
            "state": hashlib.sha256((newest / "tensors.safetensors").read_bytes()).hexdigest()}


@pytest.fixture(scope="module")
def exact(program, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    run(program, "train", settings(inputs, folder, run={"reduction": "exact"}))
    return folder


def test_an_image_run_learns_and_says_so(exact):
    lines = metrics(exact / "run")
    assert lines[0]["step"] == 0 and 0 <= lines[0]["val_accuracy"] <= 1
    updates = [line for line in lines if line["step"] > 0]
    assert [line["images"] for line in updates] == [12, 12, 12, 9] * 3
    for line in updates:
        assert line["images_per_s"] > 0 and "tokens" not in line and "tokens_per_s" not in line
        assert line["accuracy"] * line["targets"] == pytest.approx(round(line["accuracy"] * line["targets"]), abs=1e-9)
    assert updates[-1]["loss"] < 0.9 * updates[0]["loss"]
    assert {round(line["val_accuracy"] * 13, 9) % 1 for line in lines if "val_accuracy" in line} == {0}


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_same_bits_on_any_number_of_ranks(program, inputs, exact, tmp_path, ranks):
    run(program, "train", settings(inputs, tmp_path, run={"reduction": "exact"}), ranks=ranks)
    assert result(tmp_path) == result(exact)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_same_curve_on_any_number_of_ranks(program, inputs, tmp_path, norm):
    curves = {}
    for ranks in (1, 2, 3, 4):
        run(program, "train", settings(inputs, tmp_path / f"{ranks}", norm), ranks=ranks)
        curves[ranks] = metrics(tmp_path / f"{ranks}/run")
    for ranks in (2, 3, 4):
        for key, tolerance in {"loss": 1e-6, "val_loss": 1e-6, "accuracy": 1e-12, "val_accuracy": 1e-12}.items():
            expected, actual = ([line[key] for line in curves[n] if key in line] for n in (1, ranks))
            assert actual == pytest.approx(expected, rel=tolerance), key
        assert {line["world_size"] for line in curves[ranks] if line["step"]} == {ranks}


def test_views_follow_the_seed_alone(program, inputs, exact, tmp_path):
    """Of one model and the same pictures in the same order: without augmentation the seed is in nothing else."""
    def loss(seed, **augment):
        folder = tmp_path / f"{seed}-{'-'.join(augment)}"
        run(program, "train", settings(inputs, folder, run={"reduction": "exact", "seed": seed}, budget="1 step",
                                       model={"path": str(exact / "run/model")}, evaluate={"every": 0},
                                       data__shuffle=False, data__augment=augment))
        return metrics(folder / "run")[-1]["loss"]

    assert loss(0) == loss(1)
    losses = [loss(0), loss(0, flip=True), loss(0, shift=2), loss(0, flip=True, shift=2), loss(1, flip=True, shift=2)]
    assert len(set(losses)) == 5


@pytest.mark.parametrize("average", [{}, {"average": {"name": "ema", "half_life": "24 samples"}}], ids=["plain", "ema"])
def test_a_kill_changes_no_bit(program, inputs, exact, tmp_path, average):
    """The running state of the norms is part of a checkpoint; the run goes on where it was, on other ranks."""
    folder = tmp_path / "killed"
    path = settings(inputs, folder, run={"reduction": "exact"}, faults=["kill step=6 phase=backward rank=1"], **average)
    outcome = execute(mpirun(2, [program, "train", str(path)]))
    assert outcome.code != 0
    assert metrics(folder / "run")[-1]["step"] == 5
    path = settings(inputs, folder, run={"reduction": "exact"}, **average)
    run(program, "train", path, ranks=3)
    whole = exact
    if average:
        whole = tmp_path / "whole"
        run(program, "train", settings(inputs, whole, run={"reduction": "exact"}, **average))
        assert result(whole)["model"] != result(exact)["model"]
    assert result(folder) == result(whole)
    state = load_file(folder / "run/model/model.safetensors")
    assert all(state[name].abs().min() > 0 for name in state if name.endswith("running_mean"))


def test_an_update_that_is_not_finite_leaves_the_running_state(program, inputs, tmp_path):
    def trained(name, **changes):
        run(program, "train", settings(inputs, tmp_path / name, budget="1 step", **changes))
        return load_file(tmp_path / name / "run/model/model.safetensors")

    skipped = trained("skipped", faults=["nan step=1 phase=backward"])
    assert metrics(tmp_path / "skipped/run")[-1]["applied"] is False
    for name, value in skipped.items():
        if name.endswith("running_mean"):
            assert (value == 0).all(), name
        elif name.endswith("running_var"):
            assert (value == 1).all(), name
    assert any((value != 0).any() for name, value in trained("sound").items() if name.endswith("running_mean"))


def test_training_further_on_another_size_says_the_new_one(program, inputs, exact, tmp_path):
    larger = write_pictures(tmp_path, "larger", *make_pictures(45, 12, 3))
    path = settings(inputs, tmp_path, model={"path": str(exact / "run/model")}, budget="1 step",
                    data={"train": str(larger), "validation": None})
    run(program, "train", path)
    assert json.loads((tmp_path / "run/model/config.json").read_text())["image_size"] == [12, 12]
    assert json.loads((exact / "run/model/config.json").read_text())["image_size"] == [8, 8]


def test_memory_that_runs_out_makes_leaves_smaller_and_says_what_that_means(program, inputs, tmp_path):
    said = run(program, "train", settings(inputs, tmp_path, budget="3 steps", faults=["oom step=2 phase=backward"])).stderr
    assert "batch normalisation is over a leaf: its leaves are smaller from here on" in said
    assert [line["micro_batch"] for line in metrics(tmp_path / "run") if line["step"]] == [4, 2, 2]


def test_inspect(program, inputs, exact, tmp_path):
    said = run(program, "inspect", inputs / "train.h5").stdout
    assert "45 images of 3 x 8 x 8, 5 classes" in said
    assert [line.split()[:2] for line in said.splitlines()[1:]] == [["class", str(i)] for i in range(5)]
    said = run(program, "inspect", exact / "run").stdout
    assert "resnet" in said and "all weights" in said and "tokens" not in said and "done at step 12" in said
    said = run(program, "inspect", exact / "run", "--replay").stdout
    assert "lead to the state" in said
    assert "layer2.0.downsample.1.running_var" in run(program, "inspect", exact / "run/model").stdout
    folder = tmp_path / "copy"
    shutil.copytree(exact / "run", folder)
    events = (folder / "events.jsonl").read_text().splitlines()
    changed = json.loads(events[3])
    changed["loss"] *= 2
    (folder / "events.jsonl").write_text("\n".join([*events[:3], json.dumps(changed), *events[4:]]) + "\n")
    assert run(program, "inspect", folder, "--replay", check=False).returncode != 0  # the control


def test_inspect_keeps_class_names_on_their_lines(program, tmp_path):
    pixels, _ = make_pictures(5, 8, 3)
    for name, picture in zip(("\u00fc", "new\nline", "\x1b[31mred"), pixels):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "in" / name / "1.png")
    subprocess.run([sys.executable, ROOT / "scripts/prepare_images.py", tmp_path / "in", "--output", tmp_path / "o.h5"],
                   check=True, capture_output=True)
    said = run(program, "inspect", tmp_path / "o.h5").stdout
    assert "\x1b" not in said and len(said.strip().splitlines()) == 4, said
    assert "\u00fc" in said and '"new\\x0aline"' in said.lower(), said


def test_plan(program, inputs, tmp_path):
    path = settings(inputs, tmp_path)
    said = run(program, "plan", path).stdout
    assert "45 images of 3 x 8 x 8, 5 classes" in said and "12 = 3 leaves of 4 on 1 rank" in said
    assert "resnet" in said and "token" not in said
    assert not (tmp_path / "run/metrics.jsonl").exists()
    said = run(program, "plan", path, "--headers-only", "--ranks", 3).stdout
    assert "resnet" in said and "45 images" in said and "for 3 ranks" in said


def test_find_lr(program, inputs, tmp_path):
    path = settings(inputs, tmp_path, budget="40 steps", batch={"global": 12, "micro": 4})
    outcome = run(program, "find-lr", path, "--to", "10")
    found = json.loads((tmp_path / "run/find-lr/result.json").read_text())
    assert found["verdict"] == "bracket" and found["state_before"] == found["state_after"], outcome.stderr
    rates = found["rate_at_batch"]
    assert 1e-3 < rates["low"] < rates["suggested"] < rates["high"] < 10
    rows = list(csv.DictReader((tmp_path / "run/find-lr/curve.csv").open()))
    assert len({row["loss"] for row in rows}) == len(rows)


def test_find_batch(program, inputs, tmp_path):
    note = "batch normalisation is over a leaf: a run with another batch.micro is another run"
    for norm in ("group", "batch"):
        said = run(program, "find-batch", settings(inputs, tmp_path, norm)).stdout
        assert "choice    batch.micro" in said and "samples/s" in said
        assert (note in said) == (norm == "batch")
        found = json.loads((tmp_path / "run/find-batch.json").read_text())
        assert found["chosen"] == int(re.search(r"^choice    batch.micro (\d+)", said, re.MULTILINE)[1])
        assert found["chosen"] in found["usable"]
        assert all(leaf["measured_bytes"] > 0 for rank in found["ranks"] for leaf in rank["leaves"])


def test_settings_of_other_norms_are_named(program, inputs, tmp_path):
    for norm, idle in (("group", ["ghost_batch 4"]), ("batch", ["groups 2"]), ("none", ["ghost_batch 4", "groups 2"])):
        said = run(program, "plan", settings(inputs, tmp_path, norm), "--set", "model.resnet.ghost_batch=4").stdout
        for setting in ("ghost_batch 4", "groups 2"):
            line = f"model.resnet.{setting} has no effect: model.resnet.norm is {norm}"
            assert (line in said) == (setting in idle), (norm, setting)


def test_settings_of_other_workloads_are_named(program, inputs, tmp_path):
    more = ["--set", "data.sequence_length=64", "--set", "model.recompute=true", "--set", "sample.prompts=[a]"]
    said = run(program, "train", settings(inputs, tmp_path / "image", budget="1 step"), *more).stderr
    for setting, kinds in (("data.sequence_length 64", "language"), ("model.recompute true", "language and diffusion"),
                           ("sample.prompts", "language and diffusion")):
        assert any(f"{setting}" in line and f"has no effect: it is of {kinds} models" in line
                   for line in said.splitlines()), setting
    make_language(tmp_path)
    path = write_settings(tmp_path, "text", language_settings(tmp_path))
    said = run(program, "train", path, "--set", "data.augment.flip=true", "--set", "model.resnet.width=8").stderr
    for setting, kinds in (("data.augment.flip true", "vision and diffusion"), ("model.resnet.width 8", "vision")):
        assert f"{setting} has no effect: it is of {kinds} models" in said


def make_language(folder):
    make_model("llama").save_pretrained(folder / "base")
    write_dataset(folder / "tokens.h5", make_documents(8, 4, 20))


def language_settings(folder):
    return {"model": {"path": str(folder / "base")}, "adapter": {"type": "lora"},
            "data": {"train": str(folder / "tokens.h5"), "validation": None, "packing": False},
            "batch": {"global": 4, "micro": 2}, "budget": "1 step"}


def refuse(program, path, code, words, *more, verb="train", headers=True):
    """One line of these words for all ranks, before anything is written; the same from headers alone."""
    ranks = 2 if verb == "train" else 1
    outcome = execute(mpirun(ranks, [program, verb, str(path), *map(str, more)]))
    expect_refusal(outcome, code, words)
    if verb == "train" and headers:
        alone = execute([program, "plan", "--headers-only", str(path), *map(str, more)])
        expect_refusal(alone, code, words)
        assert set(alone.messages) == set(outcome.messages)
    assert not (path.parent / "run/metrics.jsonl").exists()


REFUSALS = {
    "a leaf that is not given": (["batch.micro=auto"], BAD_CONFIG, ["norm batch", "batch.micro"]),
    "ghosts that differ": (["model.resnet.ghost_batch=3"], BAD_CONFIG, ["ghost_batch 3", "batch.micro 4"]),
    "groups that divide no width": (["model.resnet.norm=group", "model.resnet.groups=3"], BAD_CONFIG,
                                    ["groups", "divide width, here 4", "1 does"]),
    "a picture over": (["model.resnet.layers=[1, 1, 1, 1]"], BAD_CONFIG,
                       ["1 x 1", "45 images", "groups of 4 leave one over", "batch.micro"]),
    "single pictures": (["model.resnet.layers=[1, 1, 1, 1]", "model.resnet.ghost_batch=1"], BAD_CONFIG,
                        ["1 x 1", "groups of 1 are single", "ghost_batch"]),
    "a shift of the whole": (["data.augment.shift=8"], BAD_CONFIG, ["shifted", "0 to 7"]),
    "an adapter on nothing": (["adapter.type=lora"], BAD_CONFIG, ["model.architecture", "adapter.type: full"]),
    "a model and an architecture": (["model.path=/nowhere"], BAD_CONFIG, ["model.path", "model.architecture"]),
    "an architecture that there is not": (["model.architecture=vgg"], BAD_CONFIG, ["model.architecture", "resnet"]),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_refuses(program, inputs, tmp_path, what):
    changes, code, words = REFUSALS[what]
    more = [word for change in changes for word in ("--set", change)]
    refuse(program, settings(inputs, tmp_path), code, words, *more)


def test_refuses_a_budget_in_tokens(program, inputs, tmp_path):
    refuse(program, settings(inputs, tmp_path), BAD_CONFIG, ["1000 tokens", "samples, steps or epochs"],
           "--set", "budget=1000 tokens", headers=False)


def test_refuses_to_write_text(program, inputs, exact, tmp_path):
    refuse(program, settings(inputs, tmp_path), USAGE, ["resnet", "writes no text"], "--ids", "1 2", verb="generate")
    written = settings(inputs, tmp_path / "written", model={"path": str(exact / "run/model")}, adapter={"type": "lora"})
    refuse(program, written, USAGE, [f"{exact}/run/model writes no text"], "--ids", "1 2", verb="generate")


def test_refuses_validation_of_other_pictures(program, inputs, tmp_path):
    pixels, labels = make_pictures(10, 8, 3, seed=2)
    for name, shown, of, words in (("size", pixels[:, :6, :6], labels, ["3 x 6 x 6", "3 x 8 x 8"]),
                                   ("grey", pixels[..., :1], labels, ["1 x 8 x 8", "3 x 8 x 8"]),
                                   ("fewer", pixels, labels % 4, ["4 classes", "5"]),
                                   ("others", pixels, labels + 1, ["class 0", '"class 1"'])):
        path = write_pictures(tmp_path, name, shown, of)
        refuse(program, settings(inputs, tmp_path / f"of-{name}"), BAD_INPUT, [str(path), "--classes-from", *words],
               "--set", f"data.validation={path}")


def test_refuses_a_model_of_other_pictures(program, inputs, tmp_path):
    for name, model, more, words in (
            ("channels", SmallResNet(in_channels=1), {}, ["takes 1 channel", "has 3"]),
            ("names", SmallResNet(), {"labels": list("abcde")}, ["other names"])):
        save_model(model, tmp_path / name, **more)
        refuse(program, settings(inputs, tmp_path / f"of-{name}", model={"path": str(tmp_path / name)}), BAD_CONFIG,
               [str(tmp_path / name), *words])


def test_refuses_leaves_that_a_model_cannot_take(program, inputs, exact, tmp_path):
    """As of a new network, but named after the folder that says so."""
    ghosts = tmp_path / "ghosts"
    shutil.copytree(exact / "run/model", ghosts)
    form = json.loads((ghosts / "config.json").read_text())
    (ghosts / "config.json").write_text(json.dumps({**form, "ghost_batch": 3}))
    for model, change, words in (
            (exact / "run/model", "batch.micro=auto", ["its batch normalisation takes", "set batch.micro"]),
            (ghosts, "batch.micro=4", ["its ghost_batch 3 does not divide batch.micro 4", "change batch.micro"])):
        path = settings(inputs, tmp_path / f"of-{model.name}", model={"path": str(model)})
        refuse(program, path, BAD_CONFIG, [f"{model}: {words[0]}", *words[1:]], "--set", change)


def test_refuses_data_of_another_kind(program, inputs, tmp_path):
    make_language(tmp_path)
    for key in ("train", "validation"):
        refuse(program, settings(inputs, tmp_path / "image"), BAD_INPUT,
               [str(tmp_path / "tokens.h5"), "image file", "scripts/prepare_images.py"],
               "--set", f"data.{key}={tmp_path / 'tokens.h5'}")
    path = write_settings(tmp_path, "run", language_settings(tmp_path))
    for key in ("train", "validation"):
        refuse(program, path, BAD_INPUT, [str(inputs / "train.h5"), "token", "scripts/prepare_text.py"],
               "--set", f"data.{key}={inputs / 'train.h5'}")


def test_refuses_data_that_is_no_image_file(program, inputs, tmp_path):
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "pictures").mkdir()
    for key in ("train", "validation"):
        for name in ("a.txt", "pictures"):
            refuse(program, settings(inputs, tmp_path / "run"), BAD_INPUT,
                   [f"data.{key}: {tmp_path / name}", "no data file of a vision model", "scripts/prepare_images.py"],
                   "--set", f"data.{key}={tmp_path / name}")


def test_going_on_with_another_leaf_is_said_to_be_another_run(program, inputs, tmp_path):
    warning = "batch normalisation is over a leaf: with leaves of 6 in place of 4 the run is another"
    resnet = {"layers": [1, 1], "width": 4, "groups": 2}
    for name, form in {"leaf": {"norm": "batch"}, "ghosts": {"norm": "batch", "ghost_batch": 2},
                       "groups": {"norm": "group"}}.items():
        model = {"path": "", "architecture": "resnet", "resnet": {**resnet, **form}}
        changes = {"model": model, "schedule": {"name": "constant"}}
        run(program, "train", settings(inputs, tmp_path / name, budget="2 steps", **changes))
        path = settings(inputs, tmp_path / name, batch={"global": 12, "micro": 6}, budget="3 steps", **changes)
        said = run(program, "train", path).stderr
        assert (warning in said) == (name == "leaf"), said


def test_networks_for_pictures_are_not_shared_and_only_node_minds(program, inputs, exact, tmp_path):
    adapter = {"type": "lora", "targets": "all-layers", "rank": 2}
    path = settings(inputs, tmp_path, model={"path": str(exact / "run/model")}, adapter=adapter, budget="1 step")
    outcome = execute(mpirun(2, [program, "train", str(path)]))
    assert outcome.code == 0 and "every rank holds the whole model" not in outcome.stderr, outcome.stderr
    refuse(program, settings(inputs, tmp_path / "node", model={"path": str(exact / "run/model")}, adapter=adapter),
           BAD_CONFIG, ["model.share: node", "not shared yet"], "--set", "model.share=node", headers=False)


def test_a_channel_of_one_value(program, tmp_path):
    """Whose standard deviation is 0: the model trains, and a run that begins from it takes it."""
    pixels, labels = make_pictures(12, 8, 3)
    pixels[..., 1] = 77
    train = write_pictures(tmp_path, "train", pixels, labels)
    more = {"data": {"train": str(train), "validation": None}, "budget": "1 step"}
    run(program, "train", settings(tmp_path, tmp_path / "first", **more))
    model = tmp_path / "first/run/model"
    assert json.loads((model / "config.json").read_text())["image_std"][1] == pytest.approx(1 / 255)
    run(program, "train", settings(tmp_path, tmp_path / "second", **more, model={"path": str(model)}))


def test_an_adapter_of_the_stem_alone_goes_on(program, inputs, exact, tmp_path):
    """Its "conv1" is also how the names of the blocks' layers end."""
    base = {"model": {"path": str(exact / "run/model")}, "budget": "2 steps"}
    run(program, "train", settings(inputs, tmp_path / "first", **base, adapter={"type": "lora", "targets": ["^conv1"], "rank": 2}))
    adapter = tmp_path / "first/run/adapter"
    names = [name.removeprefix("base_model.model.") for name in load_file(adapter / "adapter_model.safetensors")]
    assert sorted(names) == ["conv1.lora_A.weight", "conv1.lora_B.weight"]
    run(program, "train", settings(inputs, tmp_path / "second", **base, adapter={"type": "lora", "init_from": str(adapter)}))
    again = load_file(tmp_path / "second/run/adapter/adapter_model.safetensors")
    assert len(again) == 2


def test_report(exact, tmp_path):
    said = subprocess.run([sys.executable, ROOT / "scripts/report.py", exact / "run", "--output", tmp_path],
                          capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "200"})
    assert said.returncode == 0, said.stderr
    lines = metrics(exact / "run")
    accuracies = [100 * line["val_accuracy"] for line in lines if "val_accuracy" in line]
    for text in (said.stdout, (tmp_path / "report.html").read_text()):
        assert f"{accuracies[-1]:.2f} %" in text and f"{accuracies[0]:.2f} %" in text
        assert "images/s" in text and "nats per image" in text
        assert "token" not in text and "perplexity" not in text
    assert "12 updates, 135 samples" in said.stdout
    assert "model in" in said.stdout
