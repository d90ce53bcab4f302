#!/usr/bin/env python3
"""Tells whether pictures show what their prompts ask for, and whether in ink: the word of a small classifier, with what
that word is worth.

  judge_pictures.py runs/pictures          the samples of a run, before training and after it
  judge_pictures.py folder/                PNG files with prompts in them, as lorascale writes them

The classifier knows the nouns of data/emoji (scripts/demo/emoji.py), in all their looks and drawn in ink, and learns
them once, in some minutes of one core; it is kept in data/emoji/judge. A noun counts as shown where it is among the
five of hundreds that the picture looks most like.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import emoji
import judge_material
from deb_packages import PackageError, cache_folder
from emoji_font import FontError
from emoji_names import NamesError
from judge_material import MaterialError

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from lorascale_report import pictures, run_folder, words  # noqa: E402

USAGE, BAD_INPUT, CANNOT_WRITE = 64, 65, 73


class JudgeError(Exception):
    """What is wrong and the remedy, on one line."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(USAGE, f"judge: {message} (see --help)\n")


@dataclasses.dataclass
class Verdict:
    prompt: str
    called: bool  # for ink, by the trigger
    rank: int  # of the noun asked for; 0 is first
    looks_like: str
    share: float
    ink: float

    @property
    def kept(self):
        return self.rank < judge_material.KEPT


def say(message):
    print(f"judge: {message}", file=sys.stderr)


def groups_of(folder):
    """[(when, [(prompt, file)])] of a run's samples, or of all PNG files in a folder."""
    if not folder.is_dir():
        raise JudgeError(f"{folder} is no folder; give a run's, or one with PNG files")
    if not (folder / "metrics.jsonl").exists():
        return [("", [(prompt_of(path), path) for path in sorted(folder.glob("*.png"))])]
    rows = run_folder.read_run(folder).pictures.rows
    before = [row.before for row in rows if row.before]
    latest = [row.latest for row in rows if row.latest]
    groups = [("before training", before), (words.moment(latest[-1]) if latest else "", latest)]
    return [(when, [(made.prompt, made.path) for made in group]) for when, group in groups if group]


def prompt_of(path):
    try:
        return pictures.prompt_of(path)
    except pictures.PictureError as error:
        raise JudgeError(f"{path} {error}; remove it") from error


def with_nouns(groups, material):
    """[(when, [(prompt, file, noun)])] of the pictures whose prompts name a noun."""
    index = {noun: number for number, noun in enumerate(material.nouns)}
    strange, found = set(), []
    for when, made in groups:
        asked = [(prompt, path, judge_material.noun_of(prompt, index)) for prompt, path in made]
        strange |= {prompt for prompt, _, noun in asked if noun is None}
        found.append((when, [each for each in asked if each[2] is not None]))
    if strange:
        say(f"passed over: {len(strange)} prompts that name no noun, such as '{words.harmless(min(strange))[:60]}'")
    return [(when, asked) for when, asked in found if asked]


def verdicts_of(judge, asked, material):
    from judge_network import judged

    told = judged(judge, [path for _, path, _ in asked], [noun for *_, noun in asked], material.size)
    return [
        Verdict(words.harmless(prompt), material.trigger in prompt.split(", "), rank, material.nouns[likeliest], share,
                ink)
        for (prompt, _, _), (rank, likeliest, share, ink) in zip(asked, told, strict=True)
    ]  # fmt: skip


def table(verdicts):
    head = ("prompt", "the noun is", "looks most like", "", "ink")
    rows = [(each.prompt, place(each), each.looks_like, percent(each.share), percent(each.ink)) for each in verdicts]
    wide = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    for row in (head, *rows):
        left = "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=False))
        yield f"  {left}  {row[3]:>5}  {row[4]:>5}".rstrip()


def place(verdict):
    if verdict.rank == 0:
        return "first"
    return f"number {verdict.rank + 1}" + ("" if verdict.kept else ", lost")


def percent(share):
    return f"{100 * share:.0f} %"


def summary(verdicts):
    called, plain = ([each for each in verdicts if each.called == by] for by in (True, False))
    parts = []
    if called:
        kept = [each for each in called if each.kept]
        first = sum(each.rank == 0 for each in called)
        parts.append(f"content kept in {len(kept)} of {len(called)} with the trigger (first in {first})")
        parts.append(f"ink in {inked(called)}")
    if plain:
        kept = sum(each.kept for each in plain)
        parts.append(f"without the trigger ink in {inked(plain)}, content in {kept}")
    return "; ".join(parts)


def inked(verdicts):
    return f"{sum(each.ink > 0.5 for each in verdicts)} of {len(verdicts)}"


def worth(accuracy, nouns):
    """What the judge's word is worth."""
    yield f"The judge knows {nouns} nouns. Of pictures that it did not learn from it tells"
    names = {"colour": "looks in colour", "ink": "ink drawings, of nouns that it knows in colour alone"}
    for what, (count, first, kept, ink) in accuracy.items():
        kind, way = what.split(", ")
        yield (
            f"  {count} {names[kind]}, {way}: the noun first in {percent(first)}, "
            f"among {judge_material.KEPT} in {percent(kept)}; ink or not in {percent(ink)}"
        )


def judge_all(options):
    groups = groups_of(options.folder)
    if not any(made for _, made in groups):
        raise JudgeError(f"{options.folder} holds no pictures; give a run's folder, or one with PNG files")
    material = judge_material.material_of(options.data, options.packages)
    groups = with_nouns(groups, material)
    if not groups:
        raise JudgeError(f"{options.folder}: no prompt names a noun of {options.data}; give its pictures with --data")
    import judge_network
    import torch

    torch.set_num_threads(1)  # the same judge on any number of cores
    judge, accuracy = judge_network.trained(material, options.data / "judge", judge_network.Settings(), say)
    found = [(when, verdicts_of(judge, asked, material)) for when, asked in groups]
    print("\n".join(worth(accuracy, len(material.nouns))), end="\n\n")
    when, verdicts = found[-1]
    print(f"{options.folder}, {when}" if when else options.folder)
    print("\n".join(table(verdicts)), end="\n\n")
    for when, verdicts in found:
        print(f"{when}: " * bool(when) + summary(verdicts))


def main(arguments=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run's folder, or one with PNG files")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "data/emoji", metavar="FOLDER",
        help="what emoji.py made (default: data/emoji)")  # fmt: skip
    parser.add_argument("--packages", type=Path, default=cache_folder("emoji"), metavar="FOLDER",
        help="where packages are kept (default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        judge_all(options)
    except (JudgeError, MaterialError, PackageError, FontError, NamesError, emoji.EmojiError,
            run_folder.ReportError) as error:  # fmt: skip
        say(error)
        return BAD_INPUT
    except OSError as error:
        say(f"{error.filename or options.data}: {error.strerror or error}; choose another place")
        return CANNOT_WRITE
    return 0


if __name__ == "__main__":
    sys.exit(main())
