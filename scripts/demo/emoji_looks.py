"""The looks in which emoji are shown, each with the words that captions have for it; and their ink drawings.

Pictures are RGBA of any size; what comes out is RGB, a square on a ground.
"""

import hashlib

import numpy
from PIL import Image, ImageChops, ImageOps

WHITE = (255, 255, 255)
COLOURS = {
    "red": (214, 48, 44), "orange": (238, 134, 28), "yellow": (250, 212, 64), "green": (56, 158, 70),
    "blue": (48, 108, 212), "purple": (128, 74, 178), "pink": (240, 128, 178), "brown": (138, 88, 52),
    "grey": (150, 150, 150), "black": (24, 24, 24),
}  # fmt: skip
TINTS = ("red", "orange", "green", "blue", "purple", "pink")
SILHOUETTES = ("red", "orange", "green", "blue", "purple", "pink", "brown")
PLACES = {"": (0.5, 0.5), "top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}
MARGIN = 2 / 64  # of the size, around what is shown
SMALL = 0.5  # of the room, what is small takes
FULL = 0.85  # of the square: of what covers more, no ground is seen
SOLID = 0.77  # of the box around it: what covers more is a disc or a slab as a silhouette
APART = 90  # of 442: as far a colour is from the ground on which it is seen
ALIKE = 6  # of 255: pictures that differ by less on average are one look


def looks_of(picture, phrase, size):
    """(name, words, picture) of each look that can be seen, in a fixed order; the plain ones have no words."""
    plain = on_ground(fitted(picture, size))
    yield "plain", "", plain
    for number, place in ((2, (0.2, 0.8)), (3, (0.8, 0.2))):
        yield f"plain-{number}", "", on_ground(fitted(picture, size, 0.88, place))
    mirrored = ImageOps.mirror(plain)
    if differ(plain, mirrored):
        yield "mirrored", "mirrored", mirrored
    tints = {colour: tinted(plain, COLOURS[colour]) for colour in TINTS}
    tints = {colour: shown for colour, shown in tints.items() if differ(plain, shown)}
    for number, colour in enumerate(chosen(tints, phrase, "tint", 2), 1):
        yield f"tint-{number}", f"in {colour}", tints[colour]
    grey = ImageOps.grayscale(plain).convert("RGB")
    if differ(plain, grey):
        yield "grey", "in grey", grey
    yield "negative", "negative", ImageOps.invert(plain)
    place = chosen(tuple(PLACES), phrase, "place", 1)[0]
    words = f"small, {place}" if place else "small"
    yield "small", words, on_ground(fitted(picture, size, SMALL, PLACES[place]))
    of_square, of_box = coverage(picture)
    if of_square < FULL:
        grounds = [colour for colour in COLOURS if is_seen_on(picture, COLOURS[colour])]
        for number, colour in enumerate(chosen(grounds, phrase, "ground", 2), 1):
            yield f"ground-{number}", f"{colour} background", on_ground(fitted(picture, size), COLOURS[colour])
    if of_box < SOLID:
        for number, colour in enumerate(("black", *chosen(SILHOUETTES, phrase, "silhouette", 1)), 1):
            yield f"silhouette-{number}", f"{colour} silhouette", silhouette(fitted(picture, size), COLOURS[colour])


def caption_of(phrase, words, phrase_first):
    """Words of the look stand before what is shown or behind it, so that it is known in either place."""
    parts = [phrase, words] if phrase_first else [words, phrase]
    return ", ".join(part for part in parts if part)


def draw(text, below):
    """A number from 0 to below, which looks chosen by chance and is always the same for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % below


def chosen(words, phrase, purpose, count):
    """Some of the words, other ones for other phrases."""
    return sorted(words, key=lambda word: (draw(f"{purpose}/{phrase}/{word}", 2**60), word))[:count]


def fitted(picture, size, share=1.0, place=(0.5, 0.5)):
    """RGBA of size x size: what can be seen of a picture, as large as the room within the margin, or a share of it."""
    seen = picture.crop(picture.getchannel("A").point(lambda value: 255 * (value > 8)).getbbox())
    room = size - 2 * round(MARGIN * size)
    scale = share * room / max(seen.size)
    sides = [max(1, round(side * scale)) for side in seen.size]
    corner = [round(MARGIN * size) + round((room - side) * part) for side, part in zip(sides, place, strict=True)]
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(seen.resize(sides, Image.Resampling.LANCZOS), corner)
    return canvas


def on_ground(picture, colour=WHITE):
    ground = Image.new("RGBA", picture.size, (*colour, 255))
    return Image.alpha_composite(ground, picture).convert("RGB")


def tinted(picture, colour):
    """All in shades of one colour, from its darkest to white."""
    dark = tuple(value // 4 for value in colour)
    return ImageOps.colorize(ImageOps.grayscale(picture), dark, WHITE, mid=colour, midpoint=160)


def silhouette(picture, colour):
    flat = Image.new("RGBA", picture.size, (*colour, 0))
    flat.putalpha(picture.getchannel("A").point(lambda value: 255 * (value > 127)))
    return on_ground(flat)


def differ(some, others):
    return numpy.asarray(ImageChops.difference(some, others)).mean() >= ALIKE


def coverage(picture):
    """The shares of the square and of the smallest upright box around it that are covered."""
    solid = numpy.asarray(fitted(picture, 64).getchannel("A")) > 127
    rows, columns = solid.any(1).sum(), solid.any(0).sum()
    return solid.sum() / max(rows, columns) ** 2, solid.sum() / (rows * columns)


def is_seen_on(picture, colour):
    """Whether nearly all along its rim it is of other colours than the ground."""
    pixels = numpy.asarray(fitted(picture, 64)).astype(float)
    solid = numpy.pad(pixels[..., 3] > 127, 2)
    inner = numpy.logical_and.reduce([numpy.roll(solid, step, axis) for axis in (0, 1) for step in (-2, 2)])
    rim = pixels[(solid & ~inner)[2:-2, 2:-2]][:, :3]
    near = numpy.sqrt(((rim - colour) ** 2).sum(1)) < APART
    return near.mean() < 0.15
