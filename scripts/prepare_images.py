#!/usr/bin/env python3
"""Turns pictures into an image file for lorascale: decoded and resized once, then training needs no Python.

  prepare_images.py photos/ --size 64 --output data/train.h5 --validation data/val.h5
  prepare_images.py labels.csv --size 32x32 --channels 1 --output data/train.h5
  prepare_images.py test/ --classes-from data/train.h5 --output data/test.h5

INPUT is a folder that holds a folder for each class, with the pictures of it in it at any depth; or a table
(CSV or TSV, packed or not) with columns file and label, the files relative to the table.
A picture becomes u8 values in one or three channels: the first frame, turned as its EXIF data say, on the
background where it is transparent, scaled to --size. Without --size all pictures must be of one size.

Pictures that are equal then, pixel for pixel, are kept once; validation is chosen by each picture's own hash,
so none is on both sides, in whatever order, with however many workers. While it works, the decoded pictures
take their space on the disk twice.
"""

import argparse
import contextlib
import functools
import os
import re
import sys
import time
from pathlib import Path

from lorascale_data import report
from lorascale_data.command_line import (
    Parser,
    all_or_none,
    cannot_write,
    check_outputs,
    columns_of,
    number,
    one_line,
    run,
)
from lorascale_data.errors import USAGE, PrepareError
from lorascale_data.splitter import Splitter
from lorascale_images import decoding, image_file, listing, making, summary
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


def make_parser():
    parser = Parser(
        prog="prepare_images.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="a folder with a folder for each class, or a table")
    add("--output", required=True, type=Path, metavar="FILE.h5", help="the training set")
    add("--validation", type=Path, metavar="FILE.h5", help="split off a validation set into this file")
    add("--validation-fraction", type=number(float, 0.0, 1.0), metavar="X",
        help="share of the pictures for it (default: 0.1)")  # fmt: skip
    add("--seed", type=int, default=0, help="chooses which pictures those are (default: 0)")
    add("--size", type=size, metavar="N|WxH", help="scale pictures to this size")
    add("--fit", choices=decoding.FITS,
        help="scale until the size is covered and take the middle (crop), until all is within and fill up with the "
        "background (pad), or both sides by themselves (stretch; default: crop)")  # fmt: skip
    add("--channels", type=int, choices=(1, 3), help="1: grey, 3: red, green, blue (default: 3)")
    add("--background", type=colour, default="white", metavar="COLOUR",
        help="what is behind transparent pictures and beside padded ones (default: white)")  # fmt: skip
    add("--classes-from", type=Path, metavar="FILE.h5",
        help="take the classes and their order from an earlier image file, size and channels, too, unless they "
        "are given")  # fmt: skip
    add("--columns", metavar="MEANING=NAME,...", help="names of a table's columns: " + ", ".join(listing.COLUMNS))
    add("--no-quotes", action="store_true", help="in a table a quote is text, not the mark of a field")
    add("--deduplicate", action=argparse.BooleanOptionalAction, default=True,
        help="keep equal pictures once, and take none under two classes (default: on)")  # fmt: skip
    add("--skip-bad", action="store_true", help="count bad pictures and go on, instead of stopping")
    add("--workers", type=number(int, 1, 1024), metavar="N", help="processes (default: one per core)")
    add("--force", action="store_true", help="replace existing output files")
    return parser


def rules_of(options):
    channels, wanted, classes = options.channels, options.size, None
    if options.classes_from is not None:
        classes, (its_channels, height, width) = image_file.read_head(options.classes_from)
        channels, wanted = channels or its_channels, wanted or (width, height)
    if options.fit and not wanted:
        raise PrepareError(USAGE, "--fit needs --size N or WxH")
    shape = decoding.Shape(channels or 3, wanted, options.fit or "crop", options.background)
    return making.Rules(shape, classes, options.deduplicate, options.skip_bad)


def write_all(options, maker, outputs):
    writers = [image_file.ImageFileWriter(path) for path in outputs]
    fraction = 0.1 if options.validation_fraction is None else options.validation_fraction
    splitter = Splitter(fraction, options.seed) if options.validation else None
    with all_or_none(writers, options.force), contextlib.closing(report.Progress()) as progress:
        maker.run(writers, splitter, options.workers or len(os.sched_getaffinity(0)), progress)
    return writers


def tell(statistics, maker, writers, begin):
    for message in statistics.notes:
        print(f"prepare_images: warning: {one_line(message)}", file=sys.stderr)
    print("\n".join(map(one_line, summary.lines_of(statistics, maker, writers, time.monotonic() - begin))))


def refuse_pictures_as_outputs(outputs, found):
    """--force replaces image files, not what they are made of."""
    existing = {path.resolve(): path for path in outputs if path.exists()}
    for picture in found.pictures if existing else ():
        if (path := existing.get(Path(picture.path).resolve())) is not None:
            raise PrepareError(USAGE, f"{path}: is one of the pictures, choose another name")


def prepare(options):
    """Writes the files; what tells of them."""
    begin = time.monotonic()
    columns = columns_of(options.columns, tuple(listing.COLUMNS))
    try:
        earlier = [options.classes_from] if options.classes_from else []
        outputs = check_outputs(options, [options.input, *earlier])
        if options.input.is_dir() and (columns or options.no_quotes):
            raise PrepareError(USAGE, f"--columns and --no-quotes need a table, and {options.input} is a folder")
        rules = rules_of(options)
        statistics = making.Statistics(options.skip_bad)
        found = listing.find(options.input, columns, not options.no_quotes, statistics.note_bad)
        refuse_pictures_as_outputs(outputs, found)
        maker = making.Maker(found, rules, statistics)
        writers = write_all(options, maker, outputs)
    except OSError as error:
        raise cannot_write(error, options.output) from error
    return functools.partial(tell, statistics, maker, writers, begin)


def main(arguments=None):
    return run("prepare_images", lambda: prepare(make_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
