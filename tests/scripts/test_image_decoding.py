"""From a picture's file to its pixels, beside PNG written here by hand and numpy's own arithmetic."""

import io
import struct
import zlib

import numpy
import pytest
from lorascale_images.decoding import FORMATS, MAX_PIXELS, PictureError, Shape, decode
from pictures import PALETTE, chunk, grey_tiff, noise, png
from PIL import Image

WHITE = (255, 255, 255)


@pytest.fixture
def decoded(tmp_path):
    """decoded(bytes of a file, **shape): its pixels as [h, w] or [h, w, 3]."""

    def run(data, channels=3, **shape):
        path = tmp_path / "picture.png"
        path.write_bytes(data)
        pixels, _ = decode(path, Shape(channels, **shape))
        assert pixels.dtype == numpy.uint8 and pixels.shape[0] == channels and pixels.flags.c_contiguous
        return pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)

    return run


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey_of(colours):
    """ITU-R 601, in Pillow's rounding of 16 bits."""
    weights = numpy.array([19595, 38470, 7471])
    return ((colours.astype(numpy.int64) @ weights + 0x8000) >> 16).astype(numpy.uint8)


def over(colours, alpha, background):
    """[h, w, 3] floats of colours on a background."""
    share = numpy.asarray(alpha, float)[..., None] / 255
    return colours * share + numpy.asarray(background, float) * (1 - share)


def test_colours_and_grey_as_they_are(decoded):
    colours, grey = noise(1, 7, 3), noise(2, 7, 3, 1)
    assert (decoded(png(colours)) == colours).all()
    assert (decoded(png(grey), channels=1) == grey).all()
    assert (decoded(png(grey)) == grey[..., None]).all()
    assert (decoded(png(colours), channels=1) == grey_of(colours)).all()


LOSSLESS = ["BMP", "DIB", "TIFF", "PPM", "TGA", "PCX", "SGI", "WEBP", "QOI", "JPEG2000"]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_other_lossless_formats(decoded, kind):
    colours = noise(3, 16, 9)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert (decoded(saved(Image.fromarray(colours), kind, **options)) == colours).all()


def test_avif(decoded):
    """Which keeps no noise, but a slope."""
    colours = numpy.add.outer(numpy.arange(32), numpy.arange(24))[..., None] * numpy.array([4, 3, 2])
    data = saved(Image.fromarray(colours.astype(numpy.uint8)), "AVIF", quality=95)
    assert numpy.abs(decoded(data).astype(int) - colours).max() <= 8


def test_no_format_is_left_out():
    """All that docs/images.md promises are there, and each is in a test of this file."""
    assert set(FORMATS) == {*LOSSLESS, "AVIF", "GIF", "JPEG", "PNG"} and len(FORMATS) == 14


def test_jpeg_of_print_colours(decoded):
    """CMYK, where Adobe stores the inverse: a red surface stays red."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert numpy.abs(decoded(saved(red, "JPEG", quality=100)).astype(int) - (255, 0, 0)).max() <= 3


def test_16_bits_a_grey_value(decoded):
    values = numpy.arange(0, 65536, 64, dtype=numpy.uint16).reshape(32, 32)
    values[-1, -1] = 65535
    expected = numpy.rint(values / 257).astype(numpy.uint8)
    assert (decoded(png(values), channels=1) == expected).all()
    assert (decoded(png(values)) == expected[..., None]).all()
    pgm = b"P5 32 32 65535\n" + values.astype(">u2").tobytes()
    assert (decoded(pgm, channels=1) == expected).all()
    tiff = saved(Image.fromarray(values), "TIFF")
    assert (decoded(tiff, channels=1) == expected).all()


@pytest.mark.parametrize(
    ("bits", "white_is_zero", "order"),
    [(12, False, "<"), (16, False, "<"), (16, False, ">"), (16, True, "<")],  # Pillow knows no others
)
def test_tiff_of_deep_grey_values(decoded, bits, white_is_zero, order):
    """Of 12 bits the highest is 255, too; and where 0 stands for white, it is white."""
    highest = (1 << bits) - 1
    values = numpy.random.default_rng(bits).integers(0, highest + 1, (6, 7))
    values[0, :2] = 0, highest
    data = grey_tiff(values, bits, 0 if white_is_zero else 1, order)
    expected = numpy.rint((highest - values if white_is_zero else values) * 255 / highest).astype(numpy.uint8)
    assert (decoded(data, channels=1) == expected).all()


def test_16_bits_a_colour(decoded):
    values = numpy.random.default_rng(4).integers(0, 65536, (8, 8, 3)).astype(numpy.uint16)
    assert numpy.abs(decoded(png(values)) - values / 257).max() <= 1


def test_16_bits_with_a_transparent_value(decoded):
    values = numpy.array([[0, 257 * 7], [65535, 257 * 7 + 1]], numpy.uint16)
    data = png(values, transparent=struct.pack(">H", 257 * 7))
    # 257 * 7 + 1 becomes the same grey value and is not transparent.
    assert decoded(data, channels=1, background=(99, 99, 99)).tolist() == [[0, 99], [255, 7]]


def test_palette(decoded):
    palette, indexes = noise(5, 1, 6)[0], numpy.array([[0, 1, 2], [5, 4, 3]], numpy.uint8)
    assert (decoded(png(indexes, PALETTE, palette)) == palette[indexes]).all()
    assert (decoded(png(indexes, PALETTE, palette), channels=1) == grey_of(palette[indexes])).all()
    alpha = numpy.array([255, 0, 128, 255, 255, 17])
    data = png(indexes, PALETTE, palette, alpha.astype(numpy.uint8).tobytes())
    expected = over(palette[indexes], alpha[indexes], (0, 0, 255))
    assert numpy.abs(decoded(data, background=(0, 0, 255)) - expected).max() <= 1


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (255, 128, 0)])
def test_alpha_is_composited(decoded, background):
    colours, alpha = noise(6, 16, 16), noise(7, 16, 16, 1)
    alpha[0], alpha[1] = 0, 255
    pixels = decoded(png(numpy.dstack([colours, alpha])), background=background)
    assert numpy.abs(pixels - over(colours, alpha, background)).max() <= 1
    assert (pixels[0] == background).all() and (pixels[1] == colours[1]).all()


def test_grey_with_alpha(decoded):
    values = numpy.dstack([noise(8, 6, 6, 1), noise(9, 6, 6, 1)])
    expected = over(values[..., :1].repeat(3, 2), values[..., 1], WHITE)[..., 0]
    assert numpy.abs(decoded(png(values), channels=1) - expected).max() <= 1


def test_one_colour_declared_transparent(decoded):
    colours = noise(10, 3, 3)
    colours[1, 1] = (1, 2, 3)
    pixels = decoded(png(colours, transparent=struct.pack(">3H", 1, 2, 3)))
    colours[1, 1] = WHITE
    assert (pixels == colours).all()


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: numpy.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: numpy.rot90(a, 1)),
    ],
)
def test_exif_orientation(decoded, orientation, turned):
    colours = noise(11, 4, 7)
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + bytes(4)
    data = png(colours)
    data = data[:33] + chunk(b"eXIf", exif) + data[33:]  # behind IHDR
    assert (decoded(data) == turned(colours)).all()


def test_first_frame(decoded):
    frames = [Image.fromarray(numpy.full((5, 5, 3), value, numpy.uint8)) for value in (40, 90, 200)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (decoded(data) == 40).all()


def test_crop_takes_the_middle(decoded):
    """Scaling by whole numbers of a picture of even squares leaves their inside as it is."""
    squares = noise(12, 4, 6)
    large = squares.repeat(16, 0).repeat(16, 1)
    pixels = decoded(png(large), size=(64, 64))
    assert (pixels == large[:, 16:80]).all()  # the height fits already
    tall = decoded(png(large.swapaxes(0, 1)), size=(64, 64))
    assert (tall == large.swapaxes(0, 1)[16:80]).all()
    small = decoded(png(large), size=(32, 32)).reshape(4, 8, 4, 8, 3)
    assert (small[:, 4, :, 4] == squares[:, 1:5]).all()


def test_pad_and_stretch(decoded):
    squares = noise(13, 2, 4)
    large = squares.repeat(16, 0).repeat(16, 1)
    padded = decoded(png(large), size=(64, 64), fit="pad", background=(9, 8, 7))
    assert (padded[16:48] == large).all()
    assert (padded[:16] == (9, 8, 7)).all() and (padded[48:] == (9, 8, 7)).all()
    stretched = decoded(png(large), size=(32, 32), fit="stretch").reshape(2, 16, 4, 8, 3)
    assert (stretched[:, 8, :, 4] == squares).all()
    line = decoded(png(noise(14, 1, 500)), size=(16, 16), fit="pad")
    assert line.shape == (16, 16, 3) and (line[8] == 255).all() and not (line[7] == 255).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_of_the_size_is_left_alone(decoded, fit):
    colours = noise(15, 9, 12)
    assert (decoded(png(colours), size=(12, 9), fit=fit) == colours).all()


def test_enlarged_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(png(noise(16, 10, 20)))
    told = [decode(tmp_path / "a.png", Shape(3, size))[1] for size in (None, (10, 10), (20, 10), (10, 11), (30, 5))]
    assert told == [False, False, False, True, True]
    sizes = ((10, 10), (20, 10), (10, 11), (30, 5), (21, 10), (21, 11))  # padded, only the last makes it larger
    told = [decode(tmp_path / "a.png", Shape(3, size, "pad"))[1] for size in sizes]
    assert told == [False] * 5 + [True]


def bomb():
    side = int(MAX_PIXELS**0.5) + 1
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    body = zlib.compress(bytes((side // 8 + 2) * 8))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; convert it"),
        (b"no picture", "is no picture of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "is no picture of a known kind"),
        (png(noise(17, 64, 64))[:-4000], "cannot be decoded (image file is truncated"),
        (flipped(png(noise(17, 64, 64)), 5000), "cannot be decoded"),
        (saved(Image.fromarray(noise(17, 64, 64)), "JPEG")[:900], "is damaged or cut off, fetch it again"),
        (bomb(), "pixels, scale it down first"),
        (saved(Image.new("F", (3, 3)), "TIFF"), "has pixels of 32 bits"),
        (saved(Image.new("I", (3, 3)), "TIFF"), "save it with 8 or 16 bits"),
    ],
    ids=["empty", "text", "eps", "cut", "bit", "jpeg", "bomb", "float", "int"],
)
def test_what_cannot_be_decoded(tmp_path, data, message):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(PictureError) as caught:
        decode(tmp_path / "a.png", Shape(3))
    assert message in str(caught.value) and "\n" not in str(caught.value)
