"""What the judge of pictures learns from: all looks of all nouns in the folder that emoji.py made, and an ink drawing
of each noun. Some of both are kept from it, to see how well it judges."""

import dataclasses
import hashlib
from pathlib import Path

import emoji
import numpy
from emoji_ink import ink_drawing
from emoji_looks import draw
from PIL import Image

KEPT = 5  # a noun is taken for shown where it is among so many that the picture looks most like
ONE_IN = 5  # nouns of which the judge sees no drawing: how well it tells drawings that are new to it


class MaterialError(Exception):
    """What is wrong and the remedy, on one line."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """One picture of a noun."""

    path: Path
    noun: int
    ink: bool
    kept: bool  # from training


@dataclasses.dataclass(frozen=True)
class Material:
    size: int  # pixels a side
    trigger: str
    nouns: list
    pictures: list  # Shown

    def digest(self):
        """Of all that training can depend on."""
        found = hashlib.sha256("\n".join(self.nouns).encode())
        for shown in self.pictures:
            found.update(f"{shown.noun} {shown.ink} {shown.kept}".encode())
            found.update(shown.path.read_bytes())
        return found.hexdigest()


def material_of(data, packages):
    """Of a folder that emoji.py made; `packages` is where it keeps the packages, of which drawings are made once."""
    try:
        base = emoji.captions_of(data / "base")
        asked = set((data / "held-out.txt").read_text(encoding="utf-8").splitlines())
        asked |= {caption.partition(", ")[2] for _, caption in emoji.captions_of(data / "style")}
        trigger = (data / "trigger.txt").read_text(encoding="utf-8").strip()
        with Image.open(data / "base" / base[0][0]) as picture:
            size = picture.width
    except (OSError, IndexError) as error:
        raise MaterialError(f"{data}: is not whole ({error}); scripts/demo/emoji.py --output makes it") from error
    nouns = [caption for name, caption in base if name.endswith("-plain.png")]
    index = {noun: number for number, noun in enumerate(nouns)}
    looks = [[] for _ in nouns]
    for name, caption in base:
        number = noun_of(caption, index)
        if number is None:
            raise MaterialError(f"{data}/base: '{caption}' is of no noun that has a plain look; make the folder again")
        looks[number].append(data / "base" / name)
    pictures = []
    for number, paths in enumerate(looks):
        # The plain look comes first, and small there is one: without them a noun would not be known so at all.
        others = [path for path in paths[1:] if not path.name.endswith("-small.png")]
        kept = others[draw(f"judge/look/{nouns[number]}", len(others))] if others else None
        pictures += [Shown(path, number, False, path == kept) for path in paths]
    for name, noun in drawings_of(data, packages, size, index):
        kept = noun not in asked and draw(f"judge/drawing/{noun}", ONE_IN) == 0
        pictures.append(Shown(data / "judge/ink" / name, index[noun], True, kept))
    return Material(size, trigger, nouns, pictures)


def noun_of(caption, index):
    """Which noun a caption or prompt has among its parts; None: no known one."""
    return next((index[part] for part in caption.split(", ") if part in index), None)


def drawings_of(data, packages, size, nouns):
    """[(file in judge/ink, noun)] of these nouns; drawn where that was not done yet."""
    folder = data / "judge/ink"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        pictures = emoji.Emoji(emoji.fetched(packages)).pictures
        drawn = ((noun.file, noun.phrase, ink_drawing(picture, size)) for noun, picture in pictures.items()
                 if noun.phrase in nouns)  # fmt: skip
        emoji.write_pictures(folder, drawn)
    return [(name, noun) for name, noun in emoji.captions_of(folder) if noun in nouns]


def pixels_of(paths, size):
    """u8 [n, 3, size, size]"""
    found = numpy.empty((len(paths), 3, size, size), numpy.uint8)
    for number, path in enumerate(paths):
        with Image.open(path) as file:
            picture = file.convert("RGB")
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.LANCZOS)
        found[number] = numpy.asarray(picture).transpose(2, 0, 1)
    return found
