"""The bitmaps of a colour font (CBDT, as Noto Color Emoji has them), by their code points."""

import io

from fontTools.ttLib import TTFont
from PIL import Image

VARIATION = 0xFE0F  # says that what stands before it is to be shown as a picture; fonts have it or not


class FontError(Exception):
    """Why a font gives no pictures, on one line."""


class ColourFont:
    def __init__(self, path):
        try:
            with TTFont(path, lazy=True) as font:
                self._glyphs = font.getBestCmap()
                self._bitmaps = font["CBDT"].strikeData[0]
                self._ligatures = _ligatures(font["GSUB"].table) if "GSUB" in font else {}
        except Exception as error:  # fontTools raises whatever a damaged file makes it stumble over
            raise FontError(f"{path}: is no font of colour bitmaps that can be read; fetch it again") from error

    def picture(self, codes):
        """The picture of a sequence of code points, RGBA; None where the font has none."""
        for each in (codes, [code for code in codes if code != VARIATION]):
            glyphs = tuple(self._glyphs.get(code) for code in each)
            name = glyphs[0] if len(glyphs) == 1 else self._ligatures.get(glyphs)
            if name in self._bitmaps:
                return Image.open(io.BytesIO(self._bitmaps[name].imageData)).convert("RGBA")
        return None


def _ligatures(table):
    """{glyphs of a sequence: the glyph that stands for all of them}."""
    found = {}
    for lookup in table.LookupList.Lookup:
        for subtable in lookup.SubTable:
            subtable = getattr(subtable, "ExtSubTable", subtable)
            for first, ligatures in getattr(subtable, "ligatures", {}).items():
                for ligature in ligatures:
                    found[first, *ligature.Component] = ligature.LigGlyph
    return found
