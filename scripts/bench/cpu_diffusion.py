"""A LoRA update of Stable Diffusion 1.5's shape on this CPU, lorascale beside a plain loop of diffusers + peft.

    $(scripts/setup.sh --print-python) scripts/bench/cpu_diffusion.py [--rounds 3] [--size 512] [--tiny]
        [--dtype fp32|bf16] [--only ours|peer]

Random weights (made once, in ~/.cache/lorascale/models), batch 1, LoRA of rank 16 on the UNet's attention. --tiny: a UNet
of 5 million parameters, 64 pixels, batch 32. One thread pinned to one core a side, in turn, round after round; ratios are
of medians over all rounds, with those of the rounds behind them. Timed are updates after the first epoch, in which
lorascale encodes the pictures; the peer is given latents, captions, noise and times. Time of the CPU is what other
programs on the same core disturb less; shares are of it. Memory is the most that was resident, of lorascale with text
encoder and autoencoder, also while it encodes, of the peer with its UNet alone. `products alone` is what the products of
the frozen weights and the attention of an update take by themselves, each by the fastest of libtorch's ways.
"""
import argparse
import pathlib
import statistics
import tempfile

from cpu_diffusion_sides import INPUTS, MODEL, OURS, PEER, RATE, Case, in_child
from cpu_sides import name_of_the_cpu


def case_of(arguments):
    batch, timed, warm_up = (32, 8, 2) if arguments.tiny else (1, 2, 2)
    return Case(arguments.tiny, arguments.size or (64 if arguments.tiny else 512), batch, arguments.micro or batch,
                arguments.dtype, warm_up + (arguments.updates or timed), pictures=max(batch, warm_up), warm_up=warm_up)


def ms_of(rounds, side):
    return statistics.median(ms for each in rounds for ms in each[side]["ms"])


def cpu_of(rounds, side):
    return statistics.median(each[side]["cpu_ms"] for each in rounds)


def most_of(rounds, side):
    return max(each[side]["mib"] for each in rounds)


def ratio(of, rounds):
    each = ", ".join(f"{of([one], OURS) / of([one], PEER):.3f}" for one in rounds)
    return f"{of(rounds, OURS) / of(rounds, PEER):.3f} (rounds: {each})"


def tell_sides(rounds):
    for side in rounds[0]:
        each = ", ".join(f"{ms_of([one], side):,.1f}" for one in rounds)
        print(f"{side:17} {ms_of(rounds, side):10,.1f} ms an update (rounds: {each}), "
              f"{cpu_of(rounds, side):,.1f} ms of the CPU, {most_of(rounds, side):,.0f} MiB at most, "
              f"first loss {rounds[0][side]['loss'][0]:.6f}")
    if len(rounds[0]) == 2:
        for name, of in (("time", ms_of), ("of the CPU", cpu_of), ("memory", most_of)):
            print(f"of the peer's: {name} {ratio(of, rounds)}")
        print(f"first losses {abs(rounds[0][OURS]['loss'][0] / rounds[0][PEER]['loss'][0] - 1):.0e} apart", flush=True)


def tell_rate(rate, rounds):
    ms, operations = (sum(values) for values in zip(*rate.values()))

    def line(name, time, count):
        return f"{name:17} {time:10,.1f} ms of the CPU: {count / 1e12:.3f} TFLOP at {count / time / 1e6:.1f} GFLOP/s"

    shares = ", ".join(f"{ms / cpu_of(rounds, side):.3f} of an update of {side}" for side in rounds[0])
    print(f"{line('products alone', ms, operations)}; {shares}")
    for kind, (time, count) in rate.items():
        print(line("  " + kind, time, count))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, help="of the pictures, in pixels (default: 512, with --tiny 64)")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", choices=["ours", "peer"])
    parser.add_argument("--micro", type=int, help="batch.micro of lorascale (default: the batch)")
    parser.add_argument("--updates", type=int, help="that are timed (default: 2, with --tiny 8)")
    parser.add_argument("--no-rate", action="store_true", help="do not time the products alone")
    arguments = parser.parse_args()
    case = case_of(arguments)
    print(name_of_the_cpu())
    model = "tiny model" if case.tiny else "SD 1.5, random weights"
    print(f"{model}, {case.size} px, batch {case.batch}, {case.dtype}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        in_child(MODEL, case, folder)
        in_child(INPUTS, case, folder)
        sides = {"ours": [OURS], "peer": [PEER], None: [OURS, PEER]}[arguments.only]
        rounds = [{side: in_child(side, case, folder) for side in sides} for _ in range(arguments.rounds)]
        tell_sides(rounds)
        if not arguments.no_rate:
            tell_rate(in_child(RATE, case, folder), rounds)


if __name__ == "__main__":
    main()
