"""From a picture's file to its pixels, beside closed forms and numpy's own arithmetic."""

import io
import struct

import numpy
import pytest
from captioned import smooth
from lorascale_captions.buckets import Buckets
from lorascale_captions.pixels import Rules, prepare
from pictures import grey_tiff, noise, png
from PIL import Image, ImageCms

SMALL = Buckets((64, 64), 8, 32, 128)


@pytest.fixture
def made(tmp_path):
    """made(bytes of a file, **rules): its Prepared, pixels as [h, w, c]."""

    def run(data, buckets=SMALL, **rules):
        path = tmp_path / "picture.png"
        path.write_bytes(data)
        found = prepare(path, Rules(buckets, **rules))
        return found._replace(pixels=found.pixels.transpose(1, 2, 0))

    return run


def saved(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_pixels_of_the_size_are_not_touched(made):
    colours = noise(1, 64, 64)
    found = made(png(colours))
    assert (found.pixels == colours).all() and found.bucket == found.original == (64, 64)
    assert not found.is_enlarged and not found.is_without_profile


def test_scaling_and_the_middle(made):
    """Lanczos, which for a slope is the slope again; the middle of it, or all of it as a margin."""
    colours = smooth(128, 200)
    whole = made(png(colours), keep_margin=True)
    assert whole.bucket == (80, 48) and whole.pixels.shape == (51, 80, 3)
    y, x = (numpy.arange(51) + 0.5) * 128 / 51 - 0.5, (numpy.arange(80) + 0.5) * 200 / 80 - 0.5
    expected = colours[numpy.rint(y).astype(int)][:, numpy.rint(x).astype(int)].astype(int)
    assert numpy.abs(whole.pixels[2:-2, 2:-2] - expected[2:-2, 2:-2]).max() <= 3
    cut = made(png(colours))
    assert (cut.pixels == whole.pixels[1:49]).all() and cut.digest != whole.digest


def test_enlarged(made):
    found = made(png(smooth(16, 16)), Buckets((64, 64), 8, 32, 128, upscale=True))
    assert found.is_enlarged and found.pixels.shape == (64, 64, 3)


def test_turned_before_all_else(made):
    """sd-scripts 1316: a portrait stored lying, EXIF orientation 6. Size, bucket and pixels are those upright."""
    lying = numpy.zeros((96, 144, 3), numpy.uint8)
    lying[:, :72] = (250, 0, 0)  # left when lying, above when upright
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, options in (("JPEG", {"quality": 95}), ("PNG", {})):
        found = made(saved(Image.fromarray(lying), kind, exif=exif, **options))
        assert found.original == (96, 144) and found.bucket == (48, 80)
        assert found.pixels.shape == (80, 48, 3)
        assert (found.pixels[:36, :, 0] > 240).all() and (found.pixels[44:] < 10).all()
    upright = made(saved(Image.fromarray(numpy.rot90(lying, -1))))
    assert upright.digest == found.digest


def test_transparency(made):
    """ai-toolkit 640, sd-scripts 1223: what lies beneath does not show; alpha is the weight."""
    colours = numpy.zeros((64, 64, 4), numpy.uint8)
    colours[16:48, 16:48] = (200, 100, 50, 255)
    colours[0, 0] = (255, 0, 0, 51)
    white = made(png(colours)).pixels
    assert white.shape == (64, 64, 3) and white[0, 1].tolist() == [255] * 3 and white[20, 20].tolist() == [200, 100, 50]
    assert white[0, 0].tolist() == [255, 204, 204]
    masked = made(png(colours), masks=True, background=(0, 255, 0)).pixels
    assert masked[0, 1].tolist() == [0, 255, 0, 0] and masked[20, 20].tolist() == [200, 100, 50, 255]
    assert (masked[..., 3] == colours[..., 3]).all()
    assert (made(png(noise(1, 64, 64)), masks=True).pixels[..., 3] == 255).all()


def test_masks_are_scaled_beside_the_colours(made):
    """Not as colours that alpha weighs."""
    colours = numpy.full((128, 128, 4), 255, numpy.uint8)
    colours[:, :64] = (0, 0, 0, 0)
    found = made(png(colours), masks=True).pixels
    assert found.shape == (64, 64, 4)
    assert (found[..., :3] == 255).all() and (found[:, :28, 3] == 0).all() and (found[:, 36:, 3] == 255).all()


def test_palettes_and_grey_with_transparency(made):
    grey = numpy.full((64, 64), 7, numpy.uint8)
    assert (made(png(grey, transparent=struct.pack(">H", 7)), masks=True).pixels == (255, 255, 255, 0)).all()
    both = numpy.stack([grey, numpy.full_like(grey, 255)], axis=-1)
    assert (made(png(both), masks=True).pixels == (7, 7, 7, 255)).all()


def test_deep_grey_and_print_colours(made):
    values = numpy.full((64, 64), 65_535, numpy.uint16)
    values[:, :32] = 257 * 100
    for data in (png(values), grey_tiff(values, 16, 1)):
        assert set(made(data).pixels.ravel().tolist()) == {100, 255}
    red = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    assert numpy.abs(made(saved(red, "JPEG", quality=100)).pixels.astype(int) - (255, 0, 0)).max() <= 3


def test_kind_by_content(made):
    """kohya_ss 1718: the helper calls every file .png."""
    found = made(saved(Image.new("RGB", (64, 64), (10, 200, 30)), "JPEG", quality=100))
    assert numpy.abs(found.pixels.astype(int) - (10, 200, 30)).max() <= 3


XYZ = {"r": (0.4361, 0.2225, 0.0139), "g": (0.3851, 0.7169, 0.0971), "b": (0.1431, 0.0606, 0.7141)}  # of sRGB, D50


def profile(red="r", green="g", blue="b", space=b"RGB ", gamma=2.2):
    """An ICC profile of version 2 with the primaries of sRGB, perhaps changed about."""

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def xyz(values):
        return b"XYZ " + bytes(4) + b"".join(map(fixed, values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    name = b"made here\0"
    text = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": xyz((0.9642, 1, 0.8249))}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {b"rXYZ": xyz(XYZ[red]), b"gXYZ": xyz(XYZ[green]), b"bXYZ": xyz(XYZ[blue])}
        tags |= dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], curve)
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", place + len(body), len(data))
        body += data
    size = place + len(body)
    head = struct.pack(">I", size) + bytes(4) + bytes([2, 0x20, 0, 0]) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    head = (head + bytes(28) + b"".join(map(fixed, (0.9642, 1, 0.8249)))).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + body


def test_colour_profiles(made):
    """One whose red is sRGB's green, and so on, changes the channels about."""
    colours = numpy.zeros((64, 64, 3), numpy.uint8)
    colours[:] = (255, 0, 128)
    data = saved(Image.fromarray(colours), icc_profile=profile(red="g", green="b", blue="r"))
    found = made(data)
    assert not found.is_without_profile
    assert numpy.abs(found.pixels.astype(int) - (128, 255, 0)).max() <= 4
    alpha = Image.fromarray(numpy.dstack([colours, numpy.full((64, 64), 255, numpy.uint8)]))
    clear = made(saved(alpha, icc_profile=profile(red="g", green="b", blue="r")), masks=True)
    assert (clear.pixels[..., :3] == found.pixels).all() and (clear.pixels[..., 3] == 255).all()


def test_profiles_of_grey(made):
    """With a gamma of 1 the middle is 188 of sRGB."""
    grey = Image.new("L", (64, 64), 128)
    found = made(saved(grey, icc_profile=profile(space=b"GRAY", gamma=1.0)))
    assert numpy.abs(found.pixels.astype(int) - 188).max() <= 1
    linear = made(saved(grey, icc_profile=profile(gamma=1.0)))  # grey with a profile of colours
    assert numpy.abs(linear.pixels.astype(int) - 188).max() <= 1


def test_profiles_of_no_use(made):
    colours = noise(1, 64, 64)
    raw = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert not made(saved(Image.fromarray(colours), icc_profile=raw)).is_without_profile
    for broken in (b"not a profile", profile()[:200], profile(space=b"GRAY")):
        found = made(saved(Image.fromarray(colours), icc_profile=broken))
        assert found.is_without_profile and (found.pixels == colours).all()
