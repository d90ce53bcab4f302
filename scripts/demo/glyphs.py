#!/usr/bin/env python3
"""Makes a set of small pictures of letters from free fonts, as notMNIST was made: a real task of image classification
that needs no data set from the internet.

  glyphs.py --output data/glyphs

writes data/glyphs/train/A/FAMILY-STYLE.png and so on to J, and data/glyphs/validation/ likewise: 28 x 28, grey, the ink
white on black. The fonts are those of the Debian packages in glyphs-packages.txt (all of main, about 85 MB), fetched by
`apt-get download` and unpacked into the cache; nothing is installed, no root is needed. --fonts takes them from a folder
instead, say /usr/share/fonts.

Left out are fonts that lack a letter, draw it as nothing or as what they lack, draw two letters alike, break their
letters up (dots, hatching), say that they hold symbols, or have no name in Latin letters, and the families in
glyphs-left-out.txt, which draw other things than letters. Equal pictures are kept once. All fonts of a family, and of
families that are one design under several names, are on one side.
"""

import argparse
import collections
import concurrent.futures
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import font_families
import font_letters
from deb_packages import cache_folder, unpack_all
from PIL import Image

HERE = Path(__file__).parent


class GlyphError(Exception):
    """What is wrong and the remedy, on one line."""


def say(message):
    print(f"glyphs: {message}", file=sys.stderr)


def lines_of(path):
    """The lines of a list that are not comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def fetched(packages, cache):
    """The root folders of the packages that can be had."""
    roots, failed, size = unpack_all(packages, cache)
    if size:
        say(f"fetched {size / 1e6:.1f} MB of packages into {cache}")
    if failed:
        package, reason = next(iter(failed.items()))
        say(f"left out: {len(failed)} packages that are not to be had, such as {package}: {reason}; run `apt-get update`")
    return list(roots.values())


def files_of(roots):
    """The font files below folders, each once."""
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in font_letters.SUFFIXES and path.is_file():
                found.setdefault(path.resolve(), path)
    return list(found.values())


def faces_of(path):
    """(Faces of a file, why each of its other fonts is not used)."""
    logging.getLogger("fontTools").setLevel(logging.CRITICAL)  # oddities that do not matter here
    faces, reasons = [], []
    try:
        count = font_letters.count_of(path)
    except font_letters.UnusableError as error:
        return faces, [str(error)]
    for index in range(count):
        try:
            faces.append(font_letters.read(path, index))
        except font_letters.UnusableError as error:
            reasons.append(str(error))
    return faces, reasons


def all_faces(files, left_out, jobs):
    """The usable fonts in a fixed order; says how many are not, and why."""
    faces, reasons = [], collections.Counter()
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        for found, others in pool.map(faces_of, files, chunksize=16):
            chosen = [face for face in found if face.family not in left_out]
            reasons.update([*others, *["draws no letters (by the list)"] * (len(found) - len(chosen))])
            faces += chosen
    for reason, count in reasons.most_common():
        say(f"left out: {count:5,} fonts: {reason}")
    return faces


def names_of(faces):
    """Names of files, unlike each other."""
    names, seen = [], collections.Counter()
    for face in faces:
        name = "-".join(re.sub(r"[^a-z0-9]", "", part.lower()) for part in (face.family, face.style))
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def write_trees(output, faces, keep, is_validation):
    """The folder of both trees; it appears whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        for side in ("train", "validation"):
            for letter in font_letters.LETTERS:
                (work / side / letter).mkdir(parents=True)
        for face, name, kept, held_out in zip(faces, names_of(faces), keep, is_validation, strict=True):
            for letter, picture, wanted in zip(font_letters.LETTERS, face.pictures, kept, strict=True):
                if wanted:
                    folder = work / ("validation" if held_out else "train") / letter
                    Image.fromarray(picture).save(folder / f"{name}.png")
        work.chmod(0o755)
        work.rename(output)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def make(options):
    output = options.output.absolute()
    if os.path.lexists(output):
        raise GlyphError(f"{options.output}: exists; remove it, or choose another folder")
    roots = options.fonts or fetched(lines_of(options.packages), options.cache.absolute())
    faces = all_faces(files_of(roots), frozenset(lines_of(options.left_out)), options.jobs)
    families = {face.family for face in faces}
    if len(families) < options.minimum_families:
        raise GlyphError(
            f"only {len(families)} families of fonts can be used, at least {options.minimum_families} are wanted: see "
            f"above what was left out, or lower --minimum-families"
        )
    keep = font_families.kept_pictures(faces)
    designs = font_families.designs_of(faces)
    is_validation = font_families.validation_of(faces, designs, options.validation_fraction)
    if not keep[is_validation].any() or not keep[~is_validation].any():
        raise GlyphError("all designs fell to one side; give more fonts, or change --validation-fraction")
    write_trees(output, faces, keep, is_validation)
    say(f"{len(faces):,} fonts of {len(families):,} families, {len(set(designs)):,} designs; "
        f"left out: {keep.size - keep.sum():,} pictures that were there already or are two letters")  # fmt: skip
    for name, side in (("train", ~is_validation), ("validation", is_validation)):
        count = len({faces[i].family for i in side.nonzero()[0]})
        say(f"{options.output / name}: {keep[side].sum():,} pictures of {count:,} families, {len(set(designs[side])):,} "
            f"designs")  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FOLDER", help="write the pictures here; must not exist yet")
    add("--fonts", type=Path, action="append", metavar="FOLDER", help="use the fonts in this folder (repeatable)")
    add("--packages", type=Path, default=HERE / "glyphs-packages.txt", metavar="LIST", help="packages to fetch")
    add("--left-out", type=Path, default=HERE / "glyphs-left-out.txt", metavar="LIST", help="families not to use")
    add("--cache", type=Path, default=cache_folder("fonts"), metavar="FOLDER",
        help="where packages are kept (default: %(default)s)")  # fmt: skip
    add("--validation-fraction", type=float, default=0.1, metavar="X", help="share of the designs (default: 0.1)")
    add("--minimum-families", type=int, default=200, metavar="N", help="fewer are an error (default: 200)")
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or not 0 <= options.validation_fraction <= 1:
        say("--jobs takes a whole number from 1, --validation-fraction a number from 0 to 1 (see --help)")
        return 64
    try:
        make(options)
    except GlyphError as error:
        say(error)
        return 65
    except OSError as error:
        say(f"{error.filename or options.output}: {error.strerror}; choose another place")
        return 73
    return 0


if __name__ == "__main__":
    sys.exit(main())
