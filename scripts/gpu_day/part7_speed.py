"""Tokens per second, memory, launches and waits of LoRA updates in real shapes, beside transformers + peft."""
import json
import statistics
import subprocess
import sys
import time

from . import cases, counting, machine, shapes
from .day import Outcome, PartOver

WARM_UP = 2
GRID = [(2048, 0.0), (4096, 0.05), (4096, 0.0), (2048, 0.05)]
REAL = {"shapes": ["8B", "1B"], "grid": GRID, "tokens": "long", "batch_tokens": 8192, "updates": 6, "matrix": 8192,
        "copy_megabytes": 4096, "backend": "inductor", "loss": 5e-3}
STAND_IN = {"shapes": ["tiny"], "grid": [(128, 0.0), (256, 0.05)], "tokens": "short", "batch_tokens": 512, "updates": 3,
            "matrix": 128, "copy_megabytes": 1, "backend": "aot_eager", "loss": 5e-3}


class Speed:
    def __init__(self, day, part):
        self.day, self.part = day, part
        self.sizes = STAND_IN if day.stand_in else REAL
        self.rows, self.ceiling, self.tokens = [], None, self.sizes["batch_tokens"]

    def settings(self, shape, row, dropout, updates):
        batch = self.tokens // row
        settings = cases.base(self.day.material, {
            "run": {"threads": 1 if self.day.stand_in else 4},
            "model": {"path": str(self.day.shapes / shape), "dtype": "bf16"},
            "adapter": {"rank": shapes.LORA_RANK, "alpha": 32, "dropout": dropout},
            "data": {"train": f"{self.sizes['tokens']}.h5", "sequence_length": row},
            "batch": {"global": batch, "micro": batch}, "optimizer": {"lr": 2e-4, "weight_decay": 0},
            "budget": f"{updates} steps"})
        settings["adapter"].pop("init_from")
        return settings

    def ours(self, shape, row, dropout, need=0.0, reduction="fast"):
        """One process: start, warm-up, timed updates."""
        label = f"{shape}, rows of {row:,}, dropout {dropout}" + ("" if reduction == "fast" else f", {reduction}")
        if self.part.remaining() < need:
            self.part.skip(label, "no time was left")
            return
        settings = cases.merged(self.settings(shape, row, dropout, WARM_UP + self.sizes["updates"]),
                                {"run": {"reduction": reduction}})
        run = self.day.train(f"speed-{shape}-{row}-{dropout}-{reduction}", settings, seconds=90)
        lines = run.lines()
        if run.code or len(lines) <= WARM_UP:
            self.part.fail(label, run.tail())
            return
        ms = statistics.median(line["step_ms"] + line["coordinator_ms"] for line in lines[WARM_UP:])
        side = "lorascale" if reduction == "fast" else f"lorascale, {reduction}"
        self.add(shape, row, dropout, side, ms, max(line["peak_memory_mib"] for line in lines), None, None, run.losses())
        self.part.seen(f"{label}: start to end of the process", run.seconds, "s")

    def add(self, shape, row, dropout, side, ms, peak, launches, waits, losses):
        self.rows.append({"shape": shape, "row": row, "dropout": dropout, "side": side, "ms": ms, "peak": peak,
                          "tokens": 1000 * self.tokens / ms, "launches": launches, "waits": waits, "losses": losses})

    def counted(self, shape, need):
        """The same run under count.c, which costs it a little: counts alone are taken from it."""
        row, dropout = self.sizes["grid"][0]
        label = f"{shape}: launches and waits of an update"
        if self.part.remaining() < need:
            self.part.skip(label, "no time was left")
            return
        name, file = f"speed-{shape}-counted", self.day.work / f"{shape}.counts"
        path = self.day.write(name, self.settings(shape, row, dropout, WARM_UP + 4))
        process = self.day.start(self.day.words(path), self.day.environment(**counting.environment(self.day, file)),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        seen = counting.watch(process, self.day.work / name / "metrics.jsonl", file, min(90, self.part.remaining()))
        outcome = self.day.finish(process, 20)
        self.day.log(name, outcome)
        counts, interval = counting.per_update(seen, WARM_UP), counting.interval_ms(seen, WARM_UP)
        lines = Outcome(0, "", "", 0, self.day.work / name).lines()[WARM_UP + 1:]
        if outcome.code or interval is None or not lines:
            self.part.fail(label, outcome.tail())
            return
        # What the program says an update takes is what passes: it does not time launches alone. Small updates are
        # shorter than our look.
        said = statistics.mean(line["step_ms"] + line["coordinator_ms"] for line in lines)
        self.part.seen(f"{shape}: an update by our clock against the program's", interval / said)
        if not self.day.stand_in:
            self.part.at_most(f"{shape}: the two clocks, relative", abs(interval / said - 1), 0.1)
        if counts is None:
            self.part.skip(label, "CUPTI does not report here" if self.day.device == "cuda" else "there is no card")
        else:
            mine = [r for r in self.rows if (r["shape"], r["row"], r["dropout"], r["side"]) == (shape, row, dropout,
                                                                                             "lorascale")]
            for found in mine:
                found["launches"] = round(counts["launches"] + counts["graphs"])
                found["waits"] = round(counts["waits"] + counts["copies"])
            for key, value in counts.items():
                self.part.seen(f"{shape}: {key} of an update", value)
            self.part.at_most(f"{shape}: managed memory asked for", seen[-1][1]["managed"], 0)

    def peer(self, shape, share):
        """One process for all of a shape's peers; killed at its share of the time that is left."""
        job = {**self.sizes, "model": str(self.day.shapes / shape), "device": self.day.device, "warm_up": WARM_UP,
               "tokens": str(self.day.material / f"{self.sizes['tokens']}.npy"), "seconds_each": 10}
        if self.part.remaining() < 15:
            self.part.skip(f"{shape}: transformers + peft", "no time was left")
            return
        outcome = self.day.command([sys.executable, "-m", "gpu_day.peer", json.dumps(job)],
                                   share * self.part.remaining(), f"peer-{shape}")
        for line in outcome.out.splitlines():
            found = json.loads(line) if line.startswith("{") else {}
            if found.get("kind") == "product":
                self.part.at_most("bf16 factors into an fp32 product, against fp64, of the sum of |a||b|",
                                  found["error"], 2e-6)
            elif found.get("kind") == "ceilings":
                self.ceiling = max(self.ceiling or 0, found["tflops"])
                self.part.seen("bf16 products on random data", found["tflops"], "TFLOP/s")
                self.part.seen("copy, bytes read and written", found["gbytes"], "GB/s")
            elif found.get("kind") == "peer":
                self.add(shape, found["row"], found["dropout"], found["side"], found["ms"], found["peak_mib"],
                         found["launches"], found["waits"], found["losses"])
            elif found.get("kind") == "failed":
                self.part.skip(f"{shape}, rows of {found['row']}, dropout {found['dropout']}: peer, {found['side']}",
                               found["note"])
        if outcome.code:
            self.part.skip(f"{shape}: the rest of the peer", outcome.tail())

    def compare(self):
        """First losses of the sides (the adapter begins as nothing, so they see the same model), and the table."""
        table = []
        for r in self.rows:
            key = (r["shape"], r["row"], r["dropout"])
            eager = next((e for e in self.rows if (e["shape"], e["row"], e["dropout"]) == key and e["side"] == "eager"),
                         None)
            flops = shapes.flops_per_token(shapes.SHAPES[r["shape"]], r["row"])
            share = flops * r["tokens"] / (1e12 * self.ceiling) if self.ceiling else None
            label = f"{r['shape']}, rows of {r['row']:,}, dropout {r['dropout']}"
            if r["side"] == "lorascale":
                if eager:
                    self.part.at_most(f"{label}: first loss against the peer's, relative",
                                      abs(r["losses"][0] / eager["losses"][0] - 1), self.sizes["loss"])
                if share is not None and not self.day.stand_in:
                    self.part.at_most(f"{label}: share of the limit (more than all is a wrong measurement)", share, 1.0)
            table.append([r["shape"], f"{r['row']:,}", r["dropout"], r["side"], f"{r['ms']:.1f}", f"{r['tokens']:,.0f}",
                          f"{r['tokens'] / eager['tokens']:.2f}" if eager else "-",
                          "-" if share is None else f"{share:.1%}", f"{r['peak']:,.0f}",
                          "-" if r["launches"] is None else r["launches"], "-" if r["waits"] is None else r["waits"]])
        self.part.table(f"LoRA r {shapes.LORA_RANK} on all linear layers, bf16, {self.tokens:,} tokens an update, random "
                        "weights; limit: all floating-point operations at the measured rate of bf16 products",
                        ["shape", "row", "dropout", "side", "ms", "tokens/s", "ratio to eager", "share of limit",
                         "peak MiB", "launches", "waits"], table)


def enough_room(day, part, shape):
    free, needed = machine.free_mib(), shapes.weight_bytes(shapes.SHAPES[shape]) / 2 ** 20
    room = needed + (90000 if shape == "8B" else 30000)  # activations of the eager peer are the largest
    if free is not None and free < room:
        part.skip(f"{shape}", f"{free:,.0f} MiB are free, the peer needs about {room:,.0f}")
        return False
    return True


def run(day, part):
    speed = Speed(day, part)
    for number, shape in enumerate(speed.sizes["shapes"]):
        folder = day.shapes / shape
        begin = time.monotonic()
        if not folder.exists() and not day.making_shapes():
            day.python("shapes", shape, folder, seconds=120)
        while not folder.exists() and day.making_shapes() and part.remaining() > 30:
            time.sleep(0.2)
        part.seen(f"{shape}: waited for its random weights", time.monotonic() - begin, "s")
        if not folder.exists():
            part.fail(shape, "its random weights could not be made")
            continue
        if not enough_room(day, part, shape):
            continue
        need = {"8B": 30.0, "1B": 15.0}.get(shape, 0.0)
        last = number == len(speed.sizes["shapes"]) - 1
        try:
            speed.ours(shape, *speed.sizes["grid"][0])
            speed.counted(shape, need)
            speed.peer(shape, 0.8 if last else 0.45)
            for row, dropout in speed.sizes["grid"][1:]:
                speed.ours(shape, row, dropout, need)
            if last:
                speed.ours(shape, *speed.sizes["grid"][0], need, "exact")
        except PartOver as over:
            part.skip(str(over), "no time was left")
    speed.compare()
