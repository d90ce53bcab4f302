"""The keys that shape the pictures, as options of prepare_images.py."""

import re

from lorascale_captions import sidecars
from lorascale_images.command import MAX_SIDE

from .document import count, flag

# What keys that are not there mean here, which need not be what they mean in the trainer they come from.
DEFAULTS = {"resolution": "512", "enable_bucket": "true", "bucket_no_upscale": "true"}
STEP = 64


def options(document):
    def switch(name):
        return flag(document.find(name))

    found, step = [], count(document.find("bucket_reso_steps"), 1, MAX_SIDE) or STEP
    low, high = (count(document.find(f"{end}_bucket_reso"), 1, 1 << 16) for end in ("min", "max"))
    given = document.find("resolution")
    if given is not None:
        found += ["--resolution", _size(given)]
    found += ["--bucket-step", str(step)]
    if switch("enable_bucket") is False:
        found += ["--no-buckets", "--upscale"]  # sd-scripts scales every picture to the one size
    else:
        # To multiples of the step, as sd-scripts does.
        found += ["--bucket-min", str(max(step, low - low % step))] if low else []
        found += ["--bucket-max", str(-(-high // step) * step)] if high else []
        found += ["--upscale"] if switch("bucket_no_upscale") is False else []
    found += ["--repeats", str(repeats)] if (repeats := _repeats(document)) else []
    if any([switch("random_crop"), switch("data.augment.crop")]):
        found += ["--keep-margin"]
    if any([switch("alpha_mask"), switch("masked_loss"), switch("data.masked")]):
        found += ["--masks"]
    switch("center_crop")  # what is done anyway; but what is neither true nor false is refused
    return found


def _repeats(document):
    return count(document.find("dataset_repeats"), 1, sidecars.MAX_REPEATS)


def _size(given):
    """N or WxH of N, "W,H", "WxH" and [W, H]."""
    value = ",".join(given.value) if isinstance(given.value, list) and all(
        isinstance(side, str) for side in given.value) else given.value  # fmt: skip
    match = re.fullmatch(r"\s*([0-9]{1,5})(?:\s*[,x]\s*([0-9]{1,5}))?\s*", value) if isinstance(value, str) else None
    sides = [int(side) for side in match.groups() if side] if match else [0]
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise given.refused(f"no size up to {MAX_SIDE}, such as 512 or 512,768")
    return "x".join(map(str, sides))


def left(document):
    names = [name for name in DEFAULTS if document.find(name) is None]
    if flag(document.find("enable_bucket")) is False and "bucket_no_upscale" in names:
        names.remove("bucket_no_upscale")
    return ", ".join(f"{name} {DEFAULTS[name]}" for name in names)
