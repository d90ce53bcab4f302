"""The device that is chosen, how long the start takes, what happens without a card, the versions."""
import re

from . import cases, machine


def run(day, part):
    about = machine.about()
    for key in ("driver", "torch", "NCCL", "glibc"):
        part.seen(f"version: {key}", about[key])
    version = day.command([day.program, "--version"], title="version")
    part.equal("the program starts with this machine's torch", version.code, 0, version.tail() if version.code else "")
    part.seen("version: lorascale", version.out.strip())
    part.seen("time until --version", version.seconds, "s; without the CUDA half of libtorch")

    def plan(name, device, **env):
        path = day.write(name, {**cases.base(day.material), "run": {"device": device, "threads": 1}})
        return day.command([day.program, "plan", path], 120, name, day.environment(**env) if env else None)

    def chosen(outcome):
        found = re.search(r"device (\w+(?::\d+)?)", outcome.err + outcome.out)
        return found[1] if found else outcome.tail()

    first = plan("start-first", "auto")
    expected = "cpu" if day.device == "cpu" else "cuda:0"
    part.equal("run.device: auto takes", chosen(first), expected)
    part.at_most("plan, the first start: libraries read from disk", first.seconds, 80, "s")  # the part has 100
    second = plan("start-again", "auto")
    part.at_most("plan, the second start", second.seconds, 30, "s")
    loaded = re.search(r"([^\n]*)all ranks had loaded CUDA's libraries after ([0-9.]+) s", first.err)
    if loaded:
        part.seen("CUDA's libraries, the first time", float(loaded[2]), "s")

    first = day.train("start-train", {**cases.base(day.material), "budget": "2 steps",
                                      "run": {"threads": 1, "deadline_seconds": 5 if day.device == "cuda" else 60}}, 1, 60)
    part.equal("a first update under a deadline of 5 s: exit code", first.code, 0, first.tail() if first.code else "")

    # A container that was given no card: auto must say that it falls back, and cuda must refuse.
    for value in ("", "-1", "9"):
        hidden = plan("start-hidden", "auto", CUDA_VISIBLE_DEVICES=value)
        part.equal(f"CUDA_VISIBLE_DEVICES={value}: auto takes", chosen(hidden), "cpu")
        if day.device == "cuda":
            part.true(f"CUDA_VISIBLE_DEVICES={value}: a warning names the variable",
                      bool(re.search("warn.*on the CPU.*CUDA_VISIBLE_DEVICES", hidden.err)), hidden.tail())
    refused = plan("start-refused", "cuda", CUDA_VISIBLE_DEVICES="")
    part.equal("run.device: cuda without a card is refused with", refused.code, 78)
    part.equal("in one line", len(re.findall(r"^lorascale: ", refused.err, re.M)), 1, refused.tail())
    odd_rank(day, part)
    if day.device == "cuda":
        path = day.write("start-workspace", cases.base(day.material, {"run": {"reduction": "exact"}}))
        said = day.command([day.program, "plan", path], 60, "workspace", day.environment(CUBLAS_WORKSPACE_CONFIG=":0:0"))
        part.true("exact replaces CUBLAS_WORKSPACE_CONFIG=:0:0 and says so", "is replaced by" in said.err, said.tail())


def odd_rank(day, part):
    """Two ranks, the second without a card: all end with one line that names it, instead of training apart."""
    mpirun = day.launcher.parents[1] / "bin/mpirun"
    if not mpirun.exists():
        part.skip("a rank without a card", f"there is no {mpirun}")
        return
    job = [day.program, "plan", day.write("start-odd", {**cases.base(day.material), "run": {"device": "auto"}})]
    said = day.command([mpirun, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "plm", "isolated",
                        "-n", 1, *job, ":", "-n", 1, "env", "CUDA_VISIBLE_DEVICES=", *job], 60, "odd rank",
                       day.environment(LORASCALE_SHARE_GPUS=1))
    if day.device == "cpu":
        part.equal("two ranks of one kind: exit code", said.code, 0, said.tail() if said.code else "")
        return
    part.equal("a rank without a card: exit code", said.code, 78, said.tail())
    part.true("a rank without a card: is named", "rank 1 (" in said.err, said.tail())
