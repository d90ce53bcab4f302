#!/usr/bin/env python3
"""Writes captions for a folder of pictures into FOLDER/metadata.csv (file_name,text), for prepare_images.py.

  auto_label.py photos/ --model models/blip --prefix "sks dog"
  auto_label.py photos/ --model models/blip --prompt "a drawing of" --beams 5
  auto_label.py photos/ --model models/clip --tags "indoors,outdoors,night,snow" --top 2 --threshold 0.2

The model is a folder on this machine; nothing is downloaded. Its config.json says what it is: BLIP writes captions,
CLIP chooses from the given tags. Pictures that have a caption in metadata.csv are passed over, so that the same
command goes on after Ctrl-C, and what you wrote or edited there stays as it is.
"""

import argparse
import contextlib
import functools
import importlib
import signal
import sys
import time
from pathlib import Path

from lorascale_data import report
from lorascale_data.command_line import Parser, cannot_write, number, one_line, run
from lorascale_data.errors import BAD_INPUT, USAGE, PrepareError
from lorascale_labels import labelling, models, texts
from lorascale_labels.captions import Captions, alone_in, digest

# The options of one kind of model alone, and what they are unless given.
OPTIONS = {
    "blip": {"prompt": "", "beams": 3, "max_tokens": 30},
    "clip": {"tags": None, "top": 5, "threshold": 0.0},
}


def make_parser():
    parser = Parser(
        prog="auto_label.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="the pictures, at any depth; metadata.csv is written into it")
    add("--model", required=True, type=Path, metavar="FOLDER", help="a BLIP model for captions, or a CLIP model")
    add("--prefix", default="", metavar="TEXT", help='put first into each caption, such as a trigger word: "TEXT, ..."')
    add("--batch", type=number(int, 1, 4096), default=8, metavar="N",
        help="pictures at once, saved after each batch (default: 8)")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one (default)")
    add("--replace-own", action="store_true",
        help="make anew what this program wrote by other options or another model, and nobody edited")  # fmt: skip
    add("--skip-bad", action="store_true", help="count bad pictures and go on, instead of stopping")
    blip = parser.add_argument_group("BLIP")
    blip.add_argument("--prompt", metavar="TEXT", help='how captions begin, such as "a photo of"')
    blip.add_argument("--beams", type=number(int, 1, 64), metavar="N", help="of the search; 1: greedy (default: 3)")
    blip.add_argument("--max-tokens", type=number(int, 1, 512), metavar="N",
        help="longest caption, without the prompt (default: 30)")  # fmt: skip
    clip = parser.add_argument_group("CLIP")
    clip.add_argument("--tags", metavar="FILE|A,B,C", help="what to choose from: a file of one a line, or themselves")
    clip.add_argument("--top", type=number(int, 1, 1000), metavar="N", help="at most so many of a picture (default: 5)")
    clip.add_argument("--threshold", type=number(float, 0.0, 1.0), metavar="P",
        help="only tags of this probability, which all tags share (default: 0)")  # fmt: skip
    return parser


def chosen(options, kind):
    """{option: value} of the model's kind."""
    for other in OPTIONS.keys() - {kind}:
        refuse_options_of(other, options, kind)
    if kind == "clip" and options.tags is None:
        raise PrepareError(USAGE, f"{options.model} is CLIP, which chooses from given tags: give --tags FILE or a,b,c")
    given = {name: getattr(options, name) for name in OPTIONS[kind]}
    result = {name: OPTIONS[kind][name] if value is None else value for name, value in given.items()}
    if kind == "clip":
        return {**result, "tags": texts.tags_of(result["tags"])}
    return {**result, "prompt": texts.flat(result["prompt"])}


def refuse_options_of(other, options, kind):
    for name in OPTIONS[other]:
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise PrepareError(
                USAGE, f"{option} is for {other.upper()}, and {options.model} is {kind.upper()}: omit it"
            )


def how_made(options, kind, settings, prefix):
    """A function of a picture's name: the digest of all that decides on its caption."""
    common = [kind, settings, prefix, models.fingerprint(options.model)]

    @functools.cache
    def of(name):
        found = (options.folder / name).lstat()
        return digest([common, found.st_size, found.st_mtime_ns])

    return of


def make_captioner(options, kind, settings):
    device = models.device_of(options.device)
    model, processor = models.load(options.model, kind, device)
    maker = importlib.import_module(f"lorascale_labels.{kind}")
    return labelling.Guarded(maker.Captioner(model, processor, **settings), options.model, device, options.batch)


def label(options, statistics):
    """Writes the captions; what tells of them."""
    begin = time.monotonic()
    kind = models.kind_of(options.model)
    settings, prefix = chosen(options, kind), texts.flat(options.prefix).rstrip(", ")
    if not options.folder.is_dir():
        raise PrepareError(BAD_INPUT, f"{options.folder}: there is no such folder, check the path")
    with alone_in(options.folder):
        captions = Captions(options.folder, options.replace_own)
        how = how_made(options, kind, settings, prefix)
        labeller = labelling.Labeller(options.folder, captions, how, statistics)
        todo = labeller.plan()
        if todo:
            captioner = make_captioner(options, kind, settings)
            with contextlib.closing(report.Progress()) as progress:  # its clock does not count the loading
                labeller.run(todo, captioner, prefix, options.batch, progress)
    return lambda: tell(statistics, captions.path, time.monotonic() - begin)


def tell(statistics, path, seconds):
    for note in statistics.notes:
        print(f"auto_label: warning: {one_line(note)}", file=sys.stderr)
    print("\n".join(labelling.summary(statistics, path, seconds)))


def resumable(options):
    """As label, but an interrupt says that nothing is lost."""
    statistics = labelling.Statistics(options.skip_bad)
    try:
        return label(options, statistics)
    except KeyboardInterrupt as error:
        code = 128 + (error.args[0] if error.args else signal.SIGINT)
        saved = f"{statistics.written:,} new captions are saved; the same command goes on"
        raise PrepareError(code, f"interrupted, {saved}") from error
    except OSError as error:
        raise cannot_write(error, options.folder) from error


def main(arguments=None):
    return run("auto_label", lambda: resumable(make_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
