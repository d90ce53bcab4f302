"""A picture to look at: some nouns in all their looks, then the drawings, each with its caption."""

import os
import textwrap

from PIL import Image, ImageDraw

NOUNS, WIDE = 16, 14  # rows of the base, and pictures of a row
GROUND, LETTERS = (210, 210, 210), 26  # pixels high: two lines


def write(path, output, captions):
    cells = [cell for row in sample(captions["base"]) for cell in padded(row, "base")]
    for part in ("style", "held-out"):
        cells += padded(captions[part], part)
    side = Image.open(output / "base" / captions["base"][0][0]).width
    wide, high = max(side, 110) + 4, side + LETTERS + 4
    sheet = Image.new("RGB", (WIDE * wide, len(cells) // WIDE * high), GROUND)
    pen = ImageDraw.Draw(sheet)
    for place, cell in enumerate(cells):
        if cell:
            part, name, caption = cell
            x, y = place % WIDE * wide, place // WIDE * high
            sheet.paste(Image.open(output / part / name), (x, y))
            pen.multiline_text((x, y + side), "\n".join(textwrap.wrap(caption, 19)[:2]), (0, 0, 0), spacing=1)
    partial = path.with_name(f".{path.name}-{os.getpid()}.png")
    try:
        sheet.save(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sample(rows):
    """The rows of some nouns, as far apart as can be."""
    by_noun = {}
    for name, caption in rows:
        if "-plain.png" in name:
            last = by_noun[name] = []
        last.append((name, caption))
    nouns = list(by_noun.values())
    count = min(NOUNS, len(nouns))
    return [nouns[number * len(nouns) // count][:WIDE] for number in range(count)]


def padded(rows, part):
    """Cells of whole rows."""
    return [(part, *row) for row in rows] + [None] * (-len(rows) % WIDE)
