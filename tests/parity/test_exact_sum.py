"""run.reduction: exact gives the same bits on any number of ranks, also after kills and on other ranks; fast does not."""
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
from reference import make_documents, make_model, metrics, write_config, write_dataset

STEPS = 100


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    make_model("qwen2").save_pretrained(folder / "base")
    write_dataset(folder / "train.h5", make_documents(60, 4, 60))
    write_dataset(folder / "validation.h5", make_documents(13, 4, 60, seed=1))
    return folder


def config(inputs, folder, reduction, **changes):
    path = folder / "config.yaml"
    folder.mkdir(exist_ok=True)
    write_config(path, {
        "run": {"output_dir": str(folder / "run"), "threads": 1, "reduction": reduction, "deadline_seconds": 30},
        "model": {"path": str(inputs / "base"), "dtype": "fp32"},
        "adapter": {"rank": 4, "alpha": 8, "targets": "all-linear", "dropout": 0.1},
        "data": {"train": str(inputs / "train.h5"), "validation": str(inputs / "validation.h5"), "packing": False,
                 "sequence_length": 64},
        "batch": {"global": 14, "micro": 2},  # 7 leaves: no number of ranks but 1 and 7 shares them evenly
        "optimizer": {"lr": 5e-3},
        "evaluate": {"every": "10 steps"},
        "checkpoint": {"every": "7 steps", "keep": 2},
        "budget": f"{STEPS} steps",
        **changes,
    })
    return path


def command(program, path, ranks):
    start = [program, "train", str(path)]
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *start] if ranks > 1 else start


ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def train(program, inputs, folder, ranks, reduction="exact", **changes):
    path = config(inputs, folder, reduction, **changes)
    subprocess.run(command(program, path, ranks), env=ENVIRONMENT, check=True, capture_output=True, timeout=120)
    return result(folder)


def result(folder: pathlib.Path):
    """Everything that the arithmetic of a run leaves behind: adapters byte for byte, records to the last digit."""
    records = [{key: line.get(key) for key in ("step", "samples", "loss", "val_loss", "lr", "grad_norm", "targets")}
               for line in metrics(folder / "run")]
    adapters = {name: hashlib.sha256((folder / "run" / name / "adapter_model.safetensors").read_bytes()).hexdigest()
                for name in ("adapter", "best")}
    state = max((folder / "run" / "checkpoints").glob("step-*"))
    assert int(state.name[5:]) == metrics(folder / "run")[-1]["step"]
    return {"records": json.dumps(records), **adapters,
            "checkpoint": hashlib.sha256((state / "tensors.safetensors").read_bytes()).hexdigest()}


@pytest.fixture(scope="module")
def one_rank(program, inputs, tmp_path_factory):
    return train(program, inputs, tmp_path_factory.mktemp("one") / "exact", 1)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_same_bits_on_any_number_of_ranks(program, inputs, one_rank, tmp_path, ranks):
    assert train(program, inputs, tmp_path / "run", ranks) == one_rank


def test_same_bits_over_kills_and_other_ranks(program, inputs, one_rank, tmp_path):
    """4 ranks until killed, 3 until killed, 2 to the end."""
    path = config(inputs, tmp_path / "run", "exact")
    log = tmp_path / "run" / "run" / "metrics.jsonl"
    for ranks, enough in ((4, 20), (3, 45)):
        job = subprocess.Popen(command(program, path, ranks), env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
        while job.poll() is None and (not log.exists() or log.read_text().count("\n") < enough):
            time.sleep(0.005)
        assert job.poll() is None
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        time.sleep(0.5)  # mpirun's ranks end with it
    subprocess.run(command(program, path, 2), env=ENVIRONMENT, check=True, capture_output=True, timeout=120)
    assert result(tmp_path / "run") == one_rank


def test_same_bits_over_lost_memory_on_one_rank(program, inputs, one_rank, tmp_path):
    """The leaf is halved at update 3 and restored a hundred clean updates later. A smaller leaf rounds otherwise, so
    these bits are others than those of an undisturbed run; but they too are the same on any number of ranks."""
    def disturbed(ranks):
        folder = tmp_path / f"{ranks}"
        seen = train(program, inputs, folder, ranks, budget="110 steps",
                     faults=[f"oom step=3 phase=backward rank={ranks - 1}"])
        leaves = [line["micro_batch"] for line in metrics(folder / "run") if line["step"] > 0]
        assert leaves == [2] * 2 + [1] * 100 + [2] * 8
        return seen
    one = disturbed(1)
    assert one["records"] != one_rank["records"]
    for ranks in (3, 4):
        assert disturbed(ranks) == one, ranks


def test_fast_differs(program, inputs, tmp_path):
    """The control: without the tree the last bits follow the number of ranks, and the same again does not."""
    one = train(program, inputs, tmp_path / "one", 1, "fast")
    assert train(program, inputs, tmp_path / "again", 1, "fast") == one
    assert train(program, inputs, tmp_path / "three", 3, "fast")["adapter"] != one["adapter"]
