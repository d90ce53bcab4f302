"""The script when something fails under it: a full disk, dead workers, interrupts, a reader that is gone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SCRIPTS, run_script
from lorascale_data import token_file


def test_failure_leaves_an_old_output_as_it_was(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "o.h5"
    source.write_text('{"text": "a"}\n{"text": \n')
    out.write_text("precious")
    assert run_script(source, "--tokenizer", "bytes", "--output", out, "--force").code == 65
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "o.h5"]
    assert out.read_text() == "precious"


@pytest.mark.parametrize("when", ["append", "finish"])
def test_full_disk(tmp_path, monkeypatch, when):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_file.TokenFileWriter, when, refuse)
    (tmp_path / "in.txt").write_text("text")
    outcome = run_script(tmp_path / "in.txt", "--tokenizer", "bytes", "--output", tmp_path / "o.h5")
    assert outcome.code == 73
    assert "No space left on device, free some space" in outcome.err
    assert [file.name for file in tmp_path.iterdir()] == ["in.txt"]


def test_death_of_a_worker_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("lorascale_data.pipeline.Worker.process", lambda *_: os._exit(9))
    (tmp_path / "in.txt").write_text("text")
    outcome = run_script(
        tmp_path / "in.txt", "--tokenizer", "bytes", "--output", tmp_path / "o.h5", "--workers", "2"
    )
    assert outcome.code == 70 and "fewer --workers" in outcome.err
    assert [file.name for file in tmp_path.iterdir()] == ["in.txt"]


@pytest.fixture
def held_script(tmp_path):
    """The script in the middle of its work: a named pipe for an input that has fallen silent."""
    pipe, out = tmp_path / "in.txt", tmp_path / "out"
    os.mkfifo(pipe)
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, SCRIPTS / "prepare_text.py", pipe, "--tokenizer", "bytes", "--output",
         out / "o.h5", "--text-split", "lines:1", "--workers", "2"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        with open(pipe, "wb") as stream:
            for _ in range(40):
                stream.write(os.urandom(50_000).hex().encode() + b"\n")
                stream.flush()
            wait_until(lambda: children_of(process.pid))  # which start when the scratch files are there
            yield process, out
    finally:
        process.kill()
        process.wait()


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_cleans_up(held_script, number):
    process, out = held_script
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and err == "prepare_text: interrupted, nothing was written\n"
    assert list(out.iterdir()) == []


def test_workers_do_not_outlive_a_killed_script(held_script):
    process, out = held_script
    workers = children_of(process.pid)
    process.kill()
    wait_until(lambda: not any(map(is_running, workers)))
    assert list(out.iterdir()) == []  # nor do scratch files


@pytest.mark.parametrize("help_only", [False, True])
def test_a_reader_that_is_gone_costs_nothing(tmp_path, help_only):
    """`prepare_text.py ... | head`: the files are there, and nothing is said."""
    source, output = tmp_path / "a.txt", tmp_path / "a.h5"
    source.write_text("some text")
    arguments = ["--help"] if help_only else [source, "--tokenizer", "bytes", "--output", output]
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, SCRIPTS / "prepare_text.py", *arguments],
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")
    assert output.exists() != help_only
