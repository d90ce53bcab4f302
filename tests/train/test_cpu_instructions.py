"""The paths of other CPUs, taken on this one: a short run of each dtype under the default, AVX2 and AVX-512 without bf16."""
import json
import os
import pathlib
import subprocess

import h5py
import numpy as np
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASE = ROOT / "scripts/demo/base-model"
SETTINGS = {
    "default": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}
# bf16 keeps 8 bits: single products are off by 2^-9, sums of losses of hundreds of tokens by a tenth of that.
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("instructions")
    rows = np.frombuffer((ROOT / "LICENSE").read_bytes()[:4096], np.uint8).reshape(16, 256)
    with h5py.File(path / "train.h5", "w") as file:
        file.attrs.update({"format": "lorascale-tokens", "version": 1, "vocab_size": 258, "eos_id": 256})
        file["tokens"] = rows.ravel().astype(np.uint16)
        file["offsets"] = np.arange(0, rows.size + 1, 256)
    return path


def run(program, folder, setting, dtype):
    out = folder / f"{setting}-{dtype}"
    config = folder / f"{setting}-{dtype}.yaml"
    config.write_text(yaml.safe_dump({
        "run": {"output_dir": str(out), "threads": 1, "device": "cpu"}, "model": {"path": str(BASE), "dtype": dtype},
        "adapter": {"rank": 4, "alpha": 8}, "data": {"train": str(folder / "train.h5"), "sequence_length": 256},
        "batch": {"global": 4, "micro": 2}, "optimizer": {"lr": 2e-3}, "schedule": {"name": "constant", "warmup": 0},
        "checkpoint": {"every": 0}, "advice": False, "budget": "3 steps"}))
    done = subprocess.run([program, "train", str(config)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, **SETTINGS[setting]})
    assert done.returncode == 0, done.stdout + done.stderr
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    return losses, done.stdout + done.stderr


@pytest.fixture(scope="module")
def reference(program, folder):
    return run(program, folder, "default", "fp32")[0]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_dtype_trains_alike(program, folder, reference, setting, dtype):
    losses, log = run(program, folder, setting, dtype) if (setting, dtype) != ("default", "fp32") else (reference, None)
    np.testing.assert_allclose(losses, reference, rtol=TOLERANCE[dtype])
    assert losses[-1] < losses[0]
    if setting == "avx2":
        assert "device cpu: AVX2 instructions, oneDNN limited to AVX2, no bf16 products in hardware" in log


def test_plan_says_which_instructions_are_used(program, folder, reference):
    done = subprocess.run([program, "plan", str(folder / "default-fp32.yaml")], capture_output=True, text=True,
                          timeout=120, env={**os.environ, **SETTINGS["avx2"]})
    assert done.returncode == 0, done.stderr
    assert "device    cpu: AVX2 instructions, oneDNN limited to AVX2" in done.stdout
