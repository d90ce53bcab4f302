"""The demonstration of image classification, end to end with fonts of its own and some updates: what it makes, that running
it again costs nothing, that an interrupted one goes on, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_fonts import make_families

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"budget": "16 epochs", "evaluate.every": "8 epochs", "model.resnet.layers": "[1]", "model.resnet.width": "8",
            "batch.global": "16", "batch.micro": "8", "run.threads": "1"}  # fmt: skip


class Demo:
    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        self.fonts = ("--fonts", make_families(folder / "fonts"))
        self.environment = {"LORASCALE_PROGRAM": str(Path(program).resolve()), "COLUMNS": "120"}

    def start(self, *arguments, **settings):
        folders = ("--output", self.folder / "run", "--data", self.folder / "data")
        line = ["bash", ROOT / "scripts/glyphs_demo.sh", *folders]
        for key, value in {**SETTINGS, **settings}.items():
            line += ["--set", f"{key}={value}"]
        return subprocess.run(
            [*line, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=240, check=False,
            env={**os.environ, **self.environment},
        )  # fmt: skip

    def lines(self):
        return [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]


def test_from_fonts_to_a_report(program, tmp_path):
    demo = Demo(tmp_path, program)
    stopped = demo.start(*demo.fonts, faults="['kill step=20 phase=backward']")
    assert stopped.returncode not in (0, 75) and "glyphs_demo: training ended with exit code" in stopped.stderr
    assert demo.lines()[-1]["step"] == 19
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    assert {path.name for path in made} == {"fonts.txt", "pictures", "train.h5", "validation.h5"}

    other = demo.start("--fonts", tmp_path / "fonts/0")
    assert other.returncode == 64 and other.stdout == ""
    assert other.stderr == (
        f"glyphs_demo: {tmp_path}/data holds pictures of other fonts: remove it, or choose another folder with --data\n"
    )
    done = demo.start(*demo.fonts)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    lines = demo.lines()
    steps = [line["step"] for line in lines if line["step"]]
    assert steps == list(range(1, steps[-1] + 1))
    validations = [line for line in lines if "val_accuracy" in line]
    assert [round(line["epoch"], 6) for line in validations] == [0, 8, 16]
    assert validations[-1]["val_accuracy"] > 0.3
    assert f"{100 * validations[-1]['val_accuracy']:.2f} % of validation" in done.stdout
    assert "images/s" in done.stdout and (tmp_path / "run/report.png").exists()
    assert (tmp_path / "run/model/model.safetensors").exists()

    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    again = demo.start()
    assert again.returncode == 0 and (tmp_path / "run/metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(("arguments", "message"), [
    (["--what"], "unknown argument '--what'"),
    (["--ranks"], "--ranks needs a value"),
    (["--ranks", "0"], "whole number from 1"),
])  # fmt: skip
def test_refuses(arguments, message):
    said = subprocess.run(["bash", ROOT / "scripts/glyphs_demo.sh", *arguments], capture_output=True, text=True, timeout=60)
    assert said.returncode == 64
    assert said.stderr.startswith("glyphs_demo: ") and message in said.stderr and said.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["nothing", "fonts/0"])
def test_a_folder_without_fonts(program, tmp_path, name):
    """Or with two styles of one family: no design is left for validation."""
    demo = Demo(tmp_path, program)
    said = demo.start("--fonts", tmp_path / name)
    assert said.returncode == 65, said.stderr
    first, last = said.stderr.splitlines()[-2:]
    assert "families of fonts can be used, at least 2 are wanted" in first
    assert last == "glyphs_demo: no pictures were made, for the reason above"
    assert not (tmp_path / "data/pictures").exists() and not (tmp_path / "run").exists()


def test_packages_that_are_not_to_be_had(program, tmp_path):
    """A machine whose apt-get knows none of them, and that fetches no lists either."""
    demo = Demo(tmp_path, program)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    (tmp_path / "tools/apt-get").chmod(0o755)
    (tmp_path / "cache").mkdir()  # of packages, and of the Python environment, which is there
    (tmp_path / "cache" / Path(sys.prefix).name).symlink_to(sys.prefix)
    demo.environment |= {"PATH": f"{tmp_path}/tools:{os.environ['PATH']}", "LORASCALE_HOME": str(tmp_path / "cache")}
    said = demo.start()
    assert said.returncode == 65, said.stderr
    assert said.stderr.endswith("glyphs_demo: no pictures without fonts; --fonts FOLDER takes fonts of your own\n")


def test_pictures_that_cannot_be_written(program, tmp_path):
    """The exit code says so."""
    demo = Demo(tmp_path, program)
    (tmp_path / "data").mkdir()
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n\ndef full(*_):\n    raise OSError(28, 'No space left on device')\n\nos.rename = full\n"
    )
    demo.environment["PYTHONPATH"] = str(tmp_path)
    said = demo.start(*demo.fonts)
    assert said.returncode == 73, said.stderr
    assert said.stderr.splitlines()[-2].endswith("No space left on device; choose another place")
    assert said.stderr.splitlines()[-1] == "glyphs_demo: no pictures were made, for the reason above"


def test_help_is_its_head():
    said = subprocess.run(["bash", ROOT / "scripts/glyphs_demo.sh", "--help"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0
    assert said.stdout.startswith("Image classification on two CPU cores") and "--fonts FOLDER" in said.stdout
