"""One file, one command: train prepares text and records by itself, once, and says what it did."""
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "scripts/demo/base-model"
BAD_INPUT, STOPPED, BAD_CONFIG = 65, 75, 78
TIMEOUT = 120


@pytest.fixture
def data(tmp_path):
    """A folder of two kinds of files, and a third that is neither."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "prose.txt").write_text("It was a bright cold day in April. " * 9)
    (folder / "pairs.jsonl").write_text("".join(
        json.dumps({"prompt": f"What is {i} + {i}? ", "completion": f"It is {2 * i}."}) + "\n" for i in range(40)))
    (folder / "Makefile").write_text("all:\n")
    return folder


def start(program, folder, *more, ranks=1, verb="train", data="texts", environment=None, output="runs/a"):
    settings = {"run.output_dir": output, "run.threads": 1, "run.device": "cpu", "model.path": MODEL,
                "model.dtype": "fp32", "data.train": data, "data.sequence_length": 48, "batch.global": 4,
                "batch.micro": 2, "adapter.rank": 2, "budget": "3 steps"}
    (folder / "empty.yaml").write_text("")
    command = [program, verb, "empty.yaml", *(word for key, value in settings.items()
                                              for word in ("--set", f"{key}={value}")), *more]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]
    variables = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                 "OMP_NUM_THREADS": "1", "LORASCALE_PYTHON": sys.executable, **(environment or {})}
    return subprocess.Popen([str(word) for word in command], cwd=folder, env=variables, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process, code=0):
    output, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, error[-3000:]
    return output + error


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def slow_python(folder, seconds):
    """A Python that thinks before each preparation, and says that it has begun."""
    path = folder / "slow-python"
    path.write_text(f'#!/bin/sh\ncase "$1" in *prepare_text.py) touch begun; sleep {seconds};; esac\n'
                    f'exec {shlex.quote(sys.executable)} "$@"\n')
    path.chmod(0o755)
    return {"LORASCALE_PYTHON": str(path)}


def wait_for(path):
    for _ in range(TIMEOUT * 20):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not appear")


def test_a_folder_trains_as_the_file_made_by_hand(program, tmp_path, data):
    log = finish(start(program, tmp_path))
    (prepared,) = (tmp_path / "runs/prepared").iterdir()
    assert "passed over" in log and "Makefile" in log
    assert "41 documents" in log  # the report of the preparation
    # The command that is shown makes the same file, and training on that is the same run.
    command = shlex.split(re.search(r"by hand: (.*)", log)[1])
    assert command[-1].endswith("/train.h5")
    command[-1] = "--output=by-hand.h5"
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT)
    with h5py.File(prepared / "train.h5") as ours, h5py.File(tmp_path / "by-hand.h5") as theirs:
        for name in ("tokens", "offsets", "loss_mask"):
            np.testing.assert_array_equal(ours[name][:], theirs[name][:])
    # Again, from another run and on two ranks: nothing is prepared anew, also without any Python.
    again = finish(start(program, tmp_path, data=str(data), output="runs/b", ranks=2,
                         environment={"LORASCALE_PYTHON": "/nowhere/python"}))
    assert "prepared before" in again and "41 documents" in again
    finish(start(program, tmp_path, data="by-hand.h5", output="runs/c"))
    first = losses(tmp_path / "runs/a")
    assert first == losses(tmp_path / "runs/c")
    assert first == pytest.approx(losses(tmp_path / "runs/b"), rel=1e-5)
    record = json.loads((tmp_path / "runs/a/data.json").read_text())
    assert record["train"] == str(prepared / "train.h5")
    # config.yaml says what the user said, and is as good as the first configuration.
    assert "train: texts" in (tmp_path / "runs/a/config.yaml").read_text()


def test_validation_is_split_off_and_plan_prepares_too(program, tmp_path, data):
    split = ("--set", "data.prepare.validation_fraction=0.3", "--set", "evaluate.every=1")
    plan = finish(start(program, tmp_path, *split, verb="plan"))
    assert "by hand: " in plan and "validation.h5" in plan
    log = finish(start(program, tmp_path, *split))
    assert "prepared before" in log
    lines = [json.loads(line) for line in (tmp_path / "runs/a/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val_loss"] > 0
    (prepared,) = (tmp_path / "runs/prepared").iterdir()
    with h5py.File(prepared / "train.h5") as train, h5py.File(prepared / "validation.h5") as validation:
        parts = [len(file["offsets"]) - 1 for file in (train, validation)]
    assert sum(parts) == 41 and min(parts) > 3


def test_waiting_ranks_outlast_a_long_preparation(program, tmp_path, data):
    log = finish(start(program, tmp_path, "--set", "run.deadline_seconds=2", ranks=2,
                       environment=slow_python(tmp_path, 6)))
    assert "41 documents" in log
    assert len(losses(tmp_path / "runs/a")) == 3


def test_two_runs_at_once_prepare_once(program, tmp_path, data):
    slow = slow_python(tmp_path, 2)
    first = start(program, tmp_path, environment=slow)
    wait_for(tmp_path / "begun")
    second = start(program, tmp_path, environment=slow, output="runs/b")
    logs = finish(first), finish(second)
    assert "another run prepares" in logs[1]
    assert sum("by hand: " in log for log in logs) == 1
    assert len([path for path in (tmp_path / "runs/prepared").iterdir()]) == 1
    assert losses(tmp_path / "runs/a") == losses(tmp_path / "runs/b")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_request_to_stop_ends_the_preparation_too(program, tmp_path, data, ranks):
    process = start(program, tmp_path, ranks=ranks, environment=slow_python(tmp_path, 100))
    wait_for(tmp_path / "begun")
    begin = time.monotonic()
    process.send_signal(signal.SIGUSR1)  # mpirun hands it on
    log = finish(process, STOPPED)
    assert time.monotonic() - begin < 30
    assert "stopped on request while data.train texts was prepared" in log
    assert not list((tmp_path / "runs/prepared").glob("texts-*"))
    time.sleep(0.5)
    assert not subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True).stdout
    assert "41 documents" in finish(start(program, tmp_path))


def test_a_killed_run_takes_its_preparation_with_it(program, tmp_path):
    """A pipe that nobody writes to keeps the child reading; its parent dies."""
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    command = [sys.executable, ROOT / "scripts/prepare_text.py", "/dev/stdin", "--tokenizer=bytes",
               "--output=out.h5", "--workers=1"]
    parent = subprocess.Popen(
        [sys.executable, "-c",
         "import os, subprocess, sys, time\n"
         "child = subprocess.Popen(sys.argv[1:], env={**os.environ, 'LORASCALE_PARENT': str(os.getpid())})\n"
         "print(child.pid, flush=True)\ntime.sleep(1000)", *map(str, command)],
        cwd=tmp_path, stdin=fifo, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    child = int(parent.stdout.readline())
    time.sleep(2)  # it imports, and reads
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and pathlib.Path(f"/proc/{child}/status").exists():
        if "State:\tZ" in pathlib.Path(f"/proc/{child}/status").read_text():
            break
        time.sleep(0.05)
    else:
        assert time.monotonic() < deadline, "it lives on"
    os.close(fifo)
    assert not list(tmp_path.glob("*.h5*"))


def test_data_that_changed_since_is_named_on_resume(program, tmp_path, data):
    finish(start(program, tmp_path))
    finish(start(program, tmp_path, "--set", "sample.prompts=[The]"))  # the same tokens, in another file
    (data / "prose.txt").write_text("Something else. " * 9)
    log = finish(start(program, tmp_path, "--set", "sample.prompts=[The]"), BAD_CONFIG)
    assert "the training set texts is not the one it began with (prose.txt changed since)" in log


def test_what_is_wrong_with_a_file_is_said_with_the_setting_that_mends_it(program, tmp_path, data):
    (data / "pairs.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": 1\n')
    log = finish(start(program, tmp_path), BAD_INPUT)
    assert re.search(r"data\.train: .*texts/pairs\.jsonl:2: ", log)
    assert "data.prepare.skip_bad: true" in log
    log = finish(start(program, tmp_path, "--set", "data.prepare.skip_bad=true"))
    assert "1 bad" in log
    log = finish(start(program, tmp_path, "--set", "data.prepare.columns={nonsense: x}"), BAD_CONFIG)
    assert "nonsense" in log


def test_data_that_is_not_there_is_said_with_the_way_to_get_it(program, tmp_path):
    log = finish(start(program, tmp_path, data="tatsu-lab/alpaca"), BAD_INPUT)
    assert "tatsu-lab/alpaca" in log and "hf download" in log
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    log = finish(start(program, tmp_path, data="pictures"), BAD_INPUT)
    assert "data.train pictures holds nothing to train on" in log and "JSON Lines" in log


def test_a_python_that_was_named_must_do(program, tmp_path, data):
    log = finish(start(program, tmp_path, environment={"LORASCALE_PYTHON": "/bin/false"}), BAD_INPUT)
    assert "LORASCALE_PYTHON: /bin/false cannot import h5py, numpy" in log
    log = finish(start(program, tmp_path, "--set", "data.prepare.python=/nowhere/python"), BAD_INPUT)
    assert "data.prepare.python: /nowhere/python cannot be started" in log


def test_prompts_of_the_run_are_known_to_generate(program, tmp_path, data):
    finish(start(program, tmp_path, "--set", "sample.prompts=[It was]"))
    # One that the configuration names since is prepared.
    finish(start(program, tmp_path, "--set", "sample.prompts=[It was, She]", "--prompt", "She", "--max-tokens", "5",
                 verb="generate"))
    shutil.rmtree(data)  # what was made of it is all that is needed
    process = start(program, tmp_path, "--set", "sample.prompts=[It was]", "--prompt", "It was", "--max-tokens", "5",
                    verb="generate")
    assert "prepar" not in finish(process)


def test_keys_of_lora_scripts_name_raw_texts(program, tmp_path, data):
    (tmp_path / "flat.yaml").write_text(
        f"train_data_dir: {data}\nbase_model: {MODEL}\nlora_rank: 2\nbatch_size: 4\nmax_steps: 2\n"
        "learning_rate: 1e-3\nmax_seq_length: 48\noutput_dir: runs/flat\nmixed_precision: 'no'\n")
    command = [program, "train", "flat.yaml"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT,
                             env={**os.environ, "LORASCALE_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"})
    assert outcome.returncode == 0, outcome.stderr
    assert "41 documents" in outcome.stderr
    assert len(losses(tmp_path / "runs/flat")) == 2
