"""The token that ends an answer by the chat template: from the data set into the adapter, and from there to generate and
into the merged model's generation_config.json."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
SPACE = 32  # which the demo model writes soon
PROMPT = " ".join(str(byte) for byte in b"The file ")


def run(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory, program):
    """(folder, what train said) of a run of one update on data whose answers end with a space."""
    folder = tmp_path_factory.mktemp("answer_end")
    (folder / "text.txt").write_text("Question?\nAnswer.\n" * 40)
    subprocess.run(
        [sys.executable, ROOT / "scripts/prepare_text.py", folder / "text.txt", "--tokenizer", "bytes", "--workers", "1",
         "--output", folder / "train.h5"], check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    with h5py.File(folder / "train.h5", "r+") as file:
        file.attrs["answer_end_id"] = SPACE
    (folder / "run.yaml").write_text(
        f"run: {{output_dir: {folder}/run, threads: 1, device: cpu}}\n"
        f"model: {{path: {ROOT}/scripts/demo/base-model, dtype: fp32}}\n"
        f"data: {{train: {folder}/train.h5, sequence_length: 32}}\n"
        "batch: {global: 1}\nbudget: 1 steps\noptimizer: {lr: 1e-6}\n"
    )
    done = run(program, "train", folder / "run.yaml")
    return folder, done.stdout + done.stderr


def generated(program, folder, *arguments):
    out = run(program, "generate", folder / "run.yaml", "--ids", PROMPT, "--max-tokens", 120, *arguments).stdout
    return [int(index) for index in out.split()]


def test_train_says_that_servers_would_not_stop(trained):
    _, said = trained
    assert "answers of the data end with token 32" in said and "name 256 as end" in said


def test_generate_stops_where_the_adapter_says(trained, program, tmp_path):
    folder, _ = trained
    with safe_open(folder / "run/adapter/adapter_model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "answer_end_id": "32"}
    # The same adapter without its metadata, or with such as no program writes, goes on.
    went_on = []
    for number, text in enumerate((None, "-3", "ten", "")):
        other = tmp_path / str(number)
        shutil.copytree(folder / "run/adapter", other)
        path = other / "adapter_model.safetensors"
        save_file(load_file(path), path, {"format": "pt"} | ({} if text is None else {"answer_end_id": text}))
        went_on.append(generated(program, folder, "--adapter", other))
    assert SPACE in went_on[0] and all(each == went_on[0] for each in went_on)
    assert generated(program, folder) == went_on[0][: went_on[0].index(SPACE)]


@pytest.mark.parametrize(("option", "ends"), [([], [32, 256]), (["--end-token-id", 46], [46, 256])])
def test_merge_tells_servers(option, ends, trained, program, tmp_path):
    folder, _ = trained
    merge = ["merge", "--model", ROOT / "scripts/demo/base-model", "--adapter", folder / "run/adapter"]
    done = run(program, *merge, "--output", tmp_path / "merged", *option)
    assert f"answers end with token {ends[0]}, which the base's files did not name" in done.stdout
    config = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert config["eos_token_id"] == ends and "_from_model_config" not in config
    # The base's own end needs no word and no change.
    done = run(program, *merge, "--output", tmp_path / "as it was", "--end-token-id", 256)
    assert "answers end" not in done.stdout
    base = ROOT / "scripts/demo/base-model/generation_config.json"
    assert (tmp_path / "as it was/generation_config.json").exists() == base.exists()
    refused = subprocess.run(
        [program, *map(str, merge), "--output", tmp_path / "no", "--end-token-id", "99999"], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert refused.returncode == 64 and "the end token 99999 is none of the model's" in refused.stderr
