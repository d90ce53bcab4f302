"""The quickstart of pictures, end to end with a tiny model, made pictures and some updates: what it makes, that running
it again costs nothing, and what it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import diffusion_reference as reference
import emoji
import pytest
import yaml
from captioned import CaptionedFile

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "scripts/quickstart.sh"
SETTINGS = {"budget": "3 steps", "batch.global": 4, "batch.micro": 2, "adapter.rank": 2, "evaluate.every": "3 steps",
            "checkpoint.every": "1 steps", "sample.prompts": '["sumi, a cat", "a cat --d 0"]', "sample.steps": 2,
            "optimizer.lr": 0.02, "run.threads": 1}  # fmt: skip


def start(*arguments, program="", cwd=None, **environment):
    return subprocess.run(
        ["bash", QUICKSTART, "pictures", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=240,
        check=False, env={**os.environ, "LORASCALE_PROGRAM": program, "COLUMNS": "120", **environment},
    )  # fmt: skip


def make_folder(data):
    """As emoji.py leaves it, so that it fetches nothing."""
    data.mkdir()
    emoji.check_settings(data, 64, emoji.NOUNS)
    nouns = ("a cat", "a red dog", "a dog", "a red cat")
    for name, count, side in (("style", 6, 64), ("prior", 5, 72), ("held-out", 2, 80), ("base", 1, 64)):
        words = [f"sumi, {noun}" for noun in nouns] if name in ("style", "held-out") else nouns
        reference.make_pictures(data / name, [(side, side)] * count, words)
    (data / "vocabulary").mkdir()
    (data / "held-out.txt").write_text("a cat\na red dog\n")
    (data / "trigger.txt").write_text("sumi\n")


class Place:
    def __init__(self, folder, program):
        self.folder, self.program = folder, str(Path(program).resolve())
        make_folder(folder / "the data")
        reference.make_pipeline(folder / "model")

    def start(self, *arguments, settings=True):
        """From another folder, with paths relative to it."""
        line = ["--output", "a run", "--data", "the data", "--set", f"model.path={self.folder / 'model'}"]
        for key, value in SETTINGS.items() if settings else ():
            line += ["--set", f"{key}={value}"]
        return start(*line, *arguments, program=self.program, cwd=self.folder, OMP_NUM_THREADS="1")

    def metrics(self):
        return [json.loads(line) for line in (self.folder / "a run/metrics.jsonl").read_text().splitlines()]

    def times(self):
        return {path: path.stat().st_mtime_ns for path in (self.folder / "the data").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def done(program, tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("pictures"), program)
    result = place.start()
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return place, result.stdout


def test_from_pictures_to_a_report(done):
    place, text = done
    data, run = place.folder / "the data", place.folder / "a run"
    prepared = CaptionedFile(data / "sumi.h5")
    assert prepared.regularisation == [0] * 6 + [1] * 5 and prepared.repeats == [2] * 6 + [1] * 5
    assert all(caption.startswith("sumi, ") for caption in prepared.captions[:6])
    assert not any("sumi" in caption for caption in prepared.captions[6:])
    assert set(prepared.sizes) == {(64, 64)}
    assert CaptionedFile(data / "sumi-held-out.h5").captions == ["sumi, a cat", "sumi, a red dog"]

    lines = place.metrics()
    assert [line["step"] for line in lines] == [0, 1, 2, 3] and {line["world_size"] for line in lines[1:]} == {2}
    assert "val_loss" in lines[0] and "val_loss" in lines[-1]
    assert (run / "adapter/lora.safetensors").is_file()
    names = [f"{when}-{number:02}.png" for when in ("after", "before") for number in (0, 1)]
    assert sorted(path.name for path in (run / "samples").iterdir()) == [*names, "strengths.png"]
    page = (run / "report.html").read_text()
    assert re.findall("<h3>(.*?)</h3>", page)[:2] == ["sumi, a cat", "a cat"]
    assert page.count("before training</figcaption>") == page.count("after training</figcaption>") == 2
    assert "4 pictures of 2 prompts" in text
    assert f"scripts/demo/judge_pictures.py '{run}' --data '{data}'" in text


def test_again_it_does_only_what_is_left(done):
    place, _ = done
    before, metrics = place.times(), place.metrics()
    result = place.start("--fresh")
    assert result.returncode == 0, result.stderr
    assert f"deleted {place.folder}/a run" in result.stdout
    assert place.times() == before
    assert [line.get("loss") for line in place.metrics()] == [line.get("loss") for line in metrics]
    (place.folder / "the data/sumi-held-out.h5").unlink()
    again = place.start()
    assert again.returncode == 0, again.stderr
    assert CaptionedFile(place.folder / "the data/sumi-held-out.h5").captions == ["sumi, a cat", "sumi, a red dog"]
    assert len(place.metrics()) == len(metrics)


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["--what"], 64, "unknown argument '--what'"),
    (["pictures"], 64, "unknown argument 'pictures'"),
    (["--text", "x"], 64, "unknown argument '--text'"),
    (["--ranks"], 64, "--ranks needs a value"),
    (["--ranks", "0"], 64, "whole number from 1"),
    (["--fresh", "--set"], 64, "--set needs a value"),
    (["--set", "run.output_dir=x"], 64, "--output FOLDER"),
    (["--set", "data.validation=x"], 64, "--data FOLDER"),
    (["--set", "model.path=/nowhere/model"], 65, "/nowhere/model is no model's folder"),
])  # fmt: skip
def test_wrong_usage_costs_one_line(tmp_path, arguments, code, words):
    result = start(*arguments, cwd=tmp_path)
    assert result.returncode == code
    assert result.stderr.startswith("quickstart: ") and words in result.stderr and result.stderr.count("\n") == 1
    assert result.stdout == "" and list(tmp_path.iterdir()) == []


@pytest.fixture
def model(tmp_path):
    """What is taken for one until it is looked at."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model_index.json").write_text("{}")
    return f"model.path={tmp_path / 'model'}"


def tools(folder, apt_get):
    folder.mkdir()
    (folder / "apt-get").write_text(f"#!/bin/sh\n{apt_get}\n")
    (folder / "apt-get").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_packages_that_are_not_to_be_had(program, model, tmp_path):
    """A machine whose apt-get knows none of them, and that fetches no lists either: it is asked for them once."""
    path = tools(tmp_path / "tools", f"echo $1 >>{tmp_path}/asked; echo 'E: Unable to locate package' >&2; exit 100")
    said = start("--output", tmp_path / "run", "--data", tmp_path / "data", "--set", model,
                 program=str(Path(program).resolve()), PATH=path, LORASCALE_HOME=str(home_of(tmp_path)))  # fmt: skip
    assert said.returncode == 65, said.stderr
    assert "package fonts-noto-color-emoji is not to be had: E: Unable to locate package" in said.stderr
    assert said.stderr.endswith("quickstart: no pictures were made, for the reason above\n")
    if os.geteuid() == 0:
        assert "update" in (tmp_path / "asked").read_text().split()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["settings.json"]
    assert not (tmp_path / "run").exists()


def home_of(folder):
    """A cache of its own, with the Python environment of this machine."""
    usual = os.environ.get("LORASCALE_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lorascale")  # fmt: skip
    home = folder / "home"
    home.mkdir()
    for path in Path(usual).glob("python-*"):
        (home / path.name).symlink_to(path)
    return home


@pytest.mark.parametrize(("name", "text", "words"), [
    ("thesis.txt", "thesis", "holds other files than this program's"),
    ("settings.json", '{"size": 32}', "holds pictures of another --size"),
])  # fmt: skip
def test_a_folder_of_other_things(program, model, tmp_path, name, text, words):
    """It is refused, and no package is asked for."""
    path = tools(tmp_path / "tools", f"touch {tmp_path}/asked; exit 100")
    (tmp_path / "data/vocabulary").mkdir(parents=True)
    (tmp_path / "data" / name).write_text(text)
    said = start("--output", tmp_path / "run", "--data", tmp_path / "data", "--set", model,
                 program=str(Path(program).resolve()), PATH=path)  # fmt: skip
    assert said.returncode == 65
    assert said.stderr.count(words) == 1 and said.stderr.endswith("no pictures were made, for the reason above\n")
    assert not (tmp_path / "asked").exists()
    assert (tmp_path / "data" / name).read_text() == text


def test_help_names_every_option():
    result = start("--help")
    assert result.returncode == 0 and "scripts/quickstart.sh pictures" in result.stdout
    for option in ("--fresh", "--ranks", "--set", "--output", "--data"):
        assert option in result.stdout
    assert "set -e" not in result.stdout and "shellcheck" not in result.stdout


def test_the_prompts_are_those_of_what_is_held_out():
    """With the trigger all, and some without it from the same noise."""
    config = yaml.safe_load((ROOT / "configs/pictures.yaml").read_text())
    lines = (ROOT / "scripts/demo/emoji-held-out.txt").read_text().splitlines()
    nouns = [line for line in lines if line and not line.startswith("#")]
    prompts = config["sample"]["prompts"]
    assert prompts[: len(nouns)] == [f"sumi, {noun}" for noun in nouns]
    plain = [re.fullmatch(r"(.+) --d (\d+)", prompt).groups() for prompt in prompts[len(nouns) :]]
    assert len(plain) >= 3
    assert all(nouns[int(seed) - config["run"]["seed"]] == noun for noun, seed in plain)


@pytest.mark.slow
def test_the_kept_model_learns_the_style_and_keeps_the_rest(program, tmp_path):
    """As a user runs it; a classifier that learns on the spot has the word. Its own faults: docs of judge_pictures.py."""
    run, data = tmp_path / "run", tmp_path / "data"
    environment = {**os.environ, "LORASCALE_PROGRAM": program}
    subprocess.run(["bash", QUICKSTART, "pictures", "--output", run, "--data", data], env=environment, check=True, timeout=900)
    judged = subprocess.run([sys.executable, ROOT / "scripts/demo/judge_pictures.py", run, "--data", data],
                            capture_output=True, text=True, timeout=1200)
    assert judged.returncode == 0, judged.stderr
    after = re.search(r"after training: content kept in (\d+) of 14 with the trigger .*; ink in (\d+) of 14; "
                      r"without the trigger ink in (\d+) of 4", judged.stdout)
    kept, ink, leaked = map(int, after.groups())
    assert kept >= 12 and ink >= 12 and leaked == 0, judged.stdout
