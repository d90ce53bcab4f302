"""The first thing a new user runs, end to end with a budget of a few updates: what it makes, that running it again costs
nothing, that it can be interrupted, and what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "scripts" / "quickstart.sh"
UPDATES, STEPS = 6, 40
SETTINGS = {
    "budget": f"{UPDATES} steps",
    "batch.global": 8,
    "batch.micro": 4,
    "data.sequence_length": 128,
    "evaluate.every": "3 steps",
    "evaluate.max_samples": 8,
    "checkpoint.every": "2 steps",
    "sample.max_tokens": 24,
    "sample.prompts": '["The ", "The "]',
    "run.deadline_seconds": 60,
    "run.threads": 1,
}


class Place:
    """Folders of a quickstart of its own, outside the checkout."""

    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        self.run, self.data = folder / "a run", folder / "data"
        self.text = folder / "text.txt"
        shutil.copy(ROOT / "LICENSE", self.text)  # real English, a hundred paragraphs

    def command(self, *arguments, settings=None):
        line = ["bash", str(QUICKSTART), "--text", str(self.text), "--output", str(self.run), "--data", str(self.data)]
        for key, value in (SETTINGS if settings is None else settings).items():
            line += ["--set", f"{key}={value}"]
        return [*line, *arguments]

    def environment(self):
        return {**os.environ, "LORASCALE_PROGRAM": self.program, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

    def start(self, *arguments, **more):
        # From another folder, in a process group of its own as a terminal would have it.
        return subprocess.run(
            self.command(*arguments, **more), cwd=self.folder, env=self.environment(), capture_output=True, text=True,
            timeout=240, start_new_session=True, check=False,
        )  # fmt: skip

    def metrics(self):
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]

    def files(self):
        """Every file of the run that is not the report, with its time of change."""
        return {
            str(path.relative_to(self.run)): path.stat().st_mtime_ns
            for path in self.run.rglob("*")
            if path.is_file() and path.name not in ("report.html", "report.png")
        }


@pytest.fixture(scope="module")
def done(program, tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("quickstart"), str(Path(program).resolve()))
    result = place.start()
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return place, result.stdout


def test_trains_and_reports_what_was_measured(done):
    place, text = done
    lines = place.metrics()
    assert [line["step"] for line in lines] == list(range(UPDATES + 1))
    assert {line["world_size"] for line in lines[1:]} == {2}
    first, last = lines[0]["val_loss"], lines[-1]["val_loss"]
    assert last < first - 0.02
    assert f"{first:.4f} -> {last:.4f} nats per byte" in text
    page = (place.run / "report.html").read_text()
    assert f"{first:.3f} \N{RIGHTWARDS ARROW} {last:.3f}" in page
    points = re.findall(r"<title>validation, update (\d+): ([0-9.]+)</title>", page)
    assert points == [(str(line["step"]), f"{line['val_loss']:.4f}") for line in lines if "val_loss" in line]
    assert (place.run / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (place.run / "adapter").iterdir())[:1] == ["adapter_config.json"]


def test_samples_differ_before_and_after_and_from_each_other(done):
    place, text = done
    before, after = ((place.run / "samples" / name).read_bytes() for name in ("before.txt", "after.txt"))
    assert before != after
    # One prompt twice: chance goes its own way each time.
    one, two = before.removeprefix(b"> The \n").split(b"\n\n> The \n")
    assert one.strip() != two.strip()
    assert text.count('prompt  "The "') == 2


def test_next_commands_run_as_printed(done):
    place, text = done
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ") and place.program in line]
    verbs = {}
    for line in lines:
        verbs.setdefault(re.search(r"(?:lorascale|-n 4) (generate|inspect|merge|plan|train)\b", line)[1], line)
    assert set(verbs) == {"generate", "inspect", "merge", "plan", "train"}
    for verb in verbs:
        result = subprocess.run(
            ["bash", "-c", verbs[verb]], cwd=ROOT, env=place.environment(), capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, f"{verbs[verb]}\n{result.stderr}"
        assert result.stdout.strip() or verb == "train"
    more = [json.loads(line) for line in (place.folder / "a run-more" / "metrics.jsonl").read_text().splitlines()]
    assert more[0]["val_loss"] == pytest.approx(place.metrics()[-1]["val_loss"], rel=1e-5)  # goes on where it ended
    assert more[-1]["world_size"] == 4
    assert (place.run / "merged" / "model.safetensors").is_file()


def test_again_trains_nothing(done):
    place, _ = done
    before = place.files()
    result = place.start(settings={})
    assert result.returncode == 0, result.stderr
    assert "is finished" in result.stdout and "(made before)" in result.stdout
    assert "nats per byte" in result.stdout
    assert place.files() == before
    # A setting that this run was not made with is the trainer's to refuse.
    result = place.start("--set", "optimizer.lr=0.5")
    assert result.returncode == 78
    assert "belongs to another run" in result.stderr
    assert place.metrics()[-1]["step"] == UPDATES


@pytest.mark.parametrize("stop", ["Ctrl-C", "kill"])
def test_interrupted_run_goes_on_and_fresh_deletes_its_own_folder_alone(program, tmp_path, stop):
    place = Place(tmp_path, str(Path(program).resolve()))
    settings = {**SETTINGS, "budget": f"{STEPS} steps", "evaluate.every": 0, "sample.prompts": "[]"}
    with subprocess.Popen(
        place.command(settings=settings), cwd=tmp_path, env=place.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not list((place.run / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        if stop == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        else:
            process.terminate()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 75, output
        assert b"run the same command again to go on" in output
    assert place.metrics()[-1]["step"] < STEPS
    saved = max(int(path.name[5:]) for path in (place.run / "checkpoints").glob("step-*"))
    result = place.start(settings=settings)
    assert result.returncode == 0, result.stderr
    assert f"resumed at step {saved}" in result.stderr
    assert [line["step"] for line in place.metrics() if line["step"]] == list(range(1, STEPS + 1))

    (place.folder / "beside.txt").write_text("mine")
    result = place.start("--fresh", settings={**settings, "budget": "2 steps"})
    assert result.returncode == 0, result.stderr
    assert f"deleted {place.run}" in result.stdout and "(made before)" in result.stdout
    assert [line["step"] for line in place.metrics() if line["step"]] == [1, 2]
    assert (place.folder / "beside.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["other folder", "link", "file", "in use"])
def test_fresh_refuses_what_is_not_its_own(done, tmp_path, kind):
    place, _ = done
    mine = tmp_path / "mine"
    holder = None
    if kind == "file":
        mine.write_text("thesis")
    elif kind == "link":
        mine.symlink_to(place.run)
    else:
        mine.mkdir()
        (mine / "thesis.txt").write_text("thesis")
    if kind == "in use":
        for name in ("metrics.jsonl", "config.yaml", ".lock"):
            (mine / name).write_text("")
        holder = subprocess.Popen(["flock", str(mine / ".lock"), "sh", "-c", "echo held; read line"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert holder.stdout.readline() == b"held\n"
    before = place.files()
    result = place.start("--fresh", "--output", str(mine))
    if holder:
        holder.communicate(b"\n", timeout=10)
    assert result.returncode == 73, result.stdout + result.stderr
    assert str(mine) in result.stderr and result.stderr.count("quickstart: ") == 1
    assert mine.is_symlink() == (kind == "link") and mine.exists()
    assert kind == "file" or kind == "link" or (mine / "thesis.txt").read_text() == "thesis"
    assert place.files() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--what"], 64, "unknown argument '--what'"),
        (["extra"], 64, "unknown argument 'extra'"),
        (["--ranks"], 64, "--ranks needs a value"),
        (["--ranks", "0"], 64, "whole number from 1"),
        (["--ranks", "two"], 64, "whole number from 1"),
        (["--set", "run.output_dir=x"], 64, "--output FOLDER"),
        (["--set", "data.train=x"], 64, "--data FOLDER"),
        (["--text", "/nowhere/at-all.txt"], 65, "/nowhere/at-all.txt cannot be read"),
    ],
)
def test_wrong_usage_costs_one_line(tmp_path, arguments, code, words):
    result = subprocess.run(
        ["bash", str(QUICKSTART), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == code
    assert words in result.stderr and result.stderr.count("\n") == 1
    assert result.stdout == "" and list(tmp_path.iterdir()) == []


def test_data_of_another_text_is_not_mixed_in(done, tmp_path):
    place, _ = done
    other = tmp_path / "other.txt"
    other.write_text("Another text.\n\nIt has two paragraphs.\n")
    before = place.files()
    result = place.start("--text", str(other))
    assert result.returncode == 65
    assert "was made from another text" in result.stderr
    assert place.files() == before


def test_help_names_every_option():
    result = subprocess.run(["bash", str(QUICKSTART), "--help"], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0
    for option in re.findall(r"^ +(?:-h\|)?(--[a-z]+)[|)]", QUICKSTART.read_text(), re.MULTILINE):
        assert option in result.stdout or option == "--help"
    assert "set -e" not in result.stdout
