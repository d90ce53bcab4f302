"""Pictures as ink drawings: black lines on white where light changes, and what is black stays black."""

import numpy
from emoji_looks import fitted, on_ground
from PIL import Image

DRAWN = 256  # pixels a side; scaled down to what is wanted
FINE, COARSE = 2, 5  # standard deviations in pixels: what lies between them makes lines
CONTRAST = 6
BLACK = 75  # of 255: darker is ink all over
STEEP = 16  # how fast ink ends there


def ink_drawing(picture, size):
    """RGB of size x size."""
    drawn = fitted(picture, DRAWN)
    colours = numpy.asarray(on_ground(drawn)).astype(float)
    grey = colours @ [0.299, 0.587, 0.114]
    ground = 255 - numpy.asarray(drawn.getchannel("A")).astype(float)  # so that what is light has an outline, too
    lines = numpy.minimum.reduce([edges(plane) for plane in (grey, colours.min(2), ground)])
    blacks = (blurred(grey, FINE) - BLACK) * STEEP
    sheet = numpy.minimum(255 + lines, 128 + blacks).clip(0, 255)
    drawing = Image.fromarray(sheet.round().astype(numpy.uint8))
    return drawing.resize((size, size), Image.Resampling.LANCZOS).convert("RGB")


def edges(plane):
    """How much lighter than around it each pixel is; below 0 darker."""
    return CONTRAST * (blurred(plane, FINE) - blurred(plane, COARSE))


def blurred(plane, deviation):
    reach = 4 * deviation
    weights = numpy.exp(-0.5 * (numpy.arange(-reach, reach + 1) / deviation) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach, reach)
        padded = numpy.pad(plane, pad, mode="edge")
        windows = numpy.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis)
        plane = windows @ weights
    return plane


def share_of_ink(drawing):
    """0 of a white sheet, 1 of a black one."""
    return 1 - numpy.asarray(drawing.convert("L")).mean() / 255
