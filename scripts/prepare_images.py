#!/usr/bin/env python3
"""Turns pictures into an image file for lorascale: decoded and resized once, then training needs no Python.

  prepare_images.py photos/ --size 64 --output data/train.h5 --validation data/val.h5
  prepare_images.py labels.csv --size 32x32 --channels 1 --output data/train.h5
  prepare_images.py test/ --classes-from data/train.h5 --output data/test.h5
  prepare_images.py drawings/ --model sd15/ --resolution 512 --output data/drawings.h5 --sheet sheet.png

INPUT is a folder that holds a folder for each class, with the pictures of it in it at any depth; or a table
(CSV or TSV, packed or not) with columns file and label, the files relative to the table.

With --model or --tokenizer the pictures have captions in place of classes, for Stable Diffusion. INPUT is then a
folder with metadata.csv or metadata.jsonl (file_name and text), or with a caption beside each picture
(NAME.txt), in folders N_class where each is shown N times; see docs/captioned-images.md.

To learn classes, a picture becomes u8 values in one or three channels: the first frame, turned as its EXIF data
say, on the background where it is transparent, scaled to --size. Without --size all pictures must be of one size.

Pictures that are equal then, pixel for pixel, are kept once; validation is chosen by each picture's own hash,
so none is on both sides, in whatever order, with however many workers. While it works, the decoded pictures
take their space on the disk twice.
"""

import argparse
import functools
import itertools
import sys
import time
from pathlib import Path

from lorascale_captions import captioning
from lorascale_data.command_line import Parser, cannot_write, check_outputs, columns_of, number, one_line, run
from lorascale_data.errors import USAGE, PrepareError
from lorascale_images import decoding, image_file, listing, making, summary
from lorascale_images.command import colour, size, write_all


def make_parser():
    """(parser, the options for classes alone, the options for captions alone)"""
    parser = Parser(
        prog="prepare_images.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="a folder or a table, see above")
    add("--output", required=True, type=Path, metavar="FILE.h5", help="the training set")
    add("--validation", type=Path, metavar="FILE.h5", help="split off a validation set into this file")
    add("--validation-fraction", type=number(float, 0.0, 1.0), metavar="X",
        help="share of the pictures for it (default: 0.1)")  # fmt: skip
    add("--seed", type=int, default=0, help="chooses which pictures those are (default: 0)")
    add("--background", type=colour, default="white", metavar="COLOUR",
        help="what is behind transparent pictures and beside padded ones (default: white)")  # fmt: skip
    add("--columns", metavar="MEANING=NAME,...",
        help=f"names of a table's columns: {', '.join(listing.COLUMNS)}; with captions: "
        f"{', '.join(captioning.COLUMNS)}")  # fmt: skip
    add("--no-quotes", action="store_true", help="in a table a quote is text, not the mark of a field")
    add("--deduplicate", action=argparse.BooleanOptionalAction, default=True,
        help="keep equal pictures once, and take none under two classes (default: on)")  # fmt: skip
    add("--skip-bad", action="store_true", help="count bad pictures and go on, instead of stopping")
    add("--workers", type=number(int, 1, 1024), metavar="N", help="processes (default: one per core)")
    add("--force", action="store_true", help="replace existing output files")
    return parser, add_class_arguments(parser), captioning.add_arguments(parser)


def add_class_arguments(parser):
    add = parser.add_argument_group("to learn classes").add_argument
    return [
        add("--size", type=size, metavar="N|WxH", help="scale pictures to this size"),
        add("--fit", choices=decoding.FITS,
            help="scale until the size is covered and take the middle (crop), until all is within and fill up with "
            "the background (pad), or both sides by themselves (stretch; default: crop)"),
        add("--channels", type=int, choices=(1, 3), help="1: grey, 3: red, green, blue (default: 3)"),
        add("--classes-from", type=Path, metavar="FILE.h5",
            help="take the classes and their order from an earlier image file, size and channels, too, unless they "
            "are given"),
    ]  # fmt: skip


def parsed(arguments):
    """The options; those of the other kind of pictures are refused."""
    parser, of_classes, of_captions = make_parser()
    options, rest = parser.parse_known_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    for switch, word in itertools.pairwise(words) if rest else ():
        if switch.startswith("--") and word.lower() in ("true", "false", "yes", "no", "on", "off"):
            parser.error(f"{switch} takes no value, remove {word}: it is on where it is given")
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    wrong, remedy = of_captions, "is for pictures with captions: give --model or --tokenizer, too"
    if captioning.is_asked_for(options):
        wrong, remedy = of_classes, "is for classes: with captions there is --resolution"
    for action in wrong:
        if getattr(options, action.dest) != action.default:
            raise PrepareError(USAGE, f"{action.option_strings[0]} {remedy}")
    return options


def rules_of(options):
    channels, wanted, classes = options.channels, options.size, None
    if options.classes_from is not None:
        classes, (its_channels, height, width) = image_file.read_head(options.classes_from)
        channels, wanted = channels or its_channels, wanted or (width, height)
    if options.fit and not wanted:
        raise PrepareError(USAGE, "--fit needs --size N or WxH")
    shape = decoding.Shape(channels or 3, wanted, options.fit or "crop", options.background)
    return making.Rules(shape, classes, options.deduplicate, options.skip_bad)


def tell(statistics, lines_of, begin):
    for message in statistics.notes:
        print(f"prepare_images: warning: {one_line(message)}", file=sys.stderr)
    print("\n".join(map(one_line, lines_of(time.monotonic() - begin))))


def prepare_classes(options):
    """Writes the files; (what happened, what gives the lines that tell of them)."""
    columns = columns_of(options.columns, tuple(listing.COLUMNS))
    earlier = [options.classes_from] if options.classes_from else []
    outputs = check_outputs(options, [options.input, *earlier])
    if options.input.is_dir() and (columns or options.no_quotes):
        raise PrepareError(USAGE, f"--columns and --no-quotes need a table, and {options.input} is a folder")
    rules = rules_of(options)
    statistics = making.Statistics(options.skip_bad)
    found = listing.find(options.input, columns, not options.no_quotes, statistics.note_bad)
    listing.refuse_as_outputs(outputs, found.pictures)
    maker = making.Maker(found, rules, statistics)
    writers = [image_file.ImageFileWriter(path) for path in outputs]
    write_all(options, maker, writers)
    return statistics, functools.partial(summary.lines_of, statistics, maker, writers)


def prepare(options):
    """Writes the files; what tells of them."""
    begin = time.monotonic()
    try:
        make = captioning.prepare if captioning.is_asked_for(options) else prepare_classes
        statistics, lines_of = make(options)
    except OSError as error:
        raise cannot_write(error, options.output) from error
    return functools.partial(tell, statistics, lines_of, begin)


def main(arguments=None):
    return run("prepare_images", lambda: prepare(parsed(arguments)))


if __name__ == "__main__":
    sys.exit(main())
