"""A rank that stops, dies or fails ends the whole job in time, with its name in the message and its report in the run
folder."""
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

from reference import make_documents, make_model, write_config, write_dataset
from test_resume import ranks_of, start, wait_for_lines

DEADLINE = 2  # run.deadline_seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hangs")
    make_model("llama").save_pretrained(folder / "base")
    write_dataset(folder / "train.h5", make_documents(50, 4, 60))
    return folder


def config(folder, name, **changes):
    path = folder / f"{name}.yaml"
    write_config(path, {
        "run": {"output_dir": str(folder / name), "threads": 1, "deadline_seconds": DEADLINE},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": {"rank": 4, "alpha": 8, "targets": "all-linear"},
        "data": {"train": str(folder / "train.h5"), "packing": False, "sequence_length": 64},
        "batch": {"global": 8, "micro": 2},
        "optimizer": {"lr": 1e-3},
        "checkpoint": {"every": "10 steps", "keep": 2},
        "budget": "100000 steps",
        **changes,
    })
    return path


def finish(process, seconds):
    """Exit code, stderr and time to the end; a job that hangs fails the test and leaves nothing behind."""
    begin = time.monotonic()
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        for pid in ranks_of(process):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        pytest.fail(f"the job still ran after {seconds} s: {process.communicate()[1]}")
    return process.returncode, errors, time.monotonic() - begin


def is_running(pid):
    """Not so for a dead process that nobody has asked for yet."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_stopped_rank_is_named_by_the_others(program, folder):
    process = start(program, config(folder, "stopped"), ranks=3)
    wait_for_lines(process, folder, "stopped", 15)
    victim = ranks_of(process)[1]
    os.kill(victim, signal.SIGSTOP)
    code, errors, seconds = finish(process, DEADLINE + 15)
    assert code == 87
    assert "rank 1 (" in errors and "does not answer" in errors, errors
    assert seconds < DEADLINE + 8
    report = json.loads((folder / "stopped" / "error-0.json").read_text())
    assert report["exit_code"] == 87 and report["rank"] == 0 and report["step"] >= 15
    assert "rank 1 (" in report["message"]
    status = json.loads((folder / "stopped" / "status.json").read_text())
    assert status["outcome"] == "failed" and status["exit_code"] == 87


def test_a_short_stop_of_the_whole_job_is_no_failure(program, folder):
    """Ctrl-Z and fg, or a laptop that sleeps: longer than the deadline, but nobody is to blame."""
    process = start(program, config(folder, "paused", budget="60 steps"), ranks=2)
    wait_for_lines(process, folder, "paused", 5)
    ranks = ranks_of(process)
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(DEADLINE + 1.5)
    for pid in ranks:
        os.kill(pid, signal.SIGCONT)
    code, errors, _ = finish(process, 60)
    assert code == 0, errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_dies_ends_the_job_at_once(program, folder, rank, number):
    name = f"died{rank}{number.name}"
    process = start(program, config(folder, name), ranks=3)
    wait_for_lines(process, folder, name, 12)
    ranks = ranks_of(process)
    os.kill(ranks[rank], number)
    code, _, seconds = finish(process, 15)
    assert code == 128 + number
    assert seconds < 6
    deadline = time.monotonic() + 5
    while any(map(is_running, ranks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, ranks))


def test_the_next_start_removes_old_reports(program, folder):
    name = "stopped"
    assert (folder / name / "error-0.json").exists()
    process = start(program, config(folder, name), ranks=2)
    wait_for_lines(process, folder, name, json.loads((folder / name / "status.json").read_text())["step"] + 3)
    assert not (folder / name / "error-0.json").exists()
    process.send_signal(signal.SIGUSR1)
    assert finish(process, 30)[0] == 75
