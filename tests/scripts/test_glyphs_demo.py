"""The demonstration of image classification, end to end with fonts of its own and some updates: what it makes, that running
it again costs nothing, that an interrupted one goes on, and what it refuses."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from font_letters import LETTERS
from made_fonts import make_font

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"budget": "16 epochs", "evaluate.every": "8 epochs", "model.resnet.layers": "[1]", "model.resnet.width": "8",
            "batch.global": "16", "batch.micro": "8", "run.threads": "1"}  # fmt: skip


class Demo:
    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        for i in range(20):
            for k, style in enumerate(("Regular", "Bold")):
                make_font(folder / f"fonts/{i}/{style}.ttf", f"Family{i}", {
                    letter: [[(0, 0), (0, 700), (100 + 33 * i, 700), (100 + 60 * n + 9 * k, 0)]]
                    for n, letter in enumerate(LETTERS)
                }, style)  # fmt: skip

    def start(self, *arguments, **settings):
        line = ["bash", ROOT / "scripts/glyphs_demo.sh", "--output", self.folder / "run", "--data", self.folder / "data",
                "--fonts", self.folder / "fonts"]  # fmt: skip
        for key, value in {**SETTINGS, **settings}.items():
            line += ["--set", f"{key}={value}"]
        return subprocess.run(
            [*line, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=240, check=False,
            env={**os.environ, "LORASCALE_PROGRAM": str(Path(self.program).resolve()), "COLUMNS": "120"},
        )  # fmt: skip

    def lines(self):
        return [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]


def test_from_fonts_to_a_report(program, tmp_path):
    demo = Demo(tmp_path, program)
    stopped = demo.start(faults="['kill step=20 phase=backward']")
    assert stopped.returncode not in (0, 75) and "glyphs_demo: training ended with exit code" in stopped.stderr
    assert demo.lines()[-1]["step"] == 19
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    assert {path.name for path in made} == {"pictures", "train.h5", "validation.h5"}

    done = demo.start()
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


def test_a_folder_without_fonts(program, tmp_path):
    demo = Demo(tmp_path, program)
    said = demo.start("--fonts", tmp_path / "fonts" / "0")  # two styles of one family: no design is left for validation
    assert said.returncode == 65, said.stderr
    assert said.stderr.splitlines()[-1].startswith("glyphs_demo: no pictures without fonts; --fonts FOLDER")
    assert not (tmp_path / "data/pictures").exists() and not (tmp_path / "run").exists()


def test_help_is_its_head():
    said = subprocess.run(["bash", ROOT / "scripts/glyphs_demo.sh", "--help"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0
    assert said.stdout.startswith("Image classification on two CPU cores") and "--fonts FOLDER" in said.stdout
