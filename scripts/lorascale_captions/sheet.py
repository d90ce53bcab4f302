"""A contact sheet: what the model will see of some of the pictures, with bucket and caption."""

import math
import textwrap
from pathlib import Path

import numpy
from lorascale_data.command_line import one_line
from lorascale_data.token_file import give_name, sync, temporary_name
from PIL import Image, ImageDraw, ImageFont

from .pixels import middle

MOST = 64
COLUMNS = 8
SIDE = 160  # of a picture, at most
MARGIN, LINE, CHARACTERS, LINES = 6, 14, 27, 4


def spread(buckets, most=MOST):
    """Places of up to `most` pictures, evenly from each bucket and as many from one as from another; `buckets`
    [pictures, 2]. In order."""
    _, kinds = numpy.unique(buckets, axis=0, return_inverse=True)
    members = [numpy.flatnonzero(kinds.ravel() == kind) for kind in range(kinds.max() + 1)]
    quotas = [0] * len(members)
    while sum(quotas) < min(most, len(buckets)):
        for kind, places in enumerate(members):
            quotas[kind] += quotas[kind] < len(places) and sum(quotas) < most
    chosen = [places[numpy.arange(quota) * len(places) // max(1, quota)] for places, quota in
              zip(members, quotas, strict=True)]  # fmt: skip
    return numpy.sort(numpy.concatenate(chosen))


class SheetWriter:
    """As an ImageFileWriter is used."""

    def __init__(self, path):
        self.path = Path(path)
        self._temporary = temporary_name(self.path)

    def write(self, store, rows, captions):
        buckets = store.buckets[rows]
        places = spread(buckets)
        columns = min(COLUMNS, len(places))
        cell = (SIDE + 2 * MARGIN, SIDE + 2 * MARGIN + (1 + LINES) * LINE)
        sheet = Image.new("RGB", (cell[0] * columns, cell[1] * math.ceil(len(places) / columns)), "white")
        for number, place in enumerate(places):
            corner = (number % columns * cell[0] + MARGIN, number // columns * cell[1] + MARGIN)
            height, width = (int(side) for side in buckets[place])
            seen = _seen(middle(store.pixels_of(rows[place]), (width, height)))
            _draw(sheet, corner, seen, f"{width} x {height}", captions[place])
        sheet.save(self._temporary, "PNG")
        sync(self._temporary)

    def commit(self, replace):
        give_name(self._temporary, self.path, replace)

    def discard(self):
        self._temporary.unlink(missing_ok=True)


def _seen(pixels):
    """What a mask takes no part in is grey."""
    image = Image.fromarray(numpy.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))
    if len(pixels) == 4:
        image = Image.composite(image, Image.new("RGB", image.size, (128, 128, 128)), Image.fromarray(pixels[3]))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def _draw(sheet, corner, picture, bucket, caption):
    left, top = corner
    sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + SIDE - picture.height))
    lines = textwrap.wrap(one_line(caption), CHARACTERS, max_lines=LINES, placeholder=" ...") or ["(no caption)"]
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (text, colour) in enumerate([(bucket, "gray"), *((line, "black") for line in lines)]):
        draw.text((left, top + SIDE + number * LINE), text, fill=colour, font=font)
