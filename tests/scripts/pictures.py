"""Pictures as files, written without Pillow, and what prepare_images.py made of them, read without it."""

import struct
import zlib

import h5py
import numpy
import prepare_images
from conftest import outcome_of

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types of PNG


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, colour=None, palette=None, transparent=None):
    """The PNG of u8 or u16 [h, w] or [h, w, c]; `palette` [entries, 3], `transparent` the body of tRNS."""
    pixels = numpy.asarray(pixels)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    colour = {1: GREY, 2: GREY_ALPHA, 3: RGB, 4: RGBA}[channels] if colour is None else colour
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head)]
    if palette is not None:
        parts.append(chunk(b"PLTE", numpy.asarray(palette, numpy.uint8).tobytes()))
    if transparent is not None:
        parts.append(chunk(b"tRNS", transparent))
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def grey_tiff(values, bits, photometric, order="<"):
    """The TIFF of unsigned [h, w] of 12 or 16 bits, in one strip; photometric 0: 0 is white, 1: 0 is black."""
    height, width = values.shape
    if bits == 16:
        strip = values.astype(f"{order}u2").tobytes()
    else:  # the high bit first, each row from a byte of its own
        ones = (values[..., None] >> numpy.arange(bits - 1, -1, -1)) & 1
        strip = numpy.packbits(ones.reshape(height, -1), axis=1).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: height,
            279: len(strip)}  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    mark = {"<": b"II", ">": b"MM"}[order]
    return mark + struct.pack(f"{order}HIH", 42, 8, len(tags)) + entries + bytes(4) + strip


def noise(number, height=4, width=5, channels=3):
    """Pixels of their own for each number."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return numpy.random.default_rng(number).integers(0, 256, shape, numpy.uint8)


def write_tree(folder, contents):
    """{"cat/a.png": pixels or bytes}; None makes a folder."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else png(content))
    return folder


def run_images(*arguments):
    """Runs prepare_images.py in this process; one worker unless the arguments say otherwise."""
    arguments = [str(argument) for argument in arguments]
    if "--workers" not in arguments:
        arguments += ["--workers", "1"]
    return outcome_of(prepare_images.main, arguments)


class ImageFile:
    """An image file, read by its layout."""

    def __init__(self, path):
        with h5py.File(path) as file:
            self.attributes = dict(file.attrs)
            shape = [int(self.attributes[name]) for name in ("channels", "height", "width")]
            self.pixels = file["pixels"][:].reshape(-1, *shape)
            self.labels = file["labels"][:].tolist()
            self.classes, self.names = self._table(file["classes"]), self._table(file["names"])
            self.sums, self.squares = file["channel_sums"][:], file["channel_squares"][:]

    @staticmethod
    def _table(group):
        raw, ends = group["bytes"][:].tobytes(), group["offsets"][:].tolist()
        return [raw[begin:end].decode() for begin, end in zip(ends, ends[1:], strict=False)]

    def label_names(self):
        return {name: self.classes[label] for name, label in zip(self.names, self.labels, strict=True)}

    def picture(self, name):
        """[h, w, c]"""
        return self.pixels[self.names.index(name)].transpose(1, 2, 0)
