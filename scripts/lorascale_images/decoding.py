"""A picture's file to pixels: u8 [channels, height, width]."""

import contextlib
import dataclasses
import os
import stat
import warnings

import numpy
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

# Pillow reads more, and runs programs for some of it (EPS); it may be built without some of these.
Image.init()
FORMATS = tuple(
    name
    for name in "AVIF BMP DIB GIF JPEG JPEG2000 PCX PNG PPM QOI SGI TGA TIFF WEBP".split()
    if name in Image.OPEN
)
MAX_PIXELS = 1 << 27  # of a file: half a GB where it has alpha
FITS = ("crop", "pad", "stretch")
WHITE_IS_ZERO = 0  # of TIFF's photometric interpretations
WITH_ALPHA = frozenset(["LA", "PA", "RGBA", "RGBa"])


class PictureError(Exception):
    """What is wrong with a picture and the remedy; whoever catches it knows its place."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What pictures become. `size` is (width, height), or None: they stay as large as they are."""

    channels: int
    size: tuple[int, int] | None = None
    fit: str = "crop"
    background: tuple[int, int, int] = (255, 255, 255)


def decode(path, shape):
    """(pixels u8 [c, h, w], whether it was enlarged) of a file."""
    with legible(path):
        with warnings.catch_warnings(action="ignore"):  # odd metadata and the like
            image = _opened(path)
            ImageOps.exif_transpose(image, in_place=True)
            image = _flattened(image, shape)
            enlarged = _is_enlarged(image, shape)
            pixels = numpy.asarray(_resized(image, shape))
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return numpy.ascontiguousarray(pixels), enlarged


def upright(path):
    """The first picture of a file, turned as its EXIF data say."""
    image = _opened(path)
    ImageOps.exif_transpose(image, in_place=True)
    return image


@contextlib.contextmanager
def legible(path):
    """What goes wrong while the picture is read, as PictureError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PictureError("is no file, remove it")  # a pipe would never end
    except OSError as error:
        raise PictureError(f"cannot be read ({error.strerror}), check its path and permissions") from error
    try:
        yield
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError("does not fit into memory, scale it down first") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise PictureError(f"cannot be decoded ({reason}); it is damaged or cut off, fetch it again") from error


def _opened(path):
    """The picture, or the first one of several, decoded."""
    try:
        image = Image.open(path, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        what = "is empty" if os.path.getsize(path) == 0 else "is no picture of a known kind, or damaged"
        raise PictureError(f"{what}; convert it to PNG or fetch it again") from error
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large()) from error
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"{image.width} x {image.height}: {_too_large()}")
    image.load()
    return image


def _too_large():
    return f"has over {MAX_PIXELS:,} pixels, scale it down first"


def _flattened(image, shape):
    """An image of mode L or RGB, without alpha. Grey values of colours are those of ITU-R 601."""
    image = of_8_bits(image)
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        under = Image.new("RGBA", image.size, (*shape.background, 255))
        image = Image.alpha_composite(under, image).convert("RGB")
    if shape.channels == 3:
        return image.convert("RGB")
    return image.convert("L") if image.mode in ("1", "L") else image.convert("RGB").convert("L")


def of_8_bits(image):
    """Deeper grey values as 8 bits, the highest as 255. (Deeper colours Pillow itself gives with 8 bits.)"""
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not deep:
        if image.mode in ("I", "F"):
            raise PictureError(
                "has pixels of 32 bits, which say not what is black and what is white; save it with 8 or 16 bits"
            )
        return image
    values, highest = numpy.asarray(image).astype(numpy.int64), 65_535
    if image.format == "TIFF":  # whose values Pillow gives as they are stored: of fewer bits, or with 0 for white
        highest = (1 << image.tag_v2[BITSPERSAMPLE][0]) - 1
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO) == WHITE_IS_ZERO:
            values = highest - values
    grey = Image.fromarray(((values * 255 + highest // 2) // highest).astype(numpy.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(numpy.where(values == clear, 0, 255).astype(numpy.uint8)))
    return grey


def _is_enlarged(image, shape):
    """Whether _resized scales it up: padding does so where both sides are smaller, the others where one is."""
    if shape.size is None:
        return False
    smaller = [found < wanted for found, wanted in zip(image.size, shape.size, strict=True)]
    return all(smaller) if shape.fit == "pad" else any(smaller)


def _resized(image, shape):
    if shape.size is None or image.size == shape.size:
        return image
    if shape.fit == "stretch":
        return image.resize(shape.size, Image.Resampling.BICUBIC)
    ratios = [wanted / found for wanted, found in zip(shape.size, image.size, strict=True)]
    if shape.fit == "pad":
        both = list(zip(shape.size, image.size, strict=True))
        inner = tuple(min(wanted, max(1, round(found * min(ratios)))) for wanted, found in both)
        place = tuple((wanted - used) // 2 for wanted, used in zip(shape.size, inner, strict=True))
        whole = Image.new("RGB", shape.size, shape.background).convert(image.mode)
        whole.paste(image.resize(inner, Image.Resampling.BICUBIC), place)
        return whole
    # The middle of what the size covers once the shorter side fits it.
    used = [wanted / max(ratios) for wanted in shape.size]
    left, top = ((found - part) / 2 for found, part in zip(image.size, used, strict=True))
    box = (max(0.0, left), max(0.0, top), min(image.width, left + used[0]), min(image.height, top + used[1]))
    return image.resize(shape.size, Image.Resampling.BICUBIC, box)
