"""Numbers and text as people read them, the same in the terminal, on the page and in the picture."""

import math
import re

# Everything that could move a terminal's cursor or hide text; line ends and tabs are handled by whoever prints.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def harmless(text):
    """Text of a model or a file, without control characters."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n").replace("\t", " "))


def count(number):
    return f"{number:,.0f}"


def rate(number):
    return "-" if number is None else f"{number:.3g}"


def duration(seconds):
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    if seconds < 5400:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds // 60 % 60:02d} min"


def perplexity(loss):
    return f"{math.exp(loss):.2f}" if loss < 20 else "beyond 10^8"


def change(before, after):
    """+3.1 % or -12.0 %"""
    return f"{100 * (after - before) / before:+.1f} %" if before else "-"


def ranks_of(updates):
    """2, or "2, then 4" where the number of ranks changed on the way."""
    seen = []
    for update in updates:
        size = update.get("world_size")
        if size is not None and (not seen or seen[-1] != size):
            seen.append(size)
    if len(seen) > 4:
        return f"{min(seen)} to {max(seen)}"
    return ", then ".join(map(str, seen)) or "-"


def moment(picture):
    """When in the run a picture was made."""
    if picture.when == "before":
        return "before training"
    if picture.when == "after":
        return "after training" if picture.step is not None else "after an earlier end"
    return f"update {count(picture.step)}"


def share(value):
    return f"{100 * value:.2f} %"


def speed(run):
    """Tokens or images a second, over all updates."""
    what = "images/s" if run.of_images else "tokens/s"
    return f"{run.units / run.training_seconds:,.0f} {what}" if run.training_seconds > 0 else "-"
