"""`inspect decisions.jsonl` tells the story of a run and finds what was changed in it; `inspect --replay` takes its
decisions again."""
import json
import os
import signal
import subprocess

import pytest
from reference import make_documents, make_model, run, write_config, write_dataset


@pytest.fixture(scope="module")
def finished(tmp_path_factory, program):
    """A run with a skip, a shortage of memory, validations, noise and a stop after which it goes on with two ranks."""
    folder = tmp_path_factory.mktemp("story")
    make_model("llama").save_pretrained(folder / "base")
    write_dataset(folder / "train.h5", make_documents(100, 20, 40))
    write_dataset(folder / "validation.h5", make_documents(8, 20, 40, seed=1))
    settings = {
        "run": {"output_dir": str(folder / "run"), "device": "cpu", "threads": 1},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": {"rank": 4, "alpha": 8},
        "data": {"train": str(folder / "train.h5"), "validation": str(folder / "validation.h5"), "packing": False,
                 "sequence_length": 64},
        "batch": {"global": 8, "micro": 4},
        "optimizer": {"lr": 1e-2},
        "schedule": {"name": "constant", "warmup": "0 samples"},
        "evaluate": {"every": "5 steps"},
        "checkpoint": {"every": "10 steps"},
        "noise": {"horizon": "400 samples"},
        "budget": "25 steps",
        "faults": ["nan step=7 phase=backward", "nan step=8 phase=backward", "nan step=9 phase=backward",
                   "oom step=12 phase=forward rank=0"],
    }
    write_config(folder / "config.yaml", settings)
    run(program, "train", folder / "config.yaml")
    settings["budget"], settings["faults"] = "40 steps", []
    write_config(folder / "config.yaml", settings)
    run(program, "train", folder / "config.yaml", ranks=2)
    return folder / "run"


@pytest.fixture
def copy(finished, tmp_path):
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "run")], check=True)
    return tmp_path / "run"


def inspect(program, *arguments, code=0):
    result = run(program, "inspect", *arguments, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout if code == 0 else result.stderr


def lines_of(path):
    return path.read_text().splitlines(keepends=True)


def test_the_story_of_a_run(program, finished):
    story = inspect(program, finished / "decisions.jsonl").splitlines()
    shown = [line.split(None, 3) for line in story]
    assert shown[0][:3] == ["step", "samples", "epoch"]
    whole = "\n".join(story)
    order = ["plan ", "skipped ", "memory ", "done ", "resumed ", "done "]
    position = -1
    for word in order:
        position = whole.index("  " + word, position + 1)
    # Three skips in a row are one line, with the place of the last.
    skips = [line for line in story if "  skipped " in line]
    assert len(skips) == 1 and "3 times from step 7 on" in skips[0] and skips[0].split()[:3] == ["9", "72", "0.72"]
    assert "world size 1 -> 2" in whole and "leaf 4 -> 2" in whole
    entries = len(lines_of(finished / "decisions.jsonl"))
    assert story[-1].startswith(f"{entries} decisions, each as it was written, all that step-00000040 was saved with")
    assert "no end is recorded" not in whole


def test_replay_leads_to_the_same_decisions_and_state(program, finished):
    said = inspect(program, finished, "--replay")
    events = len(lines_of(finished / "events.jsonl"))
    decisions = len(lines_of(finished / "decisions.jsonl"))
    assert f"{events} events lead to {decisions} decisions, byte for byte" in said
    assert f"the first {events} of them lead to the state in step-00000040, hash " in said


def test_events_stay_small(finished):
    lines = [json.loads(line) for line in lines_of(finished / "events.jsonl")]
    kinds = [line["event"] for line in lines]
    assert kinds.count("step") == 40 and kinds.count("memory") == 1 and kinds.count("resume") == 1
    assert kinds.count("evaluation") == 9 == kinds.count("movement")
    assert max(map(len, lines_of(finished / "events.jsonl"))) < 600


DAMAGE = {
    "a letter of a reason": (lambda lines: [*lines[:2], lines[2].replace("a", "e", 1), *lines[3:]], "line 3"),
    "a number of the plan": (lambda lines: [lines[0].replace('"world_size":1', '"world_size":2'), *lines[1:]], "line 1"),
    "a line left out": (lambda lines: [*lines[:3], *lines[4:]], "line 4"),
    "two lines exchanged": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2"),
    "a line twice": (lambda lines: [*lines[:2], *lines[1:]], "line 3"),
    "a digest": (lambda lines: [*lines[:4], lines[4][:-4] + "00" + lines[4][-2:], *lines[5:]], "line 5"),
    "a torn end": (lambda lines: [*lines[:-1], lines[-1][:-9]], "is cut off"),
    "the end cut off": (lambda lines: lines[:-2], "the end was cut off"),
    "no line at all": (lambda lines: [], "holds no decision"),
    "a key twice": (lambda lines: [lines[0].replace('{"sequence":1', '{"sequence":1,"sequence":1'), *lines[1:]],
                    "line 1"),
    "a key more": (lambda lines: [lines[0][:-2] + ',"more":1}\n', *lines[1:]], "line 1"),
    "no JSON": (lambda lines: [lines[0], "hello\n", *lines[2:]], "line 2"),
    "deep brackets": (lambda lines: [lines[0], "[" * 100000 + "\n", *lines[2:]], "line 2"),
    "not text": (lambda lines: [lines[0], "\udcff\n", *lines[2:]], "line 2"),
    "a list": (lambda lines: ["[1]\n", *lines[1:]], "line 1"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_with_its_line(program, copy, what):
    change, words = DAMAGE[what]
    path = copy / "decisions.jsonl"
    damaged = "".join(change(lines_of(path)))
    assert damaged != path.read_text()
    path.write_text(damaged, errors="surrogateescape")
    for arguments in ([path], [copy, "--replay"]):
        message = inspect(program, *arguments, code=65)
        errors = [line for line in message.splitlines() if line.startswith("lorascale: ")]
        assert len(errors) == 1 and words in errors[0] and "decisions.jsonl" in errors[0], message


EVENT_DAMAGE = {
    "a loss": (lambda lines: [*lines[:5], lines[5].replace('"loss":', '"loss":1', 1), *lines[6:]], "event 6"),
    "a line left out": (lambda lines: [*lines[:5], *lines[6:]], "event 6"),
    "the end cut off": (lambda lines: lines[:-3], "decisions"),
    "a torn end": (lambda lines: [*lines[:-1], lines[-1][:-9]], "is cut off"),
    "no JSON": (lambda lines: [lines[0], "hello\n", *lines[2:]], "line 2"),
}


@pytest.mark.parametrize("what", EVENT_DAMAGE)
def test_damaged_events_are_not_replayed(program, copy, what):
    change, words = EVENT_DAMAGE[what]
    path = copy / "events.jsonl"
    path.write_text("".join(change(lines_of(path))))
    assert words in inspect(program, copy, "--replay", code=65)


def test_a_run_without_events_says_so(program, copy):
    (copy / "events.jsonl").unlink()
    assert "did not record its events" in inspect(program, copy, "--replay", code=65)


def test_control_characters_do_not_reach_the_terminal(program, copy):
    """A forged record with sound digests: what it says is shown, but does nothing to a terminal."""
    def digest(text, state):
        for byte in text.encode():
            state = ((state ^ byte) * 0x100000001B3) % 2**64
        return state

    entry = {"sequence": 1, "step": 0, "samples": 0, "kind": "plan\u001b[2J", "reason": "red \u001b[31m\u009b text"}
    text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)[:-1].replace("\x1b", "\\u001b") + ',"inputs":{}'
    path = copy / "forged.jsonl"
    path.write_text(text + f',"chain":"{digest(text, 0xCBF29CE484222325):016x}"}}\n')
    shutil_checkpoints = copy / "checkpoints"
    shutil_checkpoints.rename(copy / "elsewhere")
    said = inspect(program, path)
    assert "red " in said and " text" in said
    assert not any(ord(c) < 32 and c != "\n" or 0x7F <= ord(c) < 0xA0 for c in said)


def test_a_killed_run_goes_on_with_its_record(program, finished, tmp_path):
    """kill -9 leaves records beyond the checkpoint; the resume cuts them and the whole still replays."""
    base = finished.parent
    write_config(tmp_path / "config.yaml", {
        "run": {"output_dir": str(tmp_path / "run"), "device": "cpu", "threads": 1},
        "model": {"path": str(base / "base"), "dtype": "fp32"},
        "data": {"train": str(base / "train.h5"), "packing": False, "sequence_length": 64},
        "batch": {"global": 4}, "checkpoint": {"every": "10 steps"}, "budget": "45 steps",
        "faults": ["kill step=27 phase=backward"],
    })
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([program, "train", str(tmp_path / "config.yaml")], capture_output=True, env=environment,
                            timeout=120)
    assert killed.returncode == -signal.SIGKILL
    events = tmp_path / "run" / "events.jsonl"
    assert sum(json.loads(line)["event"] == "step" for line in lines_of(events)) == 26
    story = inspect(program, tmp_path / "run" / "decisions.jsonl")
    assert "no end is recorded" in story
    run(program, "train", tmp_path / "config.yaml", "--set", "faults=[]")
    kinds = [json.loads(line)["event"] for line in lines_of(events)]
    assert kinds.count("step") == 45 and kinds.count("resume") == 1
    assert "byte for byte" in inspect(program, tmp_path / "run", "--replay")
    # Started again with nothing left to do, it has ended all the same.
    run(program, "train", tmp_path / "config.yaml", "--set", "faults=[]")
    story = inspect(program, tmp_path / "run" / "decisions.jsonl")
    assert story.count("  resumed ") == 2 and "no end is recorded" not in story
    assert "byte for byte" in inspect(program, tmp_path / "run", "--replay")


def test_a_run_that_was_not_recorded_from_its_start_is_not_recorded(program, finished, copy):
    """A checkpoint of a version without events.jsonl."""
    (copy / "events.jsonl").unlink()
    config = finished.parent / "config.yaml"
    result = run(program, "train", config, "--set", f"run.output_dir={copy}", "--set", "budget=45 steps")
    assert "facts of this run are not recorded" in result.stderr
    assert not (copy / "events.jsonl").exists()
