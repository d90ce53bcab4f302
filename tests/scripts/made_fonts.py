"""Fonts made of polygons, whose letters are known."""

from font_letters import LETTERS
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

HEIGHT = 720  # of the letters of made fonts, of 1000 an em


def rectangle(left, bottom, right, top):
    return [(left, bottom), (left, top), (right, top), (right, bottom)]


def make_font(path, family, shapes=None, style="Regular", missing=None, panose=2):
    """A font whose glyphs are polygons: {letter: [points, ...]}; letter k is a bar of width 120 + 60 k by itself."""
    bars = {letter: [rectangle(50, 0, 170 + 60 * k, HEIGHT)] for k, letter in enumerate(LETTERS)}
    contours = {letter: lines for letter, lines in {**bars, **(shapes or {})}.items() if lines is not None}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *contours])
    builder.setupCharacterMap({ord(letter): letter for letter in contours})
    builder.setupGlyf({name: drawn(lines) for name, lines in {".notdef": missing or [], **contours}.items()})
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *contours], (900, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": style})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200)
    builder.font["OS/2"].panose.bFamilyType = panose
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return path


def make_families(folder, special=None):
    """Twenty families of two styles each, in folders of their numbers; `special`: {number: (its name, the family whose
    shapes it has)}."""
    for i in range(20):
        name, alike = (special or {}).get(i, (f"Family{i}", i))
        for k, style in enumerate(("Regular", "Bold")):
            wedges = {
                letter: [[(0, 0), (0, 700), (100 + 33 * alike, 700), (100 + 60 * n + 9 * k, 0)]]
                for n, letter in enumerate(LETTERS)
            }
            make_font(folder / f"{i}/{style}.ttf", name, wedges, style)
    return folder


def drawn(contours):
    pen = TTGlyphPen(None)
    for points in contours:
        pen.moveTo(points[0])
        for point in points[1:]:
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()
