"""Starts programs with limits, ends every process that was started, and reads what runs leave."""
import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from . import shapes
from .results import Part

MARK = "LORASCALE_GPU_DAY"  # in the environment of every process of this day, and of no other: DAY.NUMBER


class PartOver(Exception):
    """The time of the part is used up."""


@dataclasses.dataclass
class Outcome:
    code: int  # as a shell has it: 128 + number where a signal ended it
    out: str
    err: str
    seconds: float
    folder: pathlib.Path | None = None
    ended: float = 0.0  # by the clock on the wall

    def lines(self):
        """The lines of metrics.jsonl that are updates."""
        path = self.folder / "metrics.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in found if line["step"] > 0]

    def losses(self):
        return [line["loss"] for line in self.lines()]

    def tail(self):
        """The end of what was said, for a note."""
        said = [line for line in self.err.splitlines() if line.strip()]
        return f"exit {self.code}: " + " / ".join(said[-3:])[-400:]


def marked(mark: str, without: str = ""):
    """Processes that run and carry the mark of a day, or of one of its commands; `without` those of another mark."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "environ").read_bytes().split(b"\0")
            theirs = next((word.decode()[len(MARK) + 1:] for word in words if word.startswith(f"{MARK}=".encode())), "")
            if f"{theirs}.".startswith(f"{mark}.") and theirs != without and \
                    (folder / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.append(int(folder.name))
        except (OSError, ValueError):
            pass
    return found


def end(mark: str, without: str = ""):
    """Kills them, and waits a moment until they are gone; returns how many there were."""
    pids = found = marked(mark, without)
    begin = time.monotonic()
    while pids and time.monotonic() - begin < 5:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
        pids = marked(mark, without)
    return len(found)


def python_path():
    """This package first, then where this machine's torch and transformers may be."""
    return os.pathsep.join(filter(None, (str(pathlib.Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))


class Day:
    """`device`: cuda or cpu. `package`: the folder with bundle/ and material/."""

    def __init__(self, package: pathlib.Path, work: pathlib.Path, output: pathlib.Path, device: str, stand_in: bool,
                 program: pathlib.Path | None = None, launcher: pathlib.Path | None = None):
        self.package, self.work, self.output, self.device, self.stand_in = package, work, output, device, stand_in
        self.program = program or package / "bundle/bin/lorascale"
        self.launcher = launcher or package / "bundle/launch/mpirun.sh"
        self.material = package / "material"
        self.token = f"{os.getpid()}-{time.time_ns()}"
        self.part: Part | None = None
        self.maker = None
        self.stopped = False
        self.workers = 2 if device == "cpu" else max(2, min(6, (os.cpu_count() or 2) // 2))
        self.shapes = work  # where models with random weights lie
        self._log_lock, self._numbers = threading.Lock(), itertools.count()
        work.mkdir(parents=True, exist_ok=True)

    def environment(self, **extra):
        base = {**os.environ, "LORASCALE_PYTHON": sys.executable, "LORASCALE_PROGRAM": str(self.program),
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1" if self.stand_in else "4"),
                "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": python_path()}
        return {**base, **{key: str(value) for key, value in extra.items()}}

    def log(self, title, outcome: Outcome):
        with self._log_lock, (self.output / "gpu-day.log").open("a") as file:
            file.write(f"== {title}: exit {outcome.code} after {outcome.seconds:.1f} s\n")
            file.write("".join(f"   {line}\n" for line in outcome.err.splitlines()[-30:]))

    def start(self, command, env=None, **popen):
        mark = f"{self.token}.{next(self._numbers)}"
        process = subprocess.Popen([str(word) for word in command], env={**(env or self.environment()), MARK: mark},
                                   text=True, errors="replace", start_new_session=True, cwd=self.work, **popen)
        process.mark = mark
        return process

    def finish(self, process, seconds):
        """Waits for a process that `start` made; at the limit it is killed with all that it has started."""
        begin, limit = time.monotonic(), min(seconds, self.part.remaining() if self.part else seconds)
        try:
            out, err = process.communicate(timeout=max(limit, 0.1))
            code = process.returncode
        except subprocess.TimeoutExpired:
            end(process.mark)
            out, err = process.communicate(timeout=10)
            code, err = 124, (err or "") + f"\nended after {limit:.0f} s, its limit"
        return Outcome(128 - code if code < 0 else code, out or "", err or "", time.monotonic() - begin,
                       ended=time.time())

    def command(self, words, seconds=60.0, title="", env=None):
        if self.stopped or (self.part and self.part.remaining() < 1):
            raise PartOver(title or str(words[0]))
        process = self.start(words, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        outcome = self.finish(process, seconds)
        self.log(title or " ".join(map(str, words))[:200], outcome)
        return outcome

    def python(self, module, *words, seconds=60.0, env=None):
        return self.command([sys.executable, "-m", f"gpu_day.{module}", *words], seconds, module, env)

    def write(self, name: str, settings: dict):
        """A configuration as JSON, which is YAML too; with the run folder of its name."""
        settings = {**settings, "run": {"output_dir": str(self.work / name), "device": self.device,
                                        "deadline_seconds": 60, **settings.get("run", {})}}
        path = self.work / f"{name}.yaml"
        path.write_text(json.dumps(settings))
        return path

    def words(self, path: pathlib.Path, ranks=1, verb="train"):
        if ranks == 1:
            return [self.program, verb, path]
        profile = self.launcher.parents[1] / "cluster/shared-gpu-test.env"
        return [self.launcher, "-n", ranks, "--threads", "1", "--profile", profile, verb, path]

    def train(self, name: str, settings: dict, ranks=1, seconds=60.0, env=None):
        path = self.write(name, settings)
        outcome = self.command(self.words(path, ranks), seconds, name, env)
        outcome.folder = self.work / name
        return outcome

    def all(self, jobs: dict):
        """{key: callable} -> {key: result or exception}, several at a time."""
        with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:
            futures = {key: pool.submit(job) for key, job in jobs.items()}
        return {key: future.exception() or future.result() for key, future in futures.items()}

    def make_shapes(self, names, shared=pathlib.Path("/dev/shm")):
        """Writes the models with random weights (shapes.py) beside the first parts, on the CPU alone: into memory where
        there is enough, since the checkpoints of the other parts would wait for a disk that has 18 GB to write."""
        needed = 1.2 * sum(shapes.weight_bytes(shapes.SHAPES[name]) for name in names)
        memory = pathlib.Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        if shared.is_dir() and shutil.disk_usage(shared).free > needed and int(memory) * 1024 > 2 * needed:
            self.shapes = pathlib.Path(tempfile.mkdtemp(prefix="gpu-day-", dir=shared))
        script = "; ".join(f"'{sys.executable}' -m gpu_day.shapes {name} '{self.shapes / name}'" for name in names)
        self.maker = self.start(["nice", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    def making_shapes(self):
        return self.maker is not None and self.maker.poll() is None

    def stop_making_shapes(self):
        if self.making_shapes():
            end(self.maker.mark)
            self.maker.wait()
        if self.shapes != self.work:
            shutil.rmtree(self.shapes, ignore_errors=True)

    def clean(self):
        """Kills what still runs of this day but the making of shapes; returns how many there were."""
        return end(self.token, without=self.maker.mark if self.maker else "")
