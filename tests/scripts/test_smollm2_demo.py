"""The real chat model end to end, with some updates: the same greedy answers by lorascale, by peft with the adapter and
by transformers with the merged model, whose end token the base's files do not name here."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    # Enough that no answer hangs on the last bit of a weight, which merging into bf16 rounds.
    "budget": "24 steps",
    "batch.global": 4,
    "batch.micro": 2,
    "evaluate.every": "0",
    "run.threads": 1,
    "sample.max_tokens": 8,
}


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts whose model names another end token, as many published folders do."""
    copy = tmp_path / "checkout"
    for name in ("scripts", "configs", "launch", "cluster"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", copy)
    return copy


@pytest.mark.slow
def test_a_real_chat_model_answers_alike_everywhere(checkout, tmp_path, program):
    made = subprocess.run([ROOT / "scripts/models/smollm2.sh"], capture_output=True, text=True, timeout=900)
    if made.returncode == 69:
        pytest.skip(made.stderr.splitlines()[-1])
    assert made.returncode == 0, made.stderr
    original, model = Path(made.stdout.strip()), tmp_path / "model"
    model.mkdir()
    for path in original.iterdir():
        if path.name not in ("config.json", "generation_config.json"):
            (model / path.name).symlink_to(path)
    for name in ("config.json", "generation_config.json"):
        contents = json.loads((original / name).read_text())
        (model / name).write_text(json.dumps({**contents, "eos_token_id": 0}))
    (checkout / "scripts/models/smollm2.sh").write_text(f"#!/bin/sh\necho {model}\n")

    command = [checkout / "scripts/smollm2_demo.sh", "--output", tmp_path / "run", "--data", tmp_path / "data"]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(
        command, env={**os.environ, "LORASCALE_PROGRAM": str(Path(program).resolve())}, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "all the same" in done.stdout
    assert int(re.search(r"training: +([0-9]+) documents", done.stdout)[1]) >= 200
    said = done.stdout + done.stderr
    assert "answers end with <|im_end|> (token 2), but generation_config.json" in said
    assert "answers of the data end with token 2 (<|im_end|>)" in said
    assert "answers end with token 2, which the base's files did not name" in said
    merged = json.loads((tmp_path / "run/merged/generation_config.json").read_text())
    assert merged["eos_token_id"] == [2, 0]
