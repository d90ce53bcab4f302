#!/usr/bin/env python3
"""Turns text into token files for lorascale: tokenised once, then training needs no Python.

  prepare_text.py book.txt --tokenizer models/base --output data/train.h5
  prepare_text.py chats.jsonl.gz --tokenizer models/chat --output data/train.h5 --validation data/val.h5

Inputs: plain text, JSON Lines, JSON arrays, CSV and TSV by their header, Parquet, Arrow and Feather,
data sets saved to disk, folders of all these; text formats packed with gz, bz2, xz or zst, too. A
record or row of
  {"text"}                                  every token is a target
  {"prompt", "completion"}                  targets: the completion and the end of text
  {"instruction", "input", "output"}        (Alpaca) the same
  {"messages": [{"role", "content"}]}       targets: each answer of the assistant and its end token
                                            (but for those of "weight": 0)
  {"conversations": [{"from", "value"}]}    (ShareGPT) the same
and more (docs/data.md says what becomes of each key); --columns names other keys. Keys that would
change what is learnt are honoured or refused by name, the others counted in the report.
Chats are written by the model's own template where its folder has one, or by --chat-template. If
given, that also applies to prompt + completion and Alpaca, as one question and its answer.

Memory does not grow with the input but for 22 to 64 bytes a document that tell duplicates; with
--no-dedup not even that. Duplicates are dropped, and validation is chosen by each document's own
hash, so no document is on both sides, in whatever order, with however many workers.
"""

import argparse
import contextlib
import functools
import os
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the worker processes are the parallelism

from lorascale_data import (  # noqa: E402
    chat,
    chat_options,
    files,
    prompts,
    records,
    report,
    shapes,
    sources,
    texts,
    tokenizing,
)
from lorascale_data.command_line import (  # noqa: E402
    Parser,
    all_or_none,
    cannot_write,
    check_outputs,
    columns_of,
    names,
    number,
    one_line,
    run,
)
from lorascale_data.errors import BAD_INPUT, USAGE, PrepareError  # noqa: E402
from lorascale_data.pipeline import Pipeline, Settings  # noqa: E402
from lorascale_data.splitter import Splitter  # noqa: E402
from lorascale_data.token_file import TokenFileWriter  # noqa: E402


def make_parser():
    parser = Parser(
        prog="prepare_text.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="files of text or records, or folders of them")
    add(
        "--tokenizer",
        required=True,
        metavar="PATH|bytes",
        help="a folder with tokenizer.json, that file, or bytes (ids 0-255, 256 = end, 257 = pad)",
    )
    add("--output", required=True, type=Path, metavar="FILE.h5", help="the training set")
    add(
        "--validation",
        type=Path,
        metavar="FILE.h5",
        help="split off a validation set into this file",
    )
    add(
        "--validation-fraction",
        type=number(float, 0.0, 1.0),
        metavar="X",
        help="share of the documents for it (default: 0.05)",
    )
    add("--seed", type=int, default=0, help="chooses which documents those are (default: 0)")
    add(
        "--format",
        choices=sources.FORMATS,
        default="auto",
        help="what the inputs are (default: auto)",
    )
    add(
        "--columns",
        metavar="MEANING=KEY,...",
        help="which keys or columns hold what: " + ", ".join(shapes.COLUMNS),
    )
    add(
        "--ignore",
        type=names,
        default=[],
        metavar="KEY,...",
        help="keys of records that are not needed, though they may change what is learnt",
    )
    add(
        "--no-quotes",
        action="store_true",
        help="in CSV and TSV a quote is text, not the mark of a field",
    )
    add(
        "--text-split",
        default="document",
        metavar="RULE",
        help="documents in plain text: document (a file), formfeed, paragraph, lines:N, chars:N",
    )
    add(
        "--max-length",
        type=number(int, 2, 2**31 - 1),
        metavar="N",
        help="cut documents to N tokens",
    )
    add(
        "--max-records",
        type=number(int, 1, 2**53),
        metavar="N",
        help="take the first N records (or documents of plain text) of each file",
    )
    add("--no-dedup", action="store_true", help="keep duplicate documents")
    add("--skip-bad", action="store_true", help="count bad records and go on, instead of stopping")
    add(
        "--no-bos",
        action="store_true",
        help="no begin-of-text token even if the tokenizer adds one",
    )
    add("--no-eos", action="store_true", help="no end-of-text token after documents")
    add("--bos-token", metavar="TEXT", help="the begin-of-text token, if the tokenizer names none")
    add("--eos-token", metavar="TEXT", help="the end-of-text token, if the tokenizer names none")
    add(
        "--prompt",
        action="append",
        default=[],
        dest="prompts",
        metavar="TEXT",
        help="keep a prompt in the files, for sample.prompts and generate (repeatable); under a "
        "chat template it is a question",
    )
    add(
        "--workers",
        type=number(int, 1, 1024),
        metavar="N",
        help="processes (default: one per core)",
    )
    add("--force", action="store_true", help="replace existing output files")
    chat_options.add_to(parser).add_argument(
        "--learn",
        choices=chat.LEARN,
        default="all",
        help="of chats: all answers, the last answer only, or everything (default: all)",
    )
    add(
        "--turns",
        choices=("together", "apart"),
        default="together",
        help="a chat is one document where its template allows that, or each answer is one with what "
        "led to it, as the model meets and writes it (default: together)",
    )
    return parser


def check_learn(options):
    if options.turns == "apart" and options.learn == "everything":
        raise PrepareError(USAGE, "--turns apart repeats what led to an answer, so that --learn everything would learn it "
                                  "over and over; take one of them")


def warn(message):
    print(f"prepare_text: warning: {one_line(message)}", file=sys.stderr)


def warn_of_split_specials(tokenizer, template, name):
    """A template of another family works, but its marks are then tokens that nobody pretrained."""
    odd = [text for text in template.specials if tokenizer.token_count(text) != 1]
    if odd:
        warn(
            f"{', '.join(odd)} of template {name} {'is' if len(odd) == 1 else 'are'} not one "
            f"token each in "
            f"this tokenizer; use the template that the model was trained with"
        )


def write_all(options, pipeline, tokenizer, chosen, statistics, outputs):
    writers = []
    fraction = 0.05 if options.validation_fraction is None else options.validation_fraction
    splitter = Splitter(fraction, options.seed) if options.validation else None
    workers = options.workers or len(os.sched_getaffinity(0))
    with all_or_none(writers, options.force):
        for path in outputs:
            writers.append(TokenFileWriter(path, tokenizer))
        with contextlib.closing(report.Progress()) as progress:
            pipeline.run(writers, splitter, not options.no_dedup, workers, progress)
        check_counts(writers)
        texts = encoded_prompts(options, tokenizer, chosen, statistics)
        end = answer_end(tokenizer, chosen, statistics)
        for writer in writers:
            writer.finish(texts, end)
    return writers


def check_counts(writers):
    if not sum(writer.documents for writer in writers):
        raise PrepareError(BAD_INPUT, "the inputs hold no document to learn from, check --format, --max-length and what was skipped")
    for writer, name in zip(writers, ("training", "validation"), strict=False):
        if not writer.documents:
            raise PrepareError(
                BAD_INPUT,
                f"no document fell to {name}: cut the text into more with --text-split, or change "
                f"--validation-fraction or --seed",
            )


def encoded_prompts(options, tokenizer, chosen, statistics):
    """{text: ids} of --prompt: questions where the data are chats, else texts to continue."""
    template = None if chosen.is_found and not statistics.counts["chat"] else chosen.template
    return {text: prompts.encode(tokenizer, template, text) for text in options.prompts}


def answer_end(tokenizer, chosen, statistics):
    """The token that ends the answers of chats, where there are any; or None."""
    return chosen.template.end_id(tokenizer) if chosen.template and statistics.counts["chat"] else None


def model_folder(tokenizer):
    return Path(tokenizer) if Path(tokenizer).is_dir() else Path(tokenizer).parent


def tell(options, tokenizer, chosen, statistics, writers, begin):
    end = answer_end(tokenizer, chosen, statistics)
    text = "" if end is None else tokenizer.text_of(end)
    found = report.warnings(statistics, chosen, end, text, model_folder(options.tokenizer))
    for message in [*tokenizer.warnings, *found]:
        warn(message)
    print("\n".join(map(one_line, report.summary(statistics, writers, time.monotonic() - begin))))


def prepare(options):
    """Writes the files; what tells of them."""
    begin = time.monotonic()
    split = texts.parse_text_split(options.text_split)
    try:
        inputs, notes = files.expand(options.inputs)
        check_learn(options)
        outputs = check_outputs(options, inputs)
        tokenizer_options = tokenizing.TokenizerOptions(
            options.tokenizer,
            not options.no_bos,
            not options.no_eos,
            options.bos_token,
            options.eos_token,
        )
        tokenizer = tokenizing.load(tokenizer_options)
        chosen = chat_options.template_of(options, tokenizer)
        if isinstance(chosen.template, chat.Preset):
            warn_of_split_specials(tokenizer, chosen.template, chosen.name)
        for text in options.prompts:
            prompts.encode(tokenizer, None, text)  # says early what is wrong with it
        kind = options.format if options.format in sources.RECORD_FORMATS else None
        renderer = chosen.template and chat.Renderer(
            chosen.template, options.learn, options.turns == "apart", chosen.is_found, chosen.own
        )
        rules = records.Rules(renderer, kind, columns_of(options.columns, shapes.COLUMNS), frozenset(options.ignore))
        settings = Settings(
            tokenizer_options, rules, options.max_length, options.skip_bad, options.max_records
        )
        statistics = report.Statistics()
        statistics.notes += notes
        pipeline = Pipeline(
            inputs, options.format, split, settings, statistics, quotes=not options.no_quotes
        )
        writers = write_all(options, pipeline, tokenizer, chosen, statistics, outputs)
    except OSError as error:
        raise cannot_write(error, options.output) from error
    return functools.partial(tell, options, tokenizer, chosen, statistics, writers, begin)


def main(arguments=None):
    return run("prepare_text", lambda: prepare(make_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
