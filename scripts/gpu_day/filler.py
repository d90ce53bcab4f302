"""Another program that fills the card: takes plain memory until KEEP MiB are free, says so, holds it until its input
ends (also with the death of who started it), and gives it back.

    python -m gpu_day.filler KEEP
"""
import sys


SLACK, MOST = 64 << 20, 8 << 30


def fill(keep, free, take):
    """Takes pieces until `free()` is at most SLACK above `keep`; returns them. No step goes below `keep`."""
    held = []
    while free() - keep > SLACK:
        held.append(take(min(free() - keep, MOST)))
    return held


def main():
    import torch

    def free():
        return torch.cuda.mem_get_info()[0]

    torch.empty(1, device="cuda")  # the context takes memory, too
    held = fill(int(float(sys.argv[1]) * 2 ** 20), free,
                lambda size: torch.empty(size, dtype=torch.uint8, device="cuda"))
    print(free() // 2 ** 20, flush=True)
    sys.stdin.read()
    del held


if __name__ == "__main__":
    main()
