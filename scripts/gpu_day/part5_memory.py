"""Memory: the forecast of plan against the peak, a leaf chosen beside another program, every phase out of memory."""
import contextlib
import json
import re
import select
import signal
import subprocess
import sys
import time

from . import cases, machine, shapes
from .day import PartOver

PHASES = ("forward", "backward", "optimizer", "evaluation", "sample")


def settings_of(day, change):
    """The middle shape on the card; on a CPU a tiny one, whose card is a budget."""
    name = "tiny" if day.stand_in else "middle"
    row = 128 if day.stand_in else 1024
    settings = cases.merged(cases.base(day.material, {"data": {"train": "short.h5", "sequence_length": row}}),
                            {"model": {"path": str(day.work / name), "dtype": "bf16" if not day.stand_in else "fp32"},
                             "batch": {"global": 16, "micro": 4}, "budget": "3 steps"}, change)
    settings["adapter"].pop("init_from")
    return settings


@contextlib.contextmanager
def filled(day, keep_mib):
    """While it lasts, another process leaves the card about `keep_mib`; yields what was left."""
    process = day.start([sys.executable, "-m", "gpu_day.filler", keep_mib], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        ready, _, _ = select.select([process.stdout], [], [], min(60, day.part.remaining()))
        line = process.stdout.readline() if ready else ""
        if not line.strip():
            outcome = day.finish(process, 5)
            raise RuntimeError("the card cannot be filled: " + (outcome.tail() or "its filler does not answer"))
        yield int(line)
    finally:
        if process.returncode is None:
            day.finish(process, 20)  # closes its input


def peak(outcome):
    return max(line["peak_memory_mib"] for line in outcome.lines())


def forecast(day, part):
    settings = settings_of(day, {})
    path = day.write("memory-forecast", settings)
    plan = day.command([day.program, "plan", path], 60, "plan")
    if plan.code:
        part.fail("plan", plan.tail())
        return
    planned = json.loads((day.work / "memory-forecast/plan.json").read_text())["memory_bytes"]
    run = day.train("memory-forecast", settings)
    if run.code:
        part.fail("the run that was planned", run.tail())
        return
    part.true("plan: measured on a leaf", planned["measured"])
    part.seen("plan: peak of tensors", planned["total"] / 2 ** 20, "MiB")
    part.at_most("plan against the run's peak, relative", abs(planned["total"] / 2 ** 20 / peak(run) - 1), 0.1)


def chosen_leaf(outcome):
    return outcome.lines()[0]["micro_batch"] if outcome.lines() else None


def auto(day, part):
    """The leaf of `micro: auto` on an empty card, and on one that another program fills. By memory alone, as exact has
    it: elsewhere the fastest is taken, and which that is may change from run to run."""
    change, whole = ({"batch": {"global": 32, "micro": micro}, "run": {"reduction": "exact"}} for micro in ("auto", 32))
    empty = day.train("memory-auto", settings_of(day, {**change, "budget": "20 steps"}))
    if empty.code:
        part.fail("micro: auto", empty.tail())
        return
    part.seen("micro: auto on an empty card", chosen_leaf(empty))
    decisions = [json.loads(line)["kind"] for line in (empty.folder / "decisions.jsonl").read_text().splitlines()]
    part.at_most("decisions about memory in 20 updates: the choice alone", decisions.count("memory"), 1)
    if day.stand_in:
        budget = max(1, round(peak(empty) / 2))
        limit = {"memory": {"budget_mib": budget}}
        crowded = day.train("memory-crowded", settings_of(day, {**change, **limit}))
        forced = day.train("memory-halved", settings_of(day, {**whole, **limit}))
    else:
        with filled(day, 2500) as budget:
            part.seen("another program fills the card up to", budget, "MiB")
            crowded = day.train("memory-crowded", settings_of(day, change))
            forced = day.train("memory-halved", settings_of(day, whole))
    if crowded.code:
        part.fail("micro: auto on a full card", crowded.tail())
        return
    part.seen("micro: auto on a full card", chosen_leaf(crowded))
    part.at_most("its leaf against that of an empty card", chosen_leaf(crowded), chosen_leaf(empty))
    part.at_most("its peak of tensors against what was left, MiB", peak(crowded), float(budget))
    worst = max(abs(a / b - 1) for a, b in zip(crowded.losses(), empty.losses()))  # of the first updates
    part.at_most("its losses against those of an empty card, relative", worst, 1e-5 if day.stand_in else 1e-2)
    # A leaf that cannot fit is halved until it does, in the middle of the run.
    part.equal("a leaf of the whole batch on a full card: exit code", forced.code, 0,
               forced.tail() if forced.code else "")
    if not forced.code:
        part.at_most("and the leaf it ends with", forced.lines()[-1]["micro_batch"], 31)
        part.true("the log names memory", bool(re.search("memory", forced.err)))


def full_card(day, part):
    """A card that has no room for the program: one line that says so, no internal error; and a budget is for CPUs."""
    if day.stand_in:
        return
    for keep in (1000, 200):  # who notices first differs: libtorch, cuBLAS or the driver
        with filled(day, keep) as left:
            full = day.train("memory-full", settings_of(day, {"run": {"output_dir": str(day.work / f"full-{keep}")}}))
        label = f"a card with {left} MiB left"
        part.one_of(f"{label}: exit code", full.code, (0, 78), full.tail())
        if full.code:
            part.equal(f"{label}: lines of the refusal", len(re.findall(r"^lorascale: ", full.err, re.M)), 1, full.tail())
            part.true(f"{label}: the line names memory", "memory" in full.err.lower(), full.tail())
    reserve = day.train("memory-fraction", settings_of(day, {"batch": {"global": 32, "micro": 32}}),
                        env=day.environment(PYTORCH_ALLOC_CONF="per_process_memory_fraction:0.02"))
    part.equal("a run that may have 2 % of the card: exit code", reserve.code, 0, reserve.tail())
    if not reserve.code:
        part.at_most("a run that may have 2 % of the card: its peak, MiB", peak(reserve),
                     0.02 * float(machine.smi("memory.total")[0]))
    budget = day.train("memory-budget", cases.base(day.material, {"memory": {"budget_mib": 1}}))
    part.equal("memory.budget_mib: 1 does not limit a run on the card", budget.code, 0, budget.tail())


def filled_meanwhile(day, part):
    """Another program takes what is left of the card in the middle of a run: it goes on, and stops when asked."""
    if day.stand_in:
        return
    path = day.write("memory-meanwhile", settings_of(day, {"budget": "1000000 steps"}))
    process = day.start(day.words(path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    metrics = day.work / "memory-meanwhile/metrics.jsonl"

    def wait_for(lines):
        begin = time.monotonic()
        while process.poll() is None and time.monotonic() - begin < 20 and day.part.remaining() > 3:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
                return True
            time.sleep(0.02)
        return False
    started = wait_for(2)
    early = machine.used_mib()
    if started and early is not None:
        part.true("twenty more updates", wait_for(22))
        part.at_most("memory of the card that they took beyond the second one, MiB", machine.used_mib() - early, 64.0)
    if started:
        with filled(day, 100) as left:
            done = metrics.read_bytes().count(b"\n")
            part.true(f"a card filled up to {left} MiB during a run: ten more updates", wait_for(done + 10))
    process.send_signal(signal.SIGTERM)
    outcome = day.finish(process, 20)
    day.log("memory-meanwhile", outcome)
    part.equal("a card filled during a run: exit code after SIGTERM", outcome.code, 75, outcome.tail())


def timing(day, part):
    """Under goodput forward and backward are timed on the device, not their launches."""
    settings = settings_of(day, {"batch": {"policy": "goodput", "global": 32, "micro": 16, "max": 32},
                                 "noise": {"horizon": "320 samples"}, "budget": "8 steps"})
    run = day.train("memory-goodput", settings)
    if run.code:
        part.fail("goodput", run.tail())
        return
    lines = run.lines()[2:]
    part.at_least("goodput: share of forward and backward in the time of updates",
                  sum(line["compute_ms"] for line in lines) / sum(line["step_ms"] for line in lines), 0.4)


def phases(day, part):
    """Out of memory on purpose in each phase: the same losses as without."""
    more = {"evaluate": {"every": "1 steps"}, "data": {"validation": "validation.h5"},
            "sample": {"every": "1 steps", "prompts": [cases.PROMPT_TEXT], "max_tokens": 4}}
    calm = day.train("memory-calm", cases.base(day.material, more))
    jobs = {phase: lambda phase=phase: day.train(f"memory-{phase}", cases.base(
        day.material, more, {"faults": [f"oom step=2 phase={phase}"]})) for phase in PHASES}
    for phase, outcome in day.all(jobs).items():
        label = f"out of memory in {phase}"
        if isinstance(outcome, BaseException):
            part.fail(label, f"{type(outcome).__name__}: {outcome}")
            continue
        part.equal(f"{label}: exit code", outcome.code, 0, outcome.tail() if outcome.code else "")
        if not outcome.code and len(outcome.losses()) == len(calm.losses()):
            worst = max(abs(a / b - 1) for a, b in zip(outcome.losses(), calm.losses()))
            part.at_most(f"{label}: losses against a run without, relative", worst, 1e-5)


def run(day, part):
    baseline = machine.used_mib()
    name = "tiny" if day.stand_in else "middle"
    made = day.python("shapes", name, day.work / name) if not (day.work / name).exists() else None
    if made and made.code:
        part.fail("a model with random weights", made.tail())
        return
    for step in (forecast, auto, full_card, filled_meanwhile, timing, phases):
        try:
            step(day, part)
        except PartOver as over:
            part.fail(step.__name__, f"not reached: the part's time was used up before {over}")
        except Exception as error:  # a part of the part; the others still tell something
            part.fail(step.__name__, f"{type(error).__name__}: {error}")
    machine.check_given_back(part, baseline)
