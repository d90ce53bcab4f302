"""Letters of fonts as pictures, beside fonts made here and another reader of fonts; which fonts are one design."""

import struct
from pathlib import Path

import font_families
import font_letters
import glyphs
import numpy
import pytest
from font_letters import BOX, LETTERS, SIDE, Face, UnusableError
from fontTools.ttLib import TTCollection, TTFont
from made_fonts import HEIGHT, make_font, rectangle


def bar_picture(width, height):
    """What a bar is scaled to: the longer side is 24, and it is in the middle."""
    sides = [max(1, round(BOX * side / max(width, height))) for side in (height, width)]
    top, left = ((SIDE - side) // 2 for side in sides)
    picture = numpy.zeros((SIDE, SIDE), int)
    picture[top : top + sides[0], left : left + sides[1]] = 255
    return picture


def test_letters_are_fitted_into_the_middle(tmp_path):
    path = make_font(tmp_path / "bars.ttf", "Some Bars-2", {"C": [rectangle(10, -100, 910, 200)]}, "Bold/Italic")
    face = font_letters.read(path)
    assert (face.family, face.style) == ("Some Bars 2", "Bold Italic")
    assert face.pictures.shape == (10, 28, 28) and face.pictures.dtype == numpy.uint8
    for k, picture in enumerate(face.pictures):
        expected = bar_picture(900, 300) if k == 2 else bar_picture(120 + 60 * k, HEIGHT)
        # The outermost of the 138 pixels that are scaled to 24 may be partly covered: 24 / 138 of 255.
        assert numpy.abs(picture.astype(int) - expected).max() <= 45, LETTERS[k]


DOTS = [rectangle(x, y, x + 60, y + 60) for x in range(0, 700, 120) for y in range(0, 700, 120)]


@pytest.mark.parametrize(
    ("shapes", "options", "reason"),
    [
        ({"F": None}, {}, "lacks a letter"),
        ({"F": []}, {}, "has a blank letter"),
        ({"F": [rectangle(50, 0, 650, 650)]}, {"missing": [rectangle(50, 0, 650, 650)]}, "as it draws what it lacks"),
        ({"F": [rectangle(50, 0, 170, HEIGHT)]}, {}, "draws two letters alike"),
        ({}, {"panose": 5}, "says it holds symbols"),
        ({letter: DOTS[k:] for k, letter in enumerate(LETTERS)}, {}, "breaks its letters up"),
    ],
)
def test_unusable_fonts(tmp_path, shapes, options, reason):
    path = make_font(tmp_path / "font.ttf", "Font", shapes, **options)
    with pytest.raises(UnusableError, match=reason):
        font_letters.read(path)


@pytest.mark.parametrize("name", ["", "源ノ明朝"])
def test_a_family_without_a_name_in_latin_letters(tmp_path, name):
    with pytest.raises(UnusableError, match="has no name"):
        font_letters.read(make_font(tmp_path / "font.ttf", name))
    face = font_letters.read(make_font(tmp_path / "font.ttf", f"{name} Mincho", style="太字"))
    assert (face.family, face.style) == ("Mincho", "Regular")


@pytest.mark.parametrize("length", [0, 20, 70])
def test_a_table_that_is_cut(tmp_path, length):
    """OS/2, by the table of tables; the others are sound."""
    data = make_font(tmp_path / "whole.ttf", "Whole").read_bytes()
    place = data.index(b"OS/2") + 12
    (tmp_path / "cut.ttf").write_bytes(data[:place] + struct.pack(">I", length) + data[place + 4 :])
    assert glyphs.faces_of(tmp_path / "cut.ttf") == ([], ["cannot be read"])


def test_a_collection_that_is_cut(tmp_path):
    for length in (4, 7, 11):
        (tmp_path / "cut.ttc").write_bytes((b"ttcf" + bytes(20))[:length])
        assert glyphs.faces_of(tmp_path / "cut.ttc") == ([], ["cannot be read"])


def test_a_font_that_cannot_be_drawn(tmp_path):
    """Its tables of names and characters are sound, its outlines are not there."""
    data = make_font(tmp_path / "whole.ttf", "Whole").read_bytes()
    (tmp_path / "bare.ttf").write_bytes(data.replace(b"head", b"dead").replace(b"glyf", b"flyg"))
    assert glyphs.faces_of(tmp_path / "bare.ttf") == ([], ["cannot be drawn"])


def test_a_collection(tmp_path):
    """Two fonts in one file."""
    collection = TTCollection()
    collection.fonts = [TTFont(make_font(tmp_path / f"{name}.ttf", name)) for name in ("One", "Two")]
    collection.save(tmp_path / "both.ttc")
    faces, reasons = glyphs.faces_of(tmp_path / "both.ttc")
    assert [face.family for face in faces] == ["One", "Two"] and reasons == []
    assert (faces[1].pictures == font_letters.read(tmp_path / "Two.ttf").pictures).all()


def test_what_is_no_font(tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    (tmp_path / "b.ttc").write_bytes(b"no font")
    (tmp_path / "c.otf").write_bytes(make_font(tmp_path / "whole.ttf", "Whole").read_bytes()[:300])
    for name in ("a.ttf", "b.ttc", "c.otf"):
        assert glyphs.faces_of(tmp_path / name)[0] == []
        assert glyphs.faces_of(tmp_path / name)[1] in (["cannot be read"], ["cannot be drawn"])


@pytest.mark.parametrize(
    ("rows", "pieces"),
    [
        (["...", ".#.", "..."], 1),
        (["#.#", "...", "#.#"], 4),
        (["#..", ".#.", "..#"], 1),  # by corners
        (["###", "#.#", "###"], 2),  # and a hole
        (["####", "#.##", "##.#", "####"], 3),  # holes do not meet at corners
        (["#####", "#...#", "#.#.#", "#...#", "#####"], 3),  # two pieces, and one hole between
    ],
)
def test_pieces(rows, pieces):
    picture = numpy.array([[255 * (mark == "#") for mark in row] for row in rows], numpy.uint8)
    assert font_letters.pieces_of(numpy.stack([picture, picture.T])).tolist() == [pieces, pieces]


def test_a_real_font_beside_another_reader():
    """DejaVu Sans as matplotlib's binding of FreeType draws it, without hinting."""
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib.ft2font import FT2Font, LoadFlags

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    face = font_letters.read(path)
    assert (face.family, face.style) == ("DejaVu Sans", "Book")
    font = FT2Font(str(path))
    font.set_size(400, 72)
    for letter, picture in zip(LETTERS, face.pictures, strict=True):
        font.clear()
        font.set_text(letter, 0, flags=LoadFlags.NO_HINTING)
        font.draw_glyphs_to_bitmap(antialiased=True)
        drawn = font.get_image()
        ys, xs = numpy.nonzero(drawn)
        ink = drawn[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] / 255.0
        # Each place of the picture's box against what lies under it.
        rows, columns = (numpy.flatnonzero(picture.any(axis)) for axis in (1, 0))
        part = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 255.0
        assert max(part.shape) == BOX and abs(part.shape[1] / part.shape[0] - ink.shape[1] / ink.shape[0]) < 0.03
        expected = area_mean(area_mean(ink, part.shape[0]).T, part.shape[1]).T
        assert numpy.abs(part - expected).mean() < 0.04 and numpy.abs(part - expected).max() < 0.3, letter


def area_mean(rows, count):
    """[n, ...] to [count, ...] by the means of equal parts."""
    ends = numpy.linspace(0, len(rows), count + 1)
    sums = numpy.concatenate([numpy.zeros((1, rows.shape[1])), numpy.cumsum(rows, axis=0)])
    at = numpy.stack([numpy.interp(ends, numpy.arange(len(sums)), column) for column in sums.T], axis=1)
    return numpy.diff(at, axis=0) / numpy.diff(ends)[:, None]


def face(family, seed, style="Regular"):
    return Face(family, style, numpy.random.default_rng(seed).integers(0, 256, (10, SIDE, SIDE), numpy.uint8))


def shifted(other, family, by):
    return Face(family, "Regular", (other.pictures.astype(int) + by).clip(0, 255).astype(numpy.uint8))


def test_designs():
    times = face("Times New", 1)
    faces = [times, face("times Sans", 2), face("Helvetica", 3), shifted(times, "Tymes", 9), face("Tymes", 4),
             shifted(times, "Other", 40)]  # fmt: skip
    designs = font_families.designs_of(faces).tolist()
    assert len(set(designs)) == 3
    assert designs[0] == designs[1] == designs[3] == designs[4]  # by their first word, and by likeness


def test_differences():
    some, others = face("Some", 1).pictures[:3], face("Others", 2).pictures[:2]
    def size(values):
        return (values.astype(float) ** 2).mean() ** 0.5

    expected = [[size(a.astype(float) - b) / (size(a) * size(b)) ** 0.5 for b in others] for a in some]
    assert numpy.allclose(font_letters.differences(some, others), expected)
    assert numpy.allclose(numpy.diag(font_letters.differences(some, some)), 0, atol=1e-6)


def test_split_by_design():
    faces = [face(f"F{i} {part}", 2 * i + k) for i in range(400) for k, part in enumerate(("Sans", "Serif"))]
    designs = font_families.designs_of(faces)
    side = font_families.validation_of(faces, designs, 0.1)
    assert (side[::2] == side[1::2]).all() and 20 <= side[::2].sum() <= 60
    fewer = font_families.validation_of(faces[::-1][:300], designs[::-1][:300], 0.1)
    assert (fewer == side[::-1][:300]).all()  # whatever else there is, in whatever order


def test_equal_pictures():
    one, other = face("One", 1), face("Other", 2)
    other.pictures[3], other.pictures[4], other.pictures[5] = one.pictures[3], one.pictures[9], one.pictures[9]
    keep = font_families.kept_pictures([one, other])
    assert keep[0].tolist() == [True] * 9 + [False]  # its J is another's E and F
    assert keep[1].tolist() == [True] * 3 + [False] * 3 + [True] * 4
