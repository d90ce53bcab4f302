"""Updates on this CPU, lorascale beside transformers + peft, in all the shapes that are promised, as one table.

    $(scripts/setup.sh --print-python) scripts/bench/cpu_table.py [--rounds 5] [--only WORD ...] [--compile]

One thread pinned to one core a side, in turn, round after round; ratios are of medians over all rounds, with those of the
rounds behind them. With --compile the peer also runs under torch.compile, and the faster of the two counts. `rate` is the
share of the time of an update that the products of its frozen weights take by themselves. Two ranks run on two cores.
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 in the environment give both sides the paths of an older CPU.
"""
import argparse
import dataclasses
import pathlib
import statistics
import subprocess
import tempfile

from cpu_sides import COMPILED, DEMO, OURS, PEER, RANKS, RATE, ROOT, Case, in_child, make_inputs, name_of_the_cpu

MOST_MEMORY = 0.3  # of the peer's


@dataclasses.dataclass(frozen=True)
class Line:
    case: Case
    target: float  # time, of the peer's; with AVX2 alone `target_avx2`
    target_avx2: float | None


def lines_of(smollm2: str):
    def pair(name, fp32, bf16, avx2, **shape):
        return [Line(Case(f"{name}, fp32", "fp32", **shape), fp32, avx2),
                Line(Case(f"{name}, bf16", "bf16", **shape), bf16, None)]
    small = {"model": smollm2, "batch": 4, "steps": 5}
    return [
        Line(Case("benchmark, fp32", "fp32"), 0.75, 0.75),
        Line(Case("benchmark, bf16", "bf16"), 0.62, 0.8),
        *pair("SmolLM2, rows of 256", 0.75, 0.62, 0.75, row=256, **small),
        *pair("SmolLM2, rows of 1,024", 0.75, 0.62, 0.75, row=1024, **{**small, "batch": 1}),
        *pair("SmolLM2, chats with 20 % targets", 0.6, 0.6, 0.65, row=512, targets=0.2, **{**small, "batch": 2}),
        Line(Case("demo model", "fp32", DEMO, row=128, batch=4, steps=22), 0.4, 0.4),
        Line(Case("SmolLM2, one row of 4,096", "fp32", smollm2, row=4096, batch=1, steps=4), 0.8, 0.8),
    ]


def verdict(value: float, target: float | None, least: bool = False):
    if target is None:
        return ""
    met = value >= target if least else value <= target
    return f"{'>=' if least else '<='} {target:g}: {'met' if met else 'NOT REACHED'}"


def ms_of(rounds, side):
    return statistics.median(ms for each in rounds for ms in each[side]["ms"])


def tell(line: Line, rounds, avx2: bool):
    peers = [side for side in (PEER, COMPILED) if side in rounds[0]]
    best = min(peers, key=lambda side: ms_of(rounds, side))
    ratios = [ms_of([each], OURS) / ms_of([each], best) for each in rounds]
    ratio = ms_of(rounds, OURS) / ms_of(rounds, best)
    memory = max(each[OURS]["mib"] for each in rounds) / max(each[PEER]["mib"] for each in rounds)
    apart = abs(rounds[0][OURS]["loss"][0] / rounds[0][PEER]["loss"][0] - 1)
    print(f"| {line.case.name} | {ms_of(rounds, OURS):,.0f} ms | {ms_of(rounds, best):,.0f} ms"
          f"{' compiled' if best == COMPILED else ''} | {ratio:.3f} ({', '.join(f'{each:.3f}' for each in ratios)}) "
          f"{verdict(ratio, line.target_avx2 if avx2 else line.target)} | {memory:.2f} "
          f"{verdict(memory, MOST_MEMORY)} | {apart:.0e} |", flush=True)


def tell_alone(name: str, value: float, target: float | None, least: bool = False):
    print(f"| {name} | | | {value:.3f} {verdict(value, target, least)} | | |", flush=True)


def run(lines, arguments, folder: pathlib.Path, avx2: bool):
    ours = {}
    for line in lines:
        case = line.case
        sides = [OURS, PEER, *([COMPILED] if arguments.compile else [])]
        rounds = [{side: in_child(side, case, folder, 1) for side in sides} for _ in range(arguments.rounds)]
        tell(line, rounds, avx2)
        ours[case.name] = ms_of(rounds, OURS)
        if case.name.startswith("benchmark"):
            rate = in_child(RATE, case, folder, 1)
            least = {"fp32": 0.9, "bf16": None if avx2 else 0.75}[case.dtype]
            tell_alone(f"{case.name}: products alone ({rate['gflops']:.0f} GFLOP/s), share of the update",
                       rate["ms"][0] / ours[case.name], least, least=True)
    fp32, bf16 = (ours.get(f"benchmark, {dtype}") for dtype in ("fp32", "bf16"))
    if fp32 and bf16:
        tell_alone("benchmark, bf16 of our fp32", bf16 / fp32, None if avx2 else 0.55)
    if fp32:
        both = [in_child(RANKS, lines[0].case, folder, 2) for _ in range(arguments.rounds)]
        tell_alone("benchmark, fp32: throughput of two ranks of one thread, of one rank's",
                   fp32 / statistics.median(ms for each in both for ms in each["ms"]), 1.9, least=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="lines whose name has one of these words")
    parser.add_argument("--compile", action="store_true", help="the peer under torch.compile, too")
    arguments = parser.parse_args()
    import torch
    avx2 = "AVX512" not in torch.backends.cpu.get_cpu_capability()
    smollm2 = subprocess.run([ROOT / "scripts/models/smollm2.sh"], check=True, capture_output=True, text=True)
    lines = [line for line in lines_of(smollm2.stdout.strip())
             if not arguments.only or any(word in line.case.name for word in arguments.only)]
    print(name_of_the_cpu())
    print("| update | lorascale | transformers + peft | time, of the peer's (rounds) | peak memory, of the peer's | first "
          "loss apart |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        make_inputs(folder, [line.case for line in lines])
        run(lines, arguments, folder, avx2)


if __name__ == "__main__":
    main()
