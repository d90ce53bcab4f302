"""What the coordinator costs an update on the CPU: the same run with and without each of its parts, turn and turn about.

    $(scripts/setup.sh --print-python) scripts/bench/coordinator_cost.py [--steps 12] [--rounds 5]

The model and data of cpu_step.py, one rank of all threads, in leaves of 2 so that there is noise to measure; exact
against fast reduction on two ranks. Three figures: of the run with it, what the trainer itself timed as the noise scale's
and the coordinator's, against the rest of the same updates; then two ratios to the run without it, of the fastest updates
over all rounds, which other programs disturb least, and the median over rounds of (median update with / median update
without in the same round); both orders alternate, so that a drift of the machine falls on both sides.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

from cpu_sides import ROOT, WARM_UP, Case, make_inputs

BATCH = Case.batch
NOISE = {"noise.horizon": "64 samples"}
GROWTH = {"batch.policy": "noise-scale", "batch.critical": BATCH, "batch.increment": BATCH, "batch.min_steps": 1}
PLAIN = {"advice": "false", "scale.rule": "none"}
# name -> (ranks, settings without, settings with); at a critical batch of one batch the policy decides and never grows.
COMPARISONS = {
    "noise scale": (1, PLAIN, PLAIN | NOISE),
    "noise scale, advisor, policy, rule sqrt": (1, PLAIN, NOISE | GROWTH | {"scale.rule": "sqrt"}),
    "reduction exact, 2 ranks": (2, PLAIN, PLAIN | {"run.reduction": "exact"}),
}


def updates_of(folder: pathlib.Path, steps: int, ranks: int, settings: dict):
    """Lines of metrics.jsonl, beyond the warm-up."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        chosen = {
            "run.output_dir": f"{run}/out", "run.threads": os.cpu_count() // ranks, "model.path": folder / "base",
            "model.dtype": "fp32", "adapter.rank": Case.rank, "adapter.alpha": 32, "adapter.targets": "all-linear",
            "data.train": Case("", steps=steps).data(folder), "data.shuffle": "false", "data.packing": "false",
            "data.sequence_length": Case.row, "batch.global": BATCH, "batch.reference": BATCH, "batch.micro": 2,
            "schedule.name": "constant", "schedule.warmup": 0, "checkpoint.every": 0, "budget": f"{steps} steps",
            **settings}
        (pathlib.Path(run) / "given.yaml").write_text("{}\n")
        command = [str(ROOT / "build/release/lorascale"), "train", f"{run}/given.yaml"]
        for key, value in chosen.items():
            command += ["--set", f"{key}={value}"]
        if ranks > 1:
            command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]
        environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        lines = [json.loads(line) for line in (pathlib.Path(run) / "out/metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if line["step"] > WARM_UP]


def whole(line):
    return line["step_ms"] + line["coordinator_ms"]


def timed_share(lines):
    """Of the noise scale and the coordinator, against everything else; all updates together, for some cost more."""
    ours = sum(line["noise_ms"] + line["coordinator_ms"] for line in lines)
    return ours / (sum(whole(line) for line in lines) - ours)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(COMPARISONS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_inputs(folder, [Case("", steps=options.steps)])
        for title, (ranks, without, with_it) in COMPARISONS.items():
            if options.only not in (None, title):
                continue
            ratios, every = [], {id(without): [], id(with_it): []}
            for number in range(options.rounds):
                order = [without, with_it] if number % 2 == 0 else [with_it, without]
                lines = {id(side): updates_of(folder, options.steps, ranks, side) for side in order}
                for side, more in lines.items():
                    every[side] += more
                median = {side: statistics.median(map(whole, more)) for side, more in lines.items()}
                ratios.append(median[id(with_it)] / median[id(without)])
            fastest = {side: min(map(whole, lines)) for side, lines in every.items()}
            print(f"{title:42} timed {100 * timed_share(every[id(with_it)]):.2f} % of the rest "
                  f"({100 * timed_share(every[id(without)]):.2f} % without it); "
                  f"{fastest[id(with_it)] / fastest[id(without)]:.3f} of the time without it by the fastest updates "
                  f"({fastest[id(without)]:.0f} ms), {statistics.median(ratios):.3f} by medians "
                  f"({', '.join(f'{ratio:.3f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
