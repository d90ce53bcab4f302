"""What the scripts that prepare data share: their outputs get their names together or not at all, and how they end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from conftest import SCRIPTS, run_script
from lorascale_data import command_line
from pictures import noise, run_images, write_tree


@pytest.fixture(params=["images", "text"])
def prepare(request, tmp_path):
    """Runs one of the scripts with two outputs."""
    outputs = ("--output", tmp_path / "t.h5", "--validation", tmp_path / "v.h5", "--validation-fraction", "0.5")
    if request.param == "images":
        source = write_tree(tmp_path / "in", {f"{'ab'[i % 2]}/{i}.png": noise(i) for i in range(20)})
        return lambda *options: run_images(source, *outputs, *options)
    (tmp_path / "in").write_text("\n".join(f"document {i}" for i in range(20)))
    text = ("--format", "text", "--text-split", "lines:1", "--tokenizer", "bytes")
    return lambda *options: run_script(tmp_path / "in", *text, *outputs, *options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != "" and path.is_file()}


@pytest.fixture(params=["full disk", "interrupt"])
def second_fails(request, monkeypatch):
    """The name of the second file cannot be given; the exit code and the words of that."""
    for name in ("replace", "link"):

        def failing(source, target, real=getattr(os, name), **options):
            if target.name == "v.h5" and source.name.endswith(".tmp") and ".old" not in source.name:
                raise OSError(28, "No space left on device") if request.param == "full disk" else KeyboardInterrupt
            real(source, target, **options)

        monkeypatch.setattr(os, name, failing)
    return {"full disk": (73, "No space left"), "interrupt": (130, "interrupted, nothing was written")}[request.param]


def refuse(*_, **__):
    raise OSError(1, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_second_file_that_fails_takes_the_first_back(prepare, tmp_path, second_fails, links, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "t.h5").write_text("old training")
    (tmp_path / "v.h5").write_text("old validation")
    outcome = prepare("--force")
    assert outcome.code == second_fails[0] and second_fails[1] in outcome.err and outcome.out == ""
    assert contents(tmp_path) == {"t.h5": b"old training", "v.h5": b"old validation"}


def test_an_interrupt_behind_the_last_name_leaves_the_new_files_alone(prepare, tmp_path, monkeypatch):
    unlink, seen = pathlib.Path.unlink, []

    def interrupted(path, **options):
        unlink(path, **options)
        if path.name.endswith(".old.tmp") and not seen:
            seen.append(path)
            os.kill(os.getpid(), signal.SIGTERM)

    for name in ("t.h5", "v.h5"):
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(pathlib.Path, "unlink", interrupted)
    outcome = prepare("--force")
    assert outcome.code == 143 and "interrupted, the files are complete" in outcome.err
    assert sorted(contents(tmp_path)) == ["t.h5", "v.h5"]
    assert all(content != b"old" for content in contents(tmp_path).values())


def test_where_there_was_nothing_nothing_is_left(prepare, tmp_path, second_fails):
    assert prepare().code == second_fails[0]
    assert contents(tmp_path) == {}


def test_links_stay_links(prepare, tmp_path, second_fails):
    (tmp_path / "elsewhere.dat").write_text("old training")
    (tmp_path / "t.h5").symlink_to("elsewhere.dat")
    assert prepare("--force").code == second_fails[0]
    assert (tmp_path / "t.h5").is_symlink() and (tmp_path / "t.h5").read_text() == "old training"


@pytest.mark.parametrize("links", [True, False])
def test_both_are_replaced(prepare, tmp_path, links, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for name in ("t.h5", "v.h5"):
        (tmp_path / name).write_text("old")
    assert prepare("--force").code == 0
    assert set(contents(tmp_path)) == {"t.h5", "v.h5"} and all(len(each) > 100 for each in contents(tmp_path).values())


@pytest.mark.parametrize("links", [True, False])
def test_what_appears_meanwhile_is_not_replaced(prepare, tmp_path, links, monkeypatch):
    """Two at once with the same names: no mixture, and nothing of the first is lost."""
    commit = command_line._commit

    def late(writers, replace):
        (tmp_path / appears).write_text("of another")
        commit(writers, replace)

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(command_line, "_commit", late)
    for appears in ("t.h5", "v.h5"):
        outcome = prepare()
        assert outcome.code == 73 and f"{tmp_path / appears}: appeared while this ran, --force" in outcome.err
        assert contents(tmp_path) == {appears: b"of another"}
        (tmp_path / appears).unlink()


def test_a_name_taken_at_the_last_moment_is_not_replaced(prepare, tmp_path, monkeypatch):
    link = os.link

    def late(source, target, **options):
        if target.name == "v.h5":
            target.write_text("of another")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", late)
    assert prepare().code == 73
    assert contents(tmp_path) == {"v.h5": b"of another"}


def test_errors_of_the_hdf5_library_are_one_line(tmp_path):
    text = (f"Can't close file (file write failed: time = Mon Nov 30\n, filename = '{tmp_path}/v.h5.30907.tmp', file "
            "descriptor = 6, errno = 28, error message = 'No space left on device', buf = 0x3a8b)")
    said = str(command_line.cannot_write(OSError(text), tmp_path / "t.h5"))
    assert said == f"{tmp_path}/v.h5: No space left on device, free some space or choose another place"


def test_names_do_not_speak_to_the_terminal(tmp_path):
    tree = {"new\nline/1.png": noise(1), "b\x1b[31m/2.png": noise(2), "b\x1b[31m/3\r.png": b"no picture"}
    outcome = run_images(write_tree(tmp_path / "in", tree), "--output", tmp_path / "o.h5")
    assert outcome.code == 65 and "b\\x1b[31m/3\\r.png: is no picture" in outcome.err
    outcome = run_images(tmp_path / "in", "--output", tmp_path / "o.h5", "--skip-bad")
    assert outcome.code == 0 and "new\\nline" in outcome.out
    assert not {"\x1b", "\r"} & set(outcome.out + outcome.err)


@pytest.mark.parametrize("name", ["prepare_images.py", "prepare_text.py", "encode_prompt.py"])
def test_a_python_without_the_libraries_is_told_of_the_one_with_them(name):
    outcome = subprocess.run([sys.executable, "-S", SCRIPTS / name, "--help"], capture_output=True, text=True)
    assert outcome.returncode == 69 and outcome.stderr.count("\n") == 1, outcome.stderr
    assert outcome.stderr.startswith(f"{name}: this Python has no ") and "setup.sh --print-python" in outcome.stderr


def test_an_interrupt_behind_the_files_does_not_deny_them(prepare, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lorascale_data.report.clock_time", interrupted)
    monkeypatch.setattr("lorascale_images.summary.clock_time", interrupted)
    outcome = prepare()
    assert outcome.code == 130 and outcome.err.endswith(": interrupted, the files are complete\n")
    assert set(contents(tmp_path)) == {"t.h5", "v.h5"}


HELD = """
import sys, time, prepare_images
from lorascale_images import image_file
image_file._copy_pixels = lambda *_: time.sleep(60)
sys.exit(prepare_images.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_nothing(tmp_path, number):
    """Of a picture file that is half written."""
    source, out = write_tree(tmp_path / "in", {"a/1.png": noise(1), "b/1.png": noise(2)}), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, source, "--output", out / "o.h5", "--workers", "1"],
        cwd=SCRIPTS, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (out.exists() and list(out.iterdir())):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number and err == "prepare_images: interrupted, nothing was written\n"
    assert list(out.iterdir()) == []


def test_signals_that_are_ignored_stay_so():
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with command_line.interrupted_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
