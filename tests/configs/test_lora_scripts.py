"""The preset in the style of lora-scripts runs as it stands, on one rank and on two, and does what its keys say."""
import json
import os
import pathlib
import subprocess

import peft
import pytest
import torch
import transformers
from reference import VOCABULARY, make_documents, metrics, write_dataset

PRESET = pathlib.Path(__file__).resolve().parents[2] / "configs" / "lora-scripts-style.yaml"
PER_RANK, ACCUMULATION, EPOCHS, WARMUP_STEPS, RATE = 4, 4, 10, 100, 2e-4
STEPS_PER_EPOCH = 10  # just enough for the warmup


def make_model():
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2))


def train(program, folder, ranks):
    """Paths of the preset are relative to the folder that the program is started in."""
    make_model().save_pretrained(folder / "models" / "Meta-Llama-3-8B")
    (folder / "data" / "my_texts").mkdir(parents=True)
    rows = STEPS_PER_EPOCH * PER_RANK * ACCUMULATION * ranks  # every update is a full one
    documents = make_documents(rows, 257, 257)  # two do not share a row of 512
    write_dataset(folder / "data" / "my_texts" / "train.h5", documents)
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), program, "train", PRESET]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    outcome = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return outcome.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_preset_runs_unchanged(program, tmp_path, ranks):
    log = train(program, tmp_path, ranks)
    run = tmp_path / "runs" / "my_lora"
    lines = metrics(run)
    batch, total = PER_RANK * ACCUMULATION * ranks, EPOCHS * STEPS_PER_EPOCH
    assert f"batch.global {batch}" in log and "batch.micro 4" in log  # said what it made of the keys
    assert [line["step"] for line in lines] == list(range(1, total + 1))
    assert {(line["global_batch"], line["micro_batch"], line["world_size"]) for line in lines} == {(batch, 4, ranks)}
    assert [line["lr"] for line in lines] == pytest.approx([RATE * step / WARMUP_STEPS for step in range(1, total + 1)])
    assert (run / "checkpoints" / f"step-{total:08d}").is_dir()
    settings = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert settings["r"] == 8 and settings["lora_alpha"] == 16
    model = peft.PeftModel.from_pretrained(make_model(), run / "adapter")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert any(parameter.abs().max() > 0 for name, parameter in model.named_parameters() if "lora_B" in name)
