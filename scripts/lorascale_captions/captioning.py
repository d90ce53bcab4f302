"""The command line of pictures with captions."""

import argparse
import functools
import json
from pathlib import Path

from lorascale_data.command_line import check_outputs, columns_of, number
from lorascale_data.errors import BAD_INPUT, CANNOT_WRITE, USAGE, PrepareError
from lorascale_images import listing
from lorascale_images.command import MAX_SIDE, fraction_of, size, write_all

from . import layouts, metadata, sidecars, summary, tags, texts, tokenizing, vocabulary
from .buckets import Buckets
from .captioned_file import CaptionedFileWriter
from .making import Maker, Plan, Statistics
from .pixels import Rules
from .sheet import SheetWriter

COLUMNS = tuple(metadata.NAMES)
DEFAULT_RESOLUTION, DEFAULT_STEP = (512, 512), 64
_side = number(int, 1, MAX_SIDE)


def is_asked_for(options):
    return options.model is not None or options.tokenizer is not None


def extension(text):
    if not text.startswith(".") or "/" in text or len(text) < 2:
        raise argparse.ArgumentTypeError(f"{text} is no extension, such as .txt or .caption")
    return text


def add_arguments(parser):
    """The options, as argparse's actions."""
    group = parser.add_argument_group("pictures with captions (--model or --tokenizer)")
    add, add_one = group.add_argument, group.add_mutually_exclusive_group().add_argument
    return [
        add_one("--model", type=Path, metavar="FOLDER", help="the model in diffusers' form, whose tokenizers are used"),
        add_one("--tokenizer", type=Path, metavar="PATH",
            help=f"a tokenizer's folder (vocab.json and merges.txt, or tokenizer.json), or {vocabulary.BPE_FILE}"),
        add("--resolution", type=size, metavar="N|WxH",
            help="the area of the buckets, pictures of one form each (default: 512)"),
        add("--bucket-step", type=_side, metavar="N", help="sides of buckets are multiples of it (default: 64)"),
        add("--bucket-min", type=_side, metavar="N", help="their shortest side (default: half the resolution)"),
        add("--bucket-max", type=_side, metavar="N", help="their longest side (default: twice the resolution)"),
        add("--no-buckets", action="store_true", help="the middle of each picture, all of the size --resolution"),
        add("--upscale", action="store_true", help="enlarge pictures that are smaller than their buckets"),
        add("--keep-margin", action="store_true",
            help="keep what lies beside the bucket, so that training can cut anywhere"),
        add("--masks", action="store_true", help="keep how opaque a picture is as weight of the loss"),
        add("--caption-extension", type=extension, default=".txt", metavar=".EXT",
            help="of the captions beside the pictures (default: .txt)"),
        add("--caption-encoding", choices=texts.ENCODINGS, default=texts.UTF8, metavar="NAME",
            help=f"of all captions: {', '.join(texts.ENCODINGS)} (default: utf-8)"),
        add("--prefix", default="", metavar="TEXT", help="put before each caption: TEXT, CAPTION"),
        add("--repeats", type=number(int, 1, sidecars.MAX_REPEATS), default=1, metavar="N",
            help="how often an epoch shows pictures that lie in no folder N_class (default: 1)"),
        add("--regularisation", type=Path, metavar="FOLDER",
            help="more pictures, for prior preservation; they get neither --prefix nor --repeats"),
        add("--sheet", type=Path, metavar="FILE.png", help="a sheet of what the model will see, for you to look at"),
    ]  # fmt: skip


def prepare(options):
    """Writes the files; (what happened, what gives the lines that tell of them)."""
    inputs = [options.input, *([options.regularisation] if options.regularisation else [])]
    if options.regularisation and options.regularisation.resolve().is_relative_to(options.input.resolve()):
        raise PrepareError(USAGE, f"{options.regularisation}: lies in {options.input}, move it out of it")
    outputs = check_outputs(options, inputs)
    check_sheet(options, [*outputs, *inputs])
    rules = rules_of(options)
    tokenizer, second_pad = tokenizer_of(options)
    statistics = Statistics(options.skip_bad)
    entries = layouts.find_all(options.input, options.regularisation, reading_of(options), statistics)
    statistics.refuse_bad()
    listing.refuse_as_outputs([*outputs, *([options.sheet] if options.sheet else [])], entries)
    entries, captions = tokenised(entries, tokenizer, statistics)
    plan = Plan(rules, attributes_of(options, rules, tokenizer, second_pad), options.deduplicate)
    writers = [CaptionedFileWriter(path) for path in outputs]
    sheet = SheetWriter(options.sheet) if options.sheet else None
    maker = Maker(entries, captions, plan, statistics, sheet)
    write_all(options, maker, writers, [sheet] if sheet else [])
    return statistics, functools.partial(summary.lines_of, statistics, writers, sheet)


def check_sheet(options, others):
    sheet = options.sheet
    if sheet is None:
        return
    if sheet.resolve() in {path.resolve() for path in others}:
        raise PrepareError(USAGE, f"{sheet}: is --sheet and another file of this run, choose another name")
    if sheet.is_dir():
        raise PrepareError(CANNOT_WRITE, f"{sheet}: is a folder, give the name of a file")
    if sheet.exists() and not options.force:
        raise PrepareError(CANNOT_WRITE, f"{sheet}: exists, --force replaces it")
    sheet.parent.mkdir(parents=True, exist_ok=True)


def rules_of(options):
    resolution, step = options.resolution or DEFAULT_RESOLUTION, options.bucket_step or DEFAULT_STEP
    if min(resolution) < step:
        raise PrepareError(USAGE, f"--resolution is smaller than --bucket-step {step}, give a smaller step")
    if options.no_buckets:
        for name in ("bucket_min", "bucket_max"):
            if getattr(options, name) is not None:
                raise PrepareError(USAGE, f"--{name.replace('_', '-')} has no meaning with --no-buckets, leave it out")
        if any(side % step for side in resolution):
            raise PrepareError(USAGE, f"with --no-buckets --resolution must be of multiples of --bucket-step {step}")
    smallest = options.bucket_min or max(step, (min(resolution) + step) // (2 * step) * step)
    largest = options.bucket_max or (4 * max(resolution) + step) // (2 * step) * step
    if smallest % step or largest % step:
        raise PrepareError(USAGE, f"--bucket-min and --bucket-max must be multiples of --bucket-step {step}")
    if not smallest <= min(resolution) or not max(resolution) <= largest:
        raise PrepareError(
            USAGE, f"--bucket-min {smallest} and --bucket-max {largest} must have --resolution between them"
        )
    buckets = Buckets(resolution, step, smallest, largest, options.no_buckets, options.upscale)
    return Rules(buckets, options.background, options.masks, options.keep_margin)


def reading_of(options):
    return layouts.Reading(
        options.caption_extension,
        options.caption_encoding,
        columns_of(options.columns, COLUMNS),
        not options.no_quotes,
        options.repeats,
        options.prefix.strip(),
    )


def tokenizer_of(options):
    if options.model is not None:
        return tokenizing.of_model(options.model)
    return tokenizing.Tokenizer(options.tokenizer), None


def tokenised(entries, tokenizer, statistics):
    """(entries, their captions.Captions) without those that spell a token which begins or ends a text."""
    captions = tags.Captions(tokenizer, [entry.caption for entry in entries])
    if not captions.foreign:
        return entries, captions
    for row in captions.foreign:
        message = "the caption has a character or word that the tokenizer reads as the end of a text, change it"
        statistics.note_bad(entries[row].path, message)
    statistics.refuse_bad()
    wrong = set(captions.foreign)
    left = [entry for row, entry in enumerate(entries) if row not in wrong]
    if not left:
        raise PrepareError(BAD_INPUT, f"no picture is good, the first of them: {statistics.bad_examples[0]}")
    return left, tags.Captions(tokenizer, [entry.caption for entry in left])


def attributes_of(options, rules, tokenizer, second_pad):
    attributes = {
        "channels": rules.channels,
        "vocabulary": tokenizer.size,
        "begin_token": tokenizer.begin,
        "end_token": tokenizer.end,
        "pad_token": tokenizer.pad,
        "tokenizer_sha256": tokenizer.sha256,
        "settings": settings_of(options, rules),
    }
    return attributes if second_pad is None else {**attributes, "pad_token_2": second_pad}


def settings_of(options, rules):
    """What shapes the result beside the inputs, as JSON for people."""
    buckets = rules.buckets
    names = ("background", "deduplicate", "keep_margin", "masks", "no_buckets", "prefix", "repeats", "upscale",
             "caption_extension", "caption_encoding", "seed")  # fmt: skip
    settings = {name: getattr(options, name) for name in names}
    settings |= {"resolution": buckets.resolution, "bucket_step": buckets.step}
    if not buckets.fixed:
        settings |= {"bucket_min": buckets.smallest, "bucket_max": buckets.largest}
    if options.validation is not None:
        settings["validation_fraction"] = fraction_of(options)
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)
