#!/usr/bin/env python3
"""The first half of scripts/train_folder.sh: prepares the pictures that a configuration in the style of lora-scripts or
sd-scripts names, as its keys say, into OUTPUT_DIR-data/train.h5. Where nothing has changed since, it does nothing.

  prepare_folder.py my_lora.yaml
  prepare_folder.py my_lora.yaml --facts

With --facts it checks all that can be checked before the pictures are opened, and prints a line each: the
configuration for the trainer, the run's folder, the data folder, the name of the LoRA, the folder of the pictures,
whether captions are to be made (label or keep), and what the trainer is to be told beside the configuration.
"""

import argparse
import sys
from pathlib import Path

import prepare_images
import yaml
from lorascale_data.command_line import Parser, cannot_write, run
from lorascale_data.errors import USAGE, PrepareError
from lorascale_folder import captions, record, settings
from lorascale_folder.document import BAD_CONFIG, Document

DATA, SHEET, CONFIG = "train.h5", "sheet.png", "config.yaml"


def make_parser():
    parser = Parser(
        prog="prepare_folder.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="YAML, or TOML of sd-scripts")
    add("--facts", action="store_true", help="check, and print where things are")
    add("--label", action="store_true", help="a model is there to write captions")
    add("--tokenizer", metavar="PATH", help="of a model of one file")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the trainer")
    return parser


class PlainDumper(yaml.SafeDumper):
    """Without quotes wherever YAML needs none: the trainer takes texts in quotes for texts."""

    yaml_implicit_resolvers = {}


def config_of_trainer(document, found):
    """The configuration itself; the trainer reads no TOML, so that is written as YAML, without its headings."""
    if not document.is_toml:
        return document.path
    head = f"# Written by scripts/train_folder.sh from {document.path.name}, without headings and empty keys.\n"
    text = head + yaml.dump(document.flat(), Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    record.take(found.data)
    path = found.data / CONFIG
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        record.replace(path, text)
    return path


def facts(options, document, found):
    """Lines for the script."""
    to_label = captions.are_to_be_made(found, options.label)
    before = record.read(found.data).get("pictures", str(found.pictures.resolve()))
    if before != str(found.pictures.resolve()) and (found.run / "metrics.jsonl").exists():
        raise PrepareError(
            BAD_CONFIG, f"{found.run} is of the pictures in {before}: give these an output_dir of their own, or move it"
        )
    config = config_of_trainer(document, found)
    lines = [config, found.run, found.data, found.name, found.pictures, "label" if to_label else "keep", *found.trainer]
    return lambda: print("\n".join(map(str, lines)))


def prepare(document, found):
    """Makes the data file, unless it is there; what tells of it."""
    captions.are_to_be_made(found, can_label=False)
    record.take(found.data)
    output, now = found.data / DATA, record.inputs_of(found)
    before = record.read(found.data)
    change = record.change(before, now)
    if not change and output.is_file():
        return lambda: print(f"train_folder: data: {output} (made before)")
    again = f" again: {change}" if change and "files" in before else ""
    print(f"train_folder: data: preparing {found.source}{again}", flush=True)
    if found.left:
        print(f"train_folder: not set, and so as lorascale has it: {found.left}", flush=True)
    sheet = found.data / SHEET
    arguments = [str(found.source), *found.options, "--output", str(output), "--sheet", str(sheet), "--force"]
    try:
        tell = prepare_images.prepare(prepare_images.parsed(arguments))
    except PrepareError as error:
        if error.code != USAGE:
            raise
        raise PrepareError(BAD_CONFIG, f"{document.path}: {error}") from error
    record.write(found.data, now)  # last: what it speaks of is whole
    return tell


def command(arguments=None):
    options = make_parser().parse_args(arguments)
    document = Document(options.config, options.set)
    found = settings.read(document, options.tokenizer)
    try:
        return facts(options, document, found) if options.facts else prepare(document, found)
    except OSError as error:
        raise cannot_write(error, found.data) from error


def main(arguments=None):
    return run("train_folder", lambda: command(arguments))


if __name__ == "__main__":
    sys.exit(main())
