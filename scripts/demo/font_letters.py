"""The letters A to J of a font file as small grey pictures, or why it has none that can be used."""

import dataclasses
import re

import numpy
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, ImageDraw, ImageFont

LETTERS = "ABCDEFGHIJ"
SIDE = 28  # of a picture
BOX = 24  # what the longer side of a letter fills of it
RENDERED = 192  # pixels an em; scaled down by areas
SUFFIXES = frozenset([".ttf", ".otf", ".ttc", ".otc"])
UNASSIGNED = "\uffff"  # no character: every font draws its mark of a missing glyph
SYMBOLS = 5  # PANOSE's family kind of pictures
ALIKE = 0.13  # pictures that differ by less (see differences) show one drawing
INK = 80  # of 255: as much counts as ink where pieces are counted; hairlines are that light
MOST_PIECES = 6  # pieces and holes of a letter, on average: an outlined B has 3 and 3


class UnusableError(Exception):
    """Why a font gives no letters, in the words under which it is counted."""


@dataclasses.dataclass(frozen=True)
class Face:
    """One font of a file."""

    family: str
    style: str
    pictures: numpy.ndarray  # u8 [letters, SIDE, SIDE], ink 255 on 0


def count_of(path):
    """Fonts in a file."""
    if path.suffix.lower() not in (".ttc", ".otc"):
        return 1
    try:
        with TTCollection(path, lazy=True) as collection:
            return len(collection.fonts)
    except Exception as error:  # fontTools raises whatever a damaged file makes it stumble over
        raise UnusableError("cannot be read") from error


def read(path, index=0):
    """The Face of font `index` of a file."""
    try:
        with TTFont(path, fontNumber=index, lazy=True) as font:
            names, known = font["name"], font.getBestCmap() or {}
            family, style = names.getBestFamilyName(), names.getBestSubFamilyName()
            kind = font["OS/2"].panose.bFamilyType if "OS/2" in font else 0
    except Exception as error:  # as above
        raise UnusableError("cannot be read") from error
    if any(ord(letter) not in known for letter in LETTERS):
        raise UnusableError("lacks a letter")
    if kind == SYMBOLS:
        raise UnusableError("says it holds symbols")
    family, style = plain(family), plain(style) or "Regular"
    if not family:
        raise UnusableError("has no name")  # in Latin letters
    return Face(family, style, pictures_of(path, index))


def plain(name):
    """A name, or None, by its Latin letters and digits."""
    return " ".join(re.findall("[A-Za-z0-9]+", name or ""))


def pictures_of(path, index):
    try:
        font = ImageFont.truetype(str(path), RENDERED, index, layout_engine=ImageFont.Layout.BASIC)
        pictures = [picture_of(font, letter) for letter in LETTERS]
        missing = picture_of(font, UNASSIGNED)
    except OSError as error:
        raise UnusableError("cannot be drawn") from error
    if any(picture is None for picture in pictures):
        raise UnusableError("has a blank letter")
    pictures = numpy.stack(pictures)
    if missing is not None and (differences(pictures, missing[None]) < ALIKE).any():
        raise UnusableError("draws a letter as it draws what it lacks")
    if (differences(pictures, pictures) < ALIKE).sum() > len(pictures):
        raise UnusableError("draws two letters alike")
    if pieces_of(pictures).mean() > MOST_PIECES:
        raise UnusableError("breaks its letters up (dots, hatching)")
    return pictures


def differences(some, others):
    """[some, others]: how far pictures, or stacks of pictures, differ: the root mean square of the difference as a
    share of their own, or else all thin letters would be alike. None of them is blank."""
    some, others = (numpy.reshape(each, (len(each), -1)).astype(numpy.float64) for each in (some, others))
    products, squares, other_squares = some @ others.T, (some**2).sum(1)[:, None], (others**2).sum(1)
    apart = numpy.maximum(squares + other_squares - 2 * products, 0)
    return numpy.sqrt(apart / numpy.sqrt(squares * other_squares))


def pieces_of(pictures):
    """int [n]: into how many pieces each picture's ink falls, and how many holes it has. Pieces of ink may hang
    together by a corner, holes not."""
    ink = numpy.pad(pictures >= INK, ((0, 0), (1, 1), (1, 1)))
    return _parts_of(ink, True) + _parts_of(~ink, False) - 1  # the ground around is no hole


def _parts_of(mask, by_corners):
    """int [n]: connected parts of bool [n, h, w]. Each place takes the highest number near it until none changes."""
    count, height, width = mask.shape
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)] + [(1, 1), (1, -1), (-1, 1), (-1, -1)] * by_corners
    labels = numpy.arange(1, height * width + 1).reshape(height, width) * mask
    while True:
        around = numpy.pad(labels, ((0, 0), (1, 1), (1, 1)))
        near = [around[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in steps]
        higher = numpy.maximum.reduce([labels, *near]) * mask
        if (higher == labels).all():
            return numpy.array([len(numpy.unique(picture[picture > 0])) for picture in labels.reshape(count, -1)])
        labels = higher


def picture_of(font, letter):
    """u8 [SIDE, SIDE]: the ink of a letter, scaled into the middle; None where there is none."""
    left, top, right, bottom = (round(side) for side in font.getbbox(letter))
    if right <= left or bottom <= top:
        return None
    canvas = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), letter, 255, font)
    ink = canvas.getbbox()
    if ink is None:
        return None
    letter_only = canvas.crop(ink)
    scale = BOX / max(letter_only.size)
    size = [max(1, round(side * scale)) for side in letter_only.size]
    picture = Image.new("L", (SIDE, SIDE))
    place = tuple((SIDE - side) // 2 for side in size)
    picture.paste(letter_only.resize(size, Image.Resampling.BOX), place)
    return numpy.asarray(picture)
