"""Batch and learning rate at equal samples: how a LoRA run fares at larger batches under each scaling rule, and with a
batch that grows with the gradient noise scale.

    $(scripts/setup.sh --print-python) scripts/studies/batch_and_rate.py rates    # which rate is right at the reference
    ... rules     # {none, linear, sqrt, sqrt + companions} x two batches, against the reference batch
    ... growth    # batch.policy noise-scale against the reference batch

The quickstart's model and data (made by scripts/quickstart.sh; another folder with --data), rows of 64 tokens, one
thread a run, several seeds: a seed sets initialisation and order of the data. Runs that are done are not repeated, and
one that was interrupted goes on. Prints a table and writes NAME.csv and NAME.png to --figures.
"""
import argparse
import concurrent.futures
import csv
import json
import math
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCE, ROW, VALIDATION_ROWS = 8, 64, 256
COMPANIONS = {"scale.betas": "true", "scale.eps": "true", "scale.weight_decay": "true"}
RULES = {"none": {"scale.rule": "none"}, "linear": {"scale.rule": "linear"}, "sqrt": {"scale.rule": "sqrt"},
         "sqrt + companions": {"scale.rule": "sqrt", **COMPANIONS}}


def arms(study: str, rate: float, samples: int):
    """{name: settings that differ from the reference run}"""
    reference = {f"batch {REFERENCE}": {}}
    if study == "rates":
        return {f"lr {value:g}": {"optimizer.lr": value} for value in (rate / 4, rate / 2, rate, rate * 2, rate * 4)}
    if study == "rules":
        return reference | {f"batch {REFERENCE * k}, {name}": {"batch.global": REFERENCE * k, **rule}
                            for k in (4, 8) for name, rule in RULES.items()}
    horizon = {"noise.horizon": f"{samples // 8} samples"}
    growing = {"batch.policy": "noise-scale", "batch.increment": REFERENCE, "batch.min_steps": 30, **horizon}
    parts = {"the critical batch": 1, "an eighth of it": 1 / 8, "a twelfth of it": 1 / 12,
             "a sixteenth of it": 1 / 16}
    return reference | {name: growing | {"batch.critical_fraction": part} for name, part in parts.items()} | {
                        f"batch {REFERENCE * 4}, sqrt": {"batch.global": REFERENCE * 4, "scale.rule": "sqrt"}}


def train(options, name: str, settings: dict, seed: int):
    folder = options.runs / f"{name.replace(' ', '-').replace(',', '').replace('+', 'and')}-seed{seed}"
    status = folder / "status.json"
    if not status.exists() or json.loads(status.read_text())["outcome"] != "done":
        chosen = {
            "run.output_dir": folder, "run.seed": seed, "run.threads": 1,
            "data.train": options.data / "train.h5", "data.validation": options.data / "validation.h5",
            "data.sequence_length": ROW, "batch.global": REFERENCE, "batch.reference": REFERENCE, "batch.micro": 4,
            "optimizer.lr": options.rate, "optimizer.weight_decay": 0.01, "budget": f"{options.samples} samples",
            "schedule.warmup": f"{options.samples // 20} samples", "checkpoint.every": f"{options.samples // 4} samples",
            "evaluate.every": f"{options.samples // 8} samples", "evaluate.max_samples": VALIDATION_ROWS,
            "sample.prompts": "[]", **settings}
        command = [str(options.program), "train", str(ROOT / "configs/quickstart.yaml")]
        for key, value in chosen.items():
            command += ["--set", f"{key}={value}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT,
                              env={**os.environ, "OMP_WAIT_POLICY": "passive"})
        if done.returncode not in (0, 71):
            raise SystemExit(f"{folder}: exit code {done.returncode}\n{done.stderr}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["samples"], line["val_loss"]) for line in lines if line.get("val_loss") is not None]
    return {"arm": name, "seed": seed, "diverged": json.loads(status.read_text())["outcome"] != "done",
            "val_loss": losses[-1][1], "updates": lines[-1]["step"], "curve": losses,
            "trace": [(line["samples"], line["global_batch"], line["lr"]) for line in lines if line["step"] > 0]}


def spread(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def table(results, names):
    base, _ = spread([r["val_loss"] for r in results[names[0]]])
    base_updates = results[names[0]][0]["updates"]
    print("| run | updates | of the first | validation loss, mean ± sd | against the first |\n|---|---|---|---|---|")
    for name in names:
        runs = results[name]
        mean, sd = spread([r["val_loss"] for r in runs])
        updates = statistics.mean(r["updates"] for r in runs)
        failed = sum(r["diverged"] for r in runs)
        print(f"| {name} | {updates:.0f} | {updates / base_updates:.2f} | {mean:.4f} ± {sd:.4f} | "
              f"{100 * (mean / base - 1):+.2f} %{f', {failed} diverged' if failed else ''} |")


def draw(results, names, path: pathlib.Path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    batches = {batch for runs in results.values() for _, batch, _ in runs[0]["trace"]}
    varied = 1 if len(batches) > 1 else 2  # what the third picture shows: the batch, or else the rate
    figure, (loss, final, trace) = pyplot.subplots(1, 3, figsize=(16, 4.5), layout="constrained")
    for index, name in enumerate(names):
        runs, color = results[name], f"C{index}"
        loss.plot(*zip(*runs[0]["curve"]), color=color, label=name, linewidth=1.2)
        for run in runs:
            final.plot(index, run["val_loss"], ".", color=color, alpha=0.5)
        mean, sd = spread([r["val_loss"] for r in runs])
        final.errorbar(index, mean, 0 if math.isnan(sd) else sd, color=color, marker="_", capsize=4)
        trace.step([point[0] for point in runs[0]["trace"]], [point[varied] for point in runs[0]["trace"]],
                   color=color, where="pre")
    loss.set(xlabel="samples", ylabel="validation loss (nats per byte)", title="first seed")
    final.set(title="at the end: seeds, mean ± sd", xticks=range(len(names)))
    final.set_xticklabels(names, rotation=40, ha="right", fontsize=7)
    trace.set(xlabel="samples", ylabel=("global batch", "learning rate")[varied - 1], yscale="log", title="first seed")
    loss.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["rates", "rules", "growth"])
    parser.add_argument("--samples", type=int, default=3072)
    parser.add_argument("--rate", type=float, default=6e-3, help="optimizer.lr at the reference batch of 8")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="RUN", help="of the table's runs; the first of them is compared with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/lorascale")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data/quickstart")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs/studies")
    parser.add_argument("--figures", type=pathlib.Path, default=ROOT / "docs/figures")
    options = parser.parse_args()
    if not (options.data / "train.h5").exists():
        raise SystemExit(f"{options.data}/train.h5 is missing; run scripts/quickstart.sh first, or give --data")
    chosen = arms(options.study, options.rate, options.samples)
    if unknown := set(options.only or []) - set(chosen):
        raise SystemExit(f"--only: {sorted(unknown)} not among {list(chosen)}")
    chosen = {name: chosen[name] for name in options.only or chosen}
    options.runs = options.runs / f"{options.samples}-{options.rate:g}"
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(train, options, name, settings, seed)
                for seed in range(options.first_seed, options.first_seed + options.seeds)
                for name, settings in chosen.items()]
        results = {name: [] for name in chosen}
        for job in jobs:
            results[job.result()["arm"]].append(job.result())
    table(results, list(chosen))
    options.figures.mkdir(parents=True, exist_ok=True)
    name = f"study-{options.study}"
    with open(options.figures / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "seed", "updates", "val_loss", "diverged"])
        writer.writerows([r["arm"], r["seed"], r["updates"], r["val_loss"], r["diverged"]]
                         for runs in results.values() for r in runs)
    draw(results, list(chosen), options.figures / f"{name}.png")
    print(f"\nwritten: {options.figures / name}.csv, {options.figures / name}.png")


if __name__ == "__main__":
    main()
