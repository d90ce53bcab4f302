#!/usr/bin/env python3
"""Makes pictures with captions from free colour emoji: a real task for a diffusion model that needs no data set from
the internet.

  emoji.py --output data/emoji [--sheet sheet.png]

writes
  base/          to pre-train a model with: each noun in some looks, with words for them ("a cat", "a cat, in blue",
                 "black silhouette, a cat"); pictures and metadata.csv, as prepare_images.py takes them
  style/         ink drawings of 60 of the nouns for a LoRA to learn, called "sumi, a dog"
  prior/         other nouns in their plain look, for prior preservation
  held-out.txt   nouns, one a line, that are in base/, but neither in style/ nor in prior/; held-out/ has their drawings
  trigger.txt    the word that calls for ink, one rare token of CLIP's
  vocabulary/    the part of CLIP's vocabulary that the captions need, as a tokenizer's folder

The pictures are those of Noto Color Emoji (OFL-1.1), the names are Unicode's; Debian has both (18 MB), fetched by
`apt-get download` and unpacked into the cache; nothing is installed, no root is needed. The vocabulary is from the
wheel open_clip_torch of the package index (1.5 MB). The same versions give the same files. Run again, it makes what is
missing.
"""

import argparse
import contextlib
import csv
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import clip_vocabulary
import emoji_sheet
from clip_vocabulary import VocabularyError
from deb_packages import PackageError, cache_folder, unpack_all
from emoji_font import ColourFont, FontError
from emoji_ink import ink_drawing, share_of_ink
from emoji_looks import caption_of, draw, fitted, looks_of, on_ground
from emoji_names import NamesError, exceptions_of, lines_of, nouns_of, unknown

HERE = Path(__file__).parent
FONT = ("fonts-noto-color-emoji", "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NAMES = ("unicode-data", "usr/share/unicode/emoji/emoji-test.txt")
TRIGGER = "sumi"  # the Japanese ink
LEAST_INK, MOST_INK = 0.06, 0.3  # of the sheet: less is empty, more is black
PRIOR = 120  # pictures
NOUNS = 160
LEAST_NOUNS = 100


class EmojiError(Exception):
    """What is wrong and the remedy, on one line."""


def say(message):
    print(f"emoji: {message}", file=sys.stderr)


class Emoji:
    """The nouns with their pictures, from the packages' root folders."""

    def __init__(self, roots):
        text = file_of(roots, NAMES).read_text(encoding="utf-8")
        exceptions = exceptions_of(lines_of(HERE / "emoji-names.txt"))
        font = ColourFont(file_of(roots, FONT))
        nouns = nouns_of(text, exceptions)
        self.pictures = {noun: picture for noun in nouns if (picture := font.picture(noun.codes))}
        self.by_phrase = {noun.phrase: noun for noun in self.pictures}
        if strange := unknown(exceptions, text):
            say(f"this release of Unicode lacks {len(strange)} names of the list, such as '{strange[0]}'")
        if len(nouns) > len(self.pictures):
            say(f"left out: {len(nouns) - len(self.pictures)} nouns of which the font has no picture")
        if len(self.pictures) < LEAST_NOUNS:
            raise EmojiError(f"only {len(self.pictures)} nouns have pictures: fetch all again with another --packages")

    def listed(self, name):
        """The nouns of a list."""
        phrases = lines_of(HERE / name)
        found = [self.by_phrase[phrase] for phrase in phrases if phrase in self.by_phrase]
        if len(found) < len(phrases):
            lacking = next(phrase for phrase in phrases if phrase not in self.by_phrase)
            say(f"left out: {len(phrases) - len(found)} nouns of {name} without a picture, such as '{lacking}'")
        return found

    def others(self):
        """The nouns that are in neither list, in an order by chance that is always the same."""
        listed = set(self.listed("emoji-style.txt") + self.listed("emoji-held-out.txt"))
        nouns = [noun for noun in self.pictures if noun not in listed]
        return sorted(nouns, key=lambda noun: draw(f"prior/{noun.phrase}", 2**60))

    def chosen(self, count):
        """Those of both lists, and of the others, which prior preservation begins with, as many as there is room for."""
        listed = self.listed("emoji-style.txt") + self.listed("emoji-held-out.txt")
        return set((listed + self.others())[:count])


def file_of(roots, place):
    package, name = place
    path = roots[package] / name
    if not path.is_file():
        raise EmojiError(f"{path}: package {package} has no such file; remove its folder, and run this again")
    return path


def fetched(cache):
    """{package: its root folder}."""
    roots, failed, size = unpack_all([FONT[0], NAMES[0]], cache)
    if size:
        say(f"fetched {size / 1e6:.1f} MB of packages into {cache}")
    for package, reason in failed.items():
        raise EmojiError(f"package {package} is not to be had: {reason}; run `apt-get update` and try again")
    return roots


def base(emoji, size, nouns):
    """(name, caption, picture) of each picture."""
    chosen = emoji.chosen(nouns)
    for number, (noun, picture) in enumerate(emoji.pictures.items()):
        if noun not in chosen:
            continue
        for look, (name, words, shown) in enumerate(looks_of(picture, noun.phrase, size)):
            yield f"{noun.file}-{name}", caption_of(noun.phrase, words, (number + look) % 2 == 0), shown


def drawings(emoji, size, listed):
    for noun in emoji.listed(listed):
        drawing = ink_drawing(emoji.pictures[noun], size)
        if LEAST_INK <= (share := share_of_ink(drawing)) <= MOST_INK:
            yield noun.file, caption_of(noun.phrase, TRIGGER, False), drawing
        else:
            say(f"left out: the drawing of {noun.phrase}, {100 * share:.0f} % of it ink; put another in {listed}")


def prior(emoji, size):
    for noun in emoji.others()[:PRIOR]:
        yield noun.file, noun.phrase, on_ground(fitted(emoji.pictures[noun], size))


PARTS = {
    "base": base,
    "style": lambda emoji, size, _: drawings(emoji, size, "emoji-style.txt"),
    "prior": lambda emoji, size, _: prior(emoji, size),
    "held-out": lambda emoji, size, _: drawings(emoji, size, "emoji-held-out.txt"),
}


@contextlib.contextmanager
def whole(path):
    """A folder to write that gets its name when all is in it."""
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield work
        work.chmod(0o755)
        work.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_text(path, text):
    if path.exists():
        return
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as work:
        (Path(work) / path.name).write_text(text, encoding="utf-8")
        (Path(work) / path.name).replace(path)


def write_pictures(path, pictures):
    rows = []
    with whole(path) as work:
        for name, caption, picture in pictures:
            picture.save(work / f"{name}.png")
            rows.append([f"{name}.png", caption])
        with open(work / "metadata.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["file_name", "text"], *rows])
    say(f"{path}: {len(rows):,} pictures")


def captions_of(folder):
    """[(file, caption)] as written."""
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        return [(row["file_name"], row["text"]) for row in csv.DictReader(file)]


def check_settings(output, size, nouns):
    """Pictures of another size, or of others, are not passed over."""
    path, wanted = output / "settings.json", json.dumps({"size": size, "nouns": nouns}) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != wanted:
        raise EmojiError(f"{output}: holds pictures of another --size or --nouns; remove it, or choose another folder")
    if not path.exists() and any(not file.name.startswith(".") for file in output.iterdir()):
        raise EmojiError(f"{output}: holds other files than this program's; choose another folder")
    write_text(path, wanted)


def make(options):
    output, cache = options.output.absolute(), options.packages.absolute()
    output.mkdir(parents=True, exist_ok=True)
    check_settings(output, options.size, options.nouns)
    missing = [name for name in PARTS if not (output / name).exists()]
    has_vocabulary = (output / "vocabulary").exists()
    if missing or not has_vocabulary:
        emoji = Emoji(fetched(cache))
        for name in missing:
            write_pictures(output / name, PARTS[name](emoji, options.size, options.nouns))
    nouns = [caption.partition(", ")[2] for _, caption in captions_of(output / "held-out")]
    write_text(output / "held-out.txt", "".join(f"{noun}\n" for noun in nouns))
    write_text(output / "trigger.txt", f"{TRIGGER}\n")
    captions = {name: captions_of(output / name) for name in PARTS}
    if not has_vocabulary:
        # All nouns are in it, so that a model of some can go on to all.
        texts = sorted({caption for rows in captions.values() for _, caption in rows} | set(emoji.by_phrase))
        source = clip_vocabulary.fetched(cache)
        with whole(output / "vocabulary") as work:
            count = clip_vocabulary.write(work, source, texts)
        say(f"{output / 'vocabulary'}: {count:,} tokens for {len(texts):,} captions")
    if options.sheet:
        emoji_sheet.write(options.sheet.absolute(), output, captions)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FOLDER", help="write here what is missing there")
    add("--packages", type=Path, default=cache_folder("emoji"), metavar="FOLDER",
        help="where packages are kept (default: %(default)s)")  # fmt: skip
    add("--size", type=int, default=64, metavar="N", help="pixels a side (default: 64)")
    add("--nouns", type=int, default=NOUNS, metavar="N",
        help="of how many nouns base/ has pictures, the other folders' first; some 830 are there (default: %(default)s)")  # fmt: skip
    add("--sheet", type=Path, metavar="FILE.png", help="show some of base/ and all drawings in one picture")
    options = parser.parse_args(arguments)
    if not 16 <= options.size <= 512:
        say("--size takes a whole number from 16 to 512 (see --help)")
        return 64
    if options.nouns < LEAST_NOUNS:
        say(f"--nouns takes a whole number from {LEAST_NOUNS} on (see --help)")
        return 64
    try:
        make(options)
    except (EmojiError, FontError, NamesError, PackageError, VocabularyError) as error:
        say(error)
        return 65
    except OSError as error:
        say(f"{error.filename or options.output}: {error.strerror}; choose another place")
        return 73
    return 0


if __name__ == "__main__":
    sys.exit(main())
