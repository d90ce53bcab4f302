"""Launches and synchronisations of a running program, update by update (count.c)."""
import pathlib
import time

import numpy as np

from . import machine

NAMES = ("reports", "other", "launches", "graphs", "waits", "copies", "managed", "allocations")


def environment(day, file: pathlib.Path):
    site = machine.site_packages()
    return {"CUDA_INJECTION64_PATH": day.package / "libcount.so", "LORASCALE_COUNT_FILE": file,
            "LORASCALE_CUPTI": site / "nvidia/cu13/lib/libcupti.so.13" if site else "libcupti.so.13"}


def snapshot(file: pathlib.Path):
    """{name: count so far}; None where nothing is counted."""
    try:
        values = np.fromfile(file, np.uint64, len(NAMES))
    except OSError:
        return None
    return dict(zip(NAMES, map(int, values))) if len(values) == len(NAMES) and values[0] else None


def watch(process, metrics: pathlib.Path, file: pathlib.Path, seconds: float):
    """[(time, counts) when the line of an update came], until the process ends or the time is over. What the program
    does between its update and our look is counted to that update: one in a thousand at updates of a second."""
    seen, lines, begin = [], 0, time.monotonic()
    while process.poll() is None and time.monotonic() - begin < seconds:
        now = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if now > lines:
            seen += [(time.monotonic(), snapshot(file))] * (now - lines)
            lines = now
        time.sleep(0.0005)
    return seen


def per_update(seen, warm_up):
    """Means over the updates after `warm_up`; None where nothing was counted."""
    if len(seen) < warm_up + 2 or seen[warm_up][1] is None or seen[-1][1] is None:
        return None
    updates = len(seen) - 1 - warm_up
    return {name: (seen[-1][1][name] - seen[warm_up][1][name]) / updates for name in NAMES[2:]}


def interval_ms(seen, warm_up):
    """Mean time between the lines of updates after `warm_up`, on our clock."""
    if len(seen) < warm_up + 2:
        return None
    return 1000 * (seen[-1][0] - seen[warm_up][0]) / (len(seen) - 1 - warm_up)
