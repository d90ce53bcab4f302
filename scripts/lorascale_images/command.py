"""What the command line of both kinds of image files shares: converters of options, and the writing of all files."""

import argparse
import contextlib
import os
import re

from lorascale_data import report
from lorascale_data.command_line import all_or_none
from lorascale_data.splitter import Splitter
from PIL import ImageColor

MAX_SIDE = 8192


def size(text):
    """(width, height) of N or WxH."""
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise argparse.ArgumentTypeError(f"{text} is no size, such as 64 or 96x64, up to {MAX_SIDE}")
    return sides


def colour(text):
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no colour, such as white or #ffcc00") from None


def fraction_of(options):
    return 0.1 if options.validation_fraction is None else options.validation_fraction


def write_all(options, maker, writers, others=()):
    """Has `maker` write the files; they and `others`, which it knows, get their names together."""
    splitter = Splitter(fraction_of(options), options.seed) if options.validation else None
    with all_or_none([*writers, *others], options.force), contextlib.closing(report.Progress()) as progress:
        maker.run(writers, splitter, options.workers or len(os.sched_getaffinity(0)), progress)
