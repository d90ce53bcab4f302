"""Two and four ranks on one card: the same numbers, and an end without a hang where one of them is killed or stops."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from . import cases, machine, tensors
from .day import PartOver, marked

FOUR_LEAVES = {"adapter": {"dropout": 0.1}, "data": {"shuffle": True}, "batch": {"global": 8, "micro": 2}}
DEADLINE = 8  # run.deadline_seconds of the runs that are broken


def ranks_of(day):
    """{rank: pid} of the lorascale processes that run."""
    found = {}
    for pid in marked(day.token):
        try:
            name = os.readlink(f"/proc/{pid}/exe").rsplit("/", 1)[-1]
            words = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = next((int(word.split(b"=")[1]) for word in words if word.startswith(b"OMPI_COMM_WORLD_RANK=")), None)
        if name == "lorascale" and rank is not None:
            found[rank] = pid
    return found


def same_numbers(day, part):
    """Returns the run of four ranks in fast mode."""
    runs = {}
    for reduction in ("exact", "fast"):
        for ranks in (1, 2, 4):
            settings = cases.base(day.material, FOUR_LEAVES, {"run": {"reduction": reduction}})
            if (reduction, ranks, day.device) == ("exact", 2, "cuda"):  # NCCL's start may take longer than it
                settings["run"]["deadline_seconds"] = 5
            runs[reduction, ranks] = one = day.train(f"ranks-{reduction}-{ranks}", settings, ranks, 45)
            label = f"{ranks} ranks, {reduction}"
            if one.code:
                part.fail(label, one.tail())
                continue
            if ranks == 1 or runs[reduction, 1].code:
                continue
            alone = runs[reduction, 1]
            part.equal(f"{label}: world", sorted({line["world_size"] for line in one.lines()}), [ranks])
            if reduction == "exact":
                part.equal(f"{label}: losses are those of one rank", one.losses() == alone.losses(), True)
                part.equal(f"{label}: digest is that of one rank", tensors.digest(one.folder / "adapter")[:16],
                           tensors.digest(alone.folder / "adapter")[:16])
            else:
                worst = max((abs(a / b - 1) for a, b in zip(one.losses(), alone.losses())), default=float("inf"))
                part.at_most(f"{label}: losses against one rank, relative", worst, 1e-5)
            if "fast" == reduction:
                ending(part, label, one)
            milliseconds = [line["reduce_ms"] for line in one.lines()][1:]
            part.seen(f"{label}: all-reduce of an update", sum(milliseconds) / max(1, len(milliseconds)), "ms")
    return runs["fast", 4]


def ending(part, label, one):
    """NCCL is closed in time and in silence."""
    part.at_most(f"{label}: from the last update to the end", one.ended - (one.folder / "metrics.jsonl").stat().st_mtime,
                 10.0, "s")
    part.true(f"{label}: nothing is said of closing NCCL",
              "closing NCCL" not in one.err and "takes too long" not in one.err, one.tail())
    version = re.search(r"NCCL \d+ \(built for \d+\)", one.err)
    if version:
        part.seen(f"{label}: version", version[0])


def one_rank_out_of_memory(day, part, calm):
    """Of four, in one phase after the other: all go on in smaller leaves."""
    faults = [f"oom step={step} phase={phase} rank=2" for step, phase in ((2, "forward"), (3, "backward"),
                                                                          (4, "optimizer"))]
    oom = day.train("ranks-oom", cases.base(day.material, FOUR_LEAVES, {"faults": faults}), 4, 45)
    label = "4 ranks, one of them out of memory in each phase"
    part.equal(f"{label}: exit code", oom.code, 0, oom.tail() if oom.code else "")
    if not oom.code and len(oom.losses()) == len(calm.losses()) > 0:
        worst = max(abs(a / b - 1) for a, b in zip(oom.losses(), calm.losses()))
        part.at_most(f"{label}: losses against a calm run, relative", worst, 1e-5)


def one_nccl(part, name, pids):
    """A second copy of the library in a process breaks both."""
    for rank, pid in sorted(pids.items()):
        paths = {line.split()[-1] for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
                 if "libnccl.so" in line}
        part.at_most(f"{name}: copies of libnccl in rank {rank}", len(paths), 1, " ".join(sorted(paths)))


def start_endless(day, name, env):
    settings = cases.base(day.material, {"run": {"deadline_seconds": DEADLINE}, "budget": "1000000 steps"})
    path = day.write(name, settings)
    process = day.start(day.words(path, 2), env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                        stdin=subprocess.DEVNULL)
    metrics = day.work / name / "metrics.jsonl"
    begin = time.monotonic()
    while not (metrics.exists() and metrics.read_text().count("\n") >= 4):
        if process.poll() is not None or time.monotonic() - begin > 40 or day.part.remaining() < 5:
            return process, None
        time.sleep(0.02)
    return process, ranks_of(day)


def broken(day, part, name, number, codes, env=None):
    """One of two ranks gets a signal in the middle of the run."""
    run = f"ranks-{name.replace(' ', '-')}"
    process, ranks = start_endless(day, run, env)
    try:
        if not ranks or 1 not in ranks:
            outcome = day.finish(process, 0.1)
            part.fail(f"{name}: two ranks start", outcome.tail())
            return
        one_nccl(part, name, ranks)
        before = time.monotonic()
        os.kill(ranks[1], number)
        outcome = day.finish(process, DEADLINE + 25)
        day.log(name, outcome)
        if env:  # mpirun was told to look away: what counts is what the other rank saw
            status = json.loads((day.work / run / "status.json").read_text())
            part.one_of(f"{name}: exit code of the other rank", status.get("exit_code"), codes, outcome.tail())
        else:
            part.one_of(f"{name}: exit code", outcome.code, codes, outcome.tail())
        part.at_most(f"{name}: until the job has ended", time.monotonic() - before, DEADLINE + 15, "s")
        if 137 not in codes:
            part.true(f"{name}: the message names the rank", "rank 1 (" in outcome.err, outcome.tail())
    finally:
        time.sleep(0.5)
        part.equal(f"{name}: processes that were left", day.clean(), 0)


def run(day, part):
    baseline = machine.used_mib()
    try:
        one_rank_out_of_memory(day, part, same_numbers(day, part))
        # mpirun itself ends the other rank of a killed one: then the launcher says 137, else the other rank says 87.
        broken(day, part, "kill -9 of one rank", signal.SIGKILL, (87, 137))
        broken(day, part, "kill -9 of one rank without mpirun's help", signal.SIGKILL, (87,),
               day.environment(OMPI_MCA_orte_enable_recovery=1))
        broken(day, part, "kill -STOP of one rank", signal.SIGSTOP, (87, 86))
    except PartOver as over:
        part.fail(str(over), "not reached: the part's time was used up")
    machine.check_given_back(part, baseline)
