"""Runs the program on input that it must refuse, and looks at what it leaves behind."""
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import time

import h5py
import numpy as np
import yaml
from reference import VOCABULARY, make_documents, make_model, metrics, write_dataset

# A refusal may take this much longer than a run on good input: mpirun alone needs 1.3 s to end a job.
PATIENCE_SECONDS = 3.0
HANG_SECONDS = 30.0


def environment(**extra):
    return {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMP_NUM_THREADS": "1", **extra}


def mpirun(ranks, command):
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command] if ranks > 1 else command


@dataclasses.dataclass
class Outcome:
    code: int
    stderr: str
    stdout: str
    seconds: float

    @property
    def messages(self):
        """The program's error lines: one per rank that prints one."""
        return re.findall(r"^lorascale: (.*)$", self.stderr, re.MULTILINE)


def execute(command, timeout=HANG_SECONDS, **popen):
    """Runs a command in a session of its own, so that a hang ends with nothing left behind."""
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], env=popen.pop("env", environment()),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                               start_new_session=True, **popen)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"{command} hangs; so far it said:\n{err[-3000:]}") from None
    return Outcome(process.returncode, err, out, time.monotonic() - start)


def digest(folder: pathlib.Path):
    """What a folder holds: kind, permissions and content of everything below it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = ""
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = (stat.filemode(status.st_mode), content)
    return found


def expect_refusal(outcome: Outcome, code: int, words):
    """One line, said once for all ranks, says what is wrong, with these words; the exit code is the promised one."""
    said = outcome.stderr[-3000:]
    assert outcome.code == code, f"exit code {outcome.code} instead of {code}:\n{said}"
    lines = set(outcome.messages)
    assert len(lines) == 1, f"{len(lines)} distinct error lines:\n{said}"
    line = lines.pop()
    for word in [words] if isinstance(words, str) else words:
        assert word.lower() in line.lower(), f"{word!r} is not in: {line}"
    assert len(line) < 600, f"too long for one line: {line}"
    assert "internal error" not in line and "c10::" not in line and "Exception raised" not in outcome.stderr, said


class Workspace:
    """Sound input (base/, train.h5, config.yaml) that a test then spoils, and the folder of the run."""

    def __init__(self, folder: pathlib.Path, program: str):
        self.folder, self.program = folder, program
        self.base, self.data, self.output = folder / "base", folder / "train.h5", folder / "run"
        self.config = folder / "config.yaml"

    @classmethod
    def create(cls, folder, program):
        """The template that the workspaces of the tests are copies of."""
        space = cls(folder, program)
        make_model("llama").save_pretrained(space.base)
        write_dataset(space.data, make_documents(40, 4, 60))
        return space

    def copy(self, folder):
        space = Workspace(folder, self.program)
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        space.write_config()
        return space

    def settings(self):
        return {
            "run": {"output_dir": str(self.output), "threads": 1, "deadline_seconds": 15, "device": "cpu"},
            "model": {"path": str(self.base), "dtype": "fp32"},
            "adapter": {"rank": 4, "alpha": 8, "targets": "all-linear"},
            "data": {"train": str(self.data), "packing": False, "sequence_length": 64},
            "batch": {"global": 6, "micro": 2},
            "optimizer": {"lr": 3e-3},
            "schedule": {"name": "constant", "warmup": "0 samples"},  # a longer budget changes nothing of it
            "checkpoint": {"every": "2 steps", "keep": 2},
            "budget": "6 steps",
        }

    def write_config(self, **changes):
        """Writes config.yaml; run__seed=1 sets a key, None removes it."""
        settings = self.settings()
        for path, value in changes.items():
            section, _, key = path.partition("__")
            target, name = (settings.setdefault(section, {}), key) if key else (settings, section)
            if value is None:
                target.pop(name, None)
            else:
                target[name] = value
        self.config.write_text(yaml.safe_dump(settings))

    def command(self, verb, *more):
        return [self.program, verb, str(self.config), *map(str, more)]

    def train(self, *more, ranks=1, **options):
        return execute(mpirun(ranks, self.command("train", *more)), **options)

    def start(self, *more, ranks=1, **popen):
        """A run in the background; ended by the caller."""
        return subprocess.Popen(mpirun(ranks, self.command("train", *more)), env=popen.pop("env", environment()),
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
                                **popen)

    def must_train(self, *more, ranks=1):
        outcome = self.train(*more, ranks=ranks)
        assert outcome.code == 0, outcome.stderr[-3000:]
        return outcome

    def lines(self):
        path = self.output / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def checkpoints(self):
        return sorted((self.output / "checkpoints").glob("step-*"))


def wait_until(condition, process=None, seconds=HANG_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"the run ended early:\n{process.stderr.read()[-3000:]}"
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.005)


def verified(program, checkpoint):
    """Whether `inspect` finds every byte of a checkpoint as its manifest says."""
    return execute([program, "inspect", checkpoint]).code == 0


def give_text(file):
    """The data set speaks bytes and shows each token as two hexadecimal digits."""
    file.attrs["tokenizer_sha256"] = "bytes"
    file["vocabulary/bytes"] = np.frombuffer(bytes(range(VOCABULARY)).hex().encode(), dtype=np.uint8)
    file["vocabulary/offsets"] = np.arange(0, 2 * VOCABULARY + 1, 2, dtype=np.int64)


def expect_replay(space):
    """The facts on record lead to the same decisions and to the newest checkpoint's state."""
    done = subprocess.run([space.program, "inspect", str(space.output), "--replay"], capture_output=True, text=True)
    assert done.returncode == 0 and "lead to the state" in done.stdout, done.stderr


def edit_dataset(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace_dataset(file, name, values, **options):
    del file[name]
    return file.create_dataset(name, data=values, **options)


def flip(path, position, bit=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def as_u16(values):
    return np.asarray(values, dtype=np.uint16)


def metrics_steps(space):
    return [line["step"] for line in metrics(space.output)]
