"""Runs that are killed or asked to stop at any moment end where the uninterrupted run ends: bit for bit on the same number
of ranks, to rounding on another, with every sample seen once."""
import os
import random
import signal
import subprocess
import time

import pytest

from reference import add_adapter, adapter_tensors, make_documents, make_model, metrics, run, write_config, write_dataset

STEPS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    model = make_model("llama")
    model.save_pretrained(folder / "base")
    write_dataset(folder / "train.h5", make_documents(50, 4, 60))
    return folder


def config(folder, name):
    path = folder / f"{name}.yaml"
    write_config(path, {
        "run": {"output_dir": str(folder / name), "threads": 1, "deadline_seconds": 20},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": {"rank": 4, "alpha": 8, "targets": "all-linear", "dropout": 0.1},
        "data": {"train": str(folder / "train.h5"), "packing": False, "sequence_length": 64},
        "batch": {"global": 8, "micro": 2},
        "optimizer": {"lr": 3e-3},
        "checkpoint": {"every": "3 steps", "keep": 2},
        "budget": f"{STEPS} steps",
    })
    return path


def uninterrupted(program, folder, ranks):
    name = f"whole{ranks}"
    if not (folder / name / "adapter").exists():
        run(program, "train", config(folder, name), ranks=ranks)
    return name


def start(program, path, ranks):
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), program, "train",
                             str(path)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ranks_of(mpirun):
    children = subprocess.run(["pgrep", "-P", str(mpirun.pid)], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in children]


def lines_in(folder, name):
    path = folder / name / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for_lines(process, folder, name, lines):
    deadline = time.monotonic() + 60
    while lines_in(folder, name) < lines and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def same_curve(folder, a, b, exact):
    first, second = metrics(folder / a), metrics(folder / b)
    assert [line["step"] for line in first] == [line["step"] for line in second] == list(range(1, STEPS + 1))
    for key in ("samples", "tokens", "targets", "lr"):
        assert [line[key] for line in first] == [line[key] for line in second], key
    losses = [line["loss"] for line in first], [line["loss"] for line in second]
    if exact:
        assert losses[0] == losses[1]
    else:
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_twenty_kills_change_no_bit(program, folder):
    whole = uninterrupted(program, folder, 2)
    path, chooser = config(folder, "killed"), random.Random(7)
    kills = 0
    while kills < 20:
        process = start(program, path, 2)
        wait_for_lines(process, folder, "killed", min(lines_in(folder, "killed") + chooser.randint(1, 5), STEPS))
        victims = ranks_of(process)
        if process.poll() is None and victims:
            os.kill(chooser.choice(victims), signal.SIGKILL)
            kills += 1
            assert process.wait(timeout=20) != 0
        else:
            process.wait(timeout=20)
            if lines_in(folder, "killed") >= STEPS:
                break
    run(program, "train", path, ranks=2)
    assert kills >= 5, "the run was over before it could be killed often enough"
    same_curve(folder, whole, "killed", exact=True)
    expected, actual = adapter_tensors(folder / whole / "adapter"), adapter_tensors(folder / "killed" / "adapter")
    for name, tensor in expected.items():
        assert tensor.equal(actual[name]), name


def test_stop_request_saves_and_says_75(program, folder):
    whole = uninterrupted(program, folder, 2)
    path = config(folder, "stopped")
    process = start(program, path, 2)
    wait_for_lines(process, folder, "stopped", 4)
    process.send_signal(signal.SIGUSR1)  # mpirun hands it on
    assert process.wait(timeout=20) == 75
    steps = metrics(folder / "stopped")[-1]["step"]
    assert (folder / "stopped" / "checkpoints" / f"step-{steps:08d}").is_dir()
    run(program, "train", path, ranks=2)
    same_curve(folder, whole, "stopped", exact=True)


def test_other_world_size_sees_the_same_samples(program, folder):
    whole = uninterrupted(program, folder, 2)
    path = config(folder, "moved")
    for ranks in (4, 3):
        process = start(program, path, ranks)
        wait_for_lines(process, folder, "moved", lines_in(folder, "moved") + 8)
        process.send_signal(signal.SIGUSR1)
        process.wait(timeout=20)
    run(program, "train", path, ranks=1)
    same_curve(folder, whole, "moved", exact=False)


def test_damaged_checkpoint_is_passed_over(program, folder):
    path = config(folder, "damaged")
    process = start(program, path, 1)
    wait_for_lines(process, folder, "damaged", 10)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 75
    newest = sorted((folder / "damaged" / "checkpoints").glob("step-*"))[-1] / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(data)
    result = run(program, "train", path)
    assert "is skipped" in result.stderr
    whole = uninterrupted(program, folder, 2)
    same_curve(folder, whole, "damaged", exact=False)


def test_changed_recipe_is_refused(program, folder):
    uninterrupted(program, folder, 2)
    result = run(program, "train", config(folder, "whole2"), "--set", "optimizer.lr=0.5", check=False)
    assert result.returncode == 78
    assert "belongs to another run" in result.stderr
