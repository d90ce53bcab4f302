"""Two ranks of one node with and without a base that they share (model.share), on a real model: memory and start.

    $(scripts/setup.sh --print-python) scripts/bench/shared_base.py [MODEL] [--ranks 2] [--rounds 3] [--dtype bf16]

MODEL is a Hugging Face folder; without one, that of scripts/models/smollm2.sh. Both sides train the same few updates on
the same tokens, turn and turn about, in an order that alternates. Memory is the proportional set size of each rank (PSS:
what several processes map counts in equal parts), read while an update is computed, of anonymous and of shared memory;
start is the time from the start of mpirun until the first update is on record, `cpu` what the ranks have computed by
then, which other programs disturb less, and update the median of those after it.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from cpu_sides import ROOT, name_of_the_cpu

SIDES = NONE, NODE = "none", "node"
ROW, BATCH, RANK = 128, 2, 8
KEYS = ("Pss", "Pss_Anon", "Pss_Shmem")


def make_data(path: pathlib.Path, vocabulary: int, rows: int):
    import h5py
    import numpy as np
    tokens = np.random.default_rng(0).integers(0, vocabulary, (rows, ROW))
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "lorascale-tokens", "version": 1, "vocab_size": vocabulary, "eos_id": -1})
        file["tokens"] = tokens.ravel().astype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
        file["offsets"] = np.arange(0, tokens.size + 1, ROW)


def ranks_below(launcher: int):
    """The processes of the trainer that mpirun has started."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == launcher and (folder / "comm").read_text().strip() == "lorascale":
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


def memory_of(pid: int):
    """MiB."""
    lines = (line.split() for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    table = {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines}
    return {key: table[key] for key in KEYS}


def cpu_seconds_of(pid: int):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(folder: pathlib.Path, options, side: str):
    with tempfile.TemporaryDirectory(dir=folder) as name:
        out = pathlib.Path(name) / "out"
        settings = {
            "run.output_dir": out, "run.device": "cpu", "run.threads": max(1, os.cpu_count() // options.ranks),
            "model.path": options.model, "model.dtype": options.dtype, "model.share": side, "adapter.rank": RANK,
            "adapter.targets": "all-linear", "data.train": folder / "train.h5", "data.packing": "false",
            "data.sequence_length": ROW, "batch.global": BATCH * options.ranks, "batch.micro": BATCH, "optimizer.lr": 1e-4,
            "schedule.name": "constant", "schedule.warmup": 0, "checkpoint.every": 0, "budget": f"{options.steps} steps"}
        (pathlib.Path(name) / "given.yaml").write_text("{}\n")
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(options.ranks),
                   str(ROOT / "build/release/lorascale"), "train", f"{name}/given.yaml"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        start = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        metrics, first, memory = out / "metrics.jsonl", None, []
        while process.poll() is None:
            lines = metrics.read_text().count("\n") if metrics.exists() else 0
            if first is None and lines >= 1:
                first = time.monotonic() - start
                cpu = sum(map(cpu_seconds_of, ranks_below(process.pid)))
            if 1 <= lines < options.steps:
                try:
                    memory.append([memory_of(pid) for pid in ranks_below(process.pid)])
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has come to its end
            time.sleep(0.02)
        if process.returncode != 0:
            raise SystemExit(process.stderr.read())
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        whole = [sample for sample in memory if len(sample) == options.ranks]
        most = max(whole, key=lambda sample: sum(rank["Pss"] for rank in sample))
        return {"memory": most, "total": sum(rank["Pss"] for rank in most), "start": first, "cpu": cpu,
                "update": statistics.median(line["step_ms"] for line in lines[1:]),
                "loss": [line["loss"] for line in lines]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--dtype", default="auto", choices=["auto", "fp32", "bf16"])
    options = parser.parse_args()
    if options.model is None:
        options.model = subprocess.run([ROOT / "scripts/models/smollm2.sh"], check=True, capture_output=True,
                                       text=True).stdout.strip()
    vocabulary = json.loads((pathlib.Path(options.model) / "config.json").read_text())["vocab_size"]
    print(name_of_the_cpu())
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_data(folder / "train.h5", vocabulary, options.steps * BATCH * options.ranks)
        for number in range(options.rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            rounds.append({side: run(folder, options, side) for side in order})
            assert rounds[-1][NONE]["loss"] == rounds[-1][NODE]["loss"], "the losses differ"

    def median(side, key):
        return statistics.median(each[side][key] for each in rounds)

    for side in SIDES:
        sample = sorted((each[side] for each in rounds), key=lambda one: one["total"])[len(rounds) // 2]
        each = ", ".join(f"{rank['Pss']:.0f} ({rank['Pss_Anon']:.0f} of its own, {rank['Pss_Shmem']:.0f} shared)"
                         for rank in sample["memory"])
        print(f"share {side}: PSS per rank {each}; all {median(side, 'total'):.0f} MiB; start "
              f"{median(side, 'start'):.2f} s ({median(side, 'cpu'):.2f} s of CPU), update {median(side, 'update'):.0f} ms")
    for key in ("total", "start", "cpu", "update"):
        ratios = [each[NODE][key] / each[NONE][key] for each in rounds]
        print(f"{key:7} node / none {statistics.median(ratios):.3f} (rounds {', '.join(f'{r:.3f}' for r in ratios)})")
    print("losses  the same to the last digit")


if __name__ == "__main__":
    main()
