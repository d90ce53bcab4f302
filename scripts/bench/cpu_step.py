"""One LoRA update on the CPU, lorascale beside transformers + peft: time, peak memory, time to the first update.

    $(scripts/setup.sh --print-python) scripts/bench/cpu_step.py [--dtype fp32 bf16] [--steps 8] [--threads 1]

Shape: d 512, 8 layers, 8 heads (4 kv), ffn 1408, vocabulary 32000; rows of 256 tokens, micro-batch 8, r 16 on all
linear layers, AdamW. All sides start from the same weights and see the same tokens, one after the other, round after
round, in each dtype of the base: lorascale on one rank with all threads, lorascale on one rank per thread where there
are several, transformers + peft. One thread is pinned to one core, for on shared cores the figures of several mean
little. Medians over the updates after two warm-ups; memory is the peak of the process (of the largest one).
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 in the environment give all sides the paths of an older CPU. The whole
table of shapes: cpu_table.py.
"""
import argparse
import pathlib
import statistics
import tempfile

from cpu_sides import OURS, PEER, RANKS, Case, in_child, make_inputs, name_of_the_cpu


def tell(dtype: str, rounds, sides, threads: int):
    ms = {side: statistics.median(m for each in rounds for m in each[side]["ms"]) for side in sides}
    mib = {side: max(each[side]["mib"] for each in rounds) for side in sides}
    for side in sides:
        print(f"{dtype} {side:28} {ms[side]:9.1f} ms per update, peak {mib[side]:7.0f} MiB")
    print(f"{dtype} time    {ratio_of(rounds):.3f} of the peer's (rounds: "
          f"{', '.join(f'{ratio_of([each]):.3f}' for each in rounds)})")
    print(f"{dtype} memory  {mib[OURS] / mib[PEER]:.3f} of the peer's")
    if RANKS in sides:
        print(f"{dtype} ranks   {ms[OURS] / ms[RANKS]:.3f} of the throughput of one rank, with {threads} ranks of one "
              f"thread instead of one rank of {threads}")
    for side in sides[:-1]:
        waits = rounds[0][side]["waits"]
        print(f"{dtype} waits   {side}: loader {waits['data_wait']:.2%}, other ranks {waits['idle']:.2%}, all-reduce "
              f"{waits['reduce']:.2%} of the step")
    losses = rounds[0][OURS]["loss"], rounds[0][PEER]["loss"]
    apart = [abs(mine / other - 1) for mine, other in zip(*losses, strict=True)]
    print(f"{dtype} start   {min(each[OURS]['start_s'] for each in rounds):.2f} s until the first update is on record, "
          f"itself included ({min(each[OURS]['first_ms'] for each in rounds) / 1000:.2f} s)")
    print(f"{dtype} losses  differ from the peer's by {apart[0]:.1e} at first, {max(apart):.1e} at most in "
          f"{len(apart)} updates (relative)")
    return ms[OURS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    arguments = parser.parse_args()
    sides = (OURS, RANKS, PEER) if arguments.threads > 1 else (OURS, PEER)
    print(name_of_the_cpu())
    cases = {dtype: Case(dtype, dtype, steps=arguments.steps) for dtype in arguments.dtype}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        make_inputs(folder, cases.values())
        rounds = [{dtype: {side: in_child(side, case, folder, arguments.threads) for side in sides}
                   for dtype, case in cases.items()} for _ in range(arguments.rounds)]
    medians = [tell(dtype, [each[dtype] for each in rounds], sides, arguments.threads) for dtype in arguments.dtype]
    if arguments.dtype == ["fp32", "bf16"]:
        print(f"bf16    {medians[1] / medians[0]:.3f} of the time of fp32")


def ratio_of(rounds):
    medians = [statistics.median(ms for each in rounds for ms in each[side]["ms"]) for side in (OURS, PEER)]
    return medians[0] / medians[1]


if __name__ == "__main__":
    main()
