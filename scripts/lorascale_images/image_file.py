"""Image files: HDF5 with the layout that the trainer reads (format "lorascale-images", version 1).

  /pixels           u8 [n * channels * height * width], picture after picture, each [c, h, w]
  /labels           u16 [n], the index of its class
  /classes/bytes    u8, /classes/offsets i64 [classes + 1]: the names of the classes, UTF-8
  /names/bytes      u8, /names/offsets i64 [n + 1]: where each picture came from
  /channel_sums     i64 [c], /channel_squares i64 [c]: sums of x and of x * x over all pictures, x in 0..255
  /checks/...       u32: zlib CRC-32 of each block of 262,144 elements of pixels and of labels; of classes,
                    names and channels one, over their two data sets one after the other

All datasets are one-dimensional, contiguous, unfiltered and little-endian, so the trainer reads them past
the HDF5 library. Written under a name of its own, synced and renamed: a reader never sees half a file.
"""

import zlib
from pathlib import Path

import h5py
import numpy
from lorascale_data.errors import BAD_INPUT, PrepareError
from lorascale_data.token_file import CHECKS_BLOCK, BlockChecks, give_name, sync, temporary_name, write_table

FORMAT = "lorascale-images"
VERSION = 1
_COPIED_BYTES = 4 << 20


class ImageFileWriter:
    """`write` writes the file and `commit` gives it its name. `discard` at any time before that leaves no
    trace. Raises OSError where the disk refuses."""

    def __init__(self, path):
        self.path = Path(path)
        self._temporary = temporary_name(self.path)
        self.pictures = 0

    def write(self, shape, pixels, rows, labels, classes, names):
        """Pictures `rows` of `pixels` [all, c * h * w]; `labels` u16, `names` and `classes` as bytes."""
        self.pictures = len(rows)
        with h5py.File(self._temporary, "w", libver="earliest") as file:
            file.attrs["format"] = FORMAT
            file.attrs["version"] = numpy.int64(VERSION)
            for name, value in zip(("channels", "height", "width"), shape, strict=True):
                file.attrs[name] = numpy.int64(value)
            file.attrs["checks_block"] = numpy.int64(CHECKS_BLOCK)
            checks = file.create_group("checks")
            checks["pixels"], statistics = _copy_pixels(file, shape, pixels, rows)
            labels = numpy.ascontiguousarray(labels, "<u2")
            file.create_dataset("labels", data=labels)
            label_checks = BlockChecks(labels.itemsize)
            label_checks.add(labels.tobytes())
            checks["labels"] = label_checks.values()
            for name, entries in (("classes", classes), ("names", names)):
                write_table(file, name, entries)
                checks[name] = check_of(file[name]["bytes"], file[name]["offsets"])
            for name, values in zip(("channel_sums", "channel_squares"), statistics, strict=True):
                file.create_dataset(name, data=values.astype("<i8"))
            checks["channels"] = check_of(file["channel_sums"], file["channel_squares"])
        sync(self._temporary)

    def commit(self, replace):
        give_name(self._temporary, self.path, replace)

    def discard(self):
        self._temporary.unlink(missing_ok=True)


def _copy_pixels(file, shape, pixels, rows):
    """The checks of the blocks, and i64 [2, c]: sums and sums of squares."""
    size = pixels.shape[1]
    target = file.create_dataset("pixels", (len(rows) * size,), "u1")
    checks, statistics = BlockChecks(1), numpy.zeros((2, shape[0]), numpy.int64)
    step = max(1, _COPIED_BYTES // size)
    squares = numpy.arange(256, dtype=numpy.int64) ** 2
    for first in range(0, len(rows), step):
        part = pixels[rows[first : first + step]]
        target[first * size : first * size + part.size] = part.ravel()
        checks.add(part.tobytes())
        by_channel = part.reshape(len(part), shape[0], -1)
        for channel in range(shape[0]):
            counts = numpy.bincount(by_channel[:, channel].ravel(), minlength=256)
            statistics[:, channel] += (counts @ numpy.arange(256), counts @ squares)
    return checks.values(), statistics


def check_of(*datasets):
    """u32 [1]: the CRC-32 of all of them, one after the other."""
    check = 0
    for dataset in datasets:
        check = zlib.crc32(dataset[:].tobytes(), check)
    return numpy.array([check], "<u4")


def _why_unreadable(path):
    if not path.exists():
        return "there is no such file"
    return "is no HDF5 file of this program, or is damaged" if path.is_file() else "is no file"


def read_head(path):
    """(classes, (channels, height, width)) of a file made earlier."""
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
                raise PrepareError(BAD_INPUT, f"{path}: is no image file of this program; give one that it made")
            table = file["classes/bytes"][:].tobytes()
            ends = file["classes/offsets"][:].tolist()
            shape = tuple(int(file.attrs[name]) for name in ("channels", "height", "width"))
            classes = [table[begin:end].decode() for begin, end in zip(ends, ends[1:], strict=False)]
    except (OSError, KeyError, ValueError) as error:
        raise PrepareError(BAD_INPUT, f"{path}: {_why_unreadable(path)}; give an image file") from error
    return classes, shape
