"""Captioned image files: HDF5 with the layout that the trainer reads (format "lorascale-captioned-images", version 1;
docs/captioned-images.md has all data sets). Each is one-dimensional, contiguous, unfiltered and little-endian."""

import zlib

import h5py
import numpy
from lorascale_data.token_file import CHECKS_BLOCK, BlockChecks, sync, write_table
from lorascale_images.image_file import ImageFileWriter, check_of

FORMAT = "lorascale-captioned-images"
VERSION = 1


class CaptionedFileWriter(ImageFileWriter):
    def write(self, attributes, store, rows, columns, tables):
        """Pictures `rows` of `store`; `attributes` of numbers and texts, `columns` {name: array of its final type},
        `tables` {name: [bytes of each picture]}."""
        self.pictures = len(rows)
        with h5py.File(self._temporary, "w", libver="earliest") as file:
            fixed = {"format": FORMAT, "version": VERSION, "checks_block": CHECKS_BLOCK}
            for name, value in {**fixed, **attributes}.items():
                file.attrs[name] = numpy.int64(value) if isinstance(value, int) else value
            checks = file.create_group("checks")
            checks["pixels"] = _copy_pixels(file, store, rows)
            for name, values in columns.items():
                values = numpy.ascontiguousarray(values, values.dtype.newbyteorder("<"))
                file.create_dataset(name, data=values)
                checks[name] = numpy.array([zlib.crc32(values.tobytes())], "<u4")
            for name, entries in tables.items():
                write_table(file, name, entries)
                checks[name] = check_of(file[name]["bytes"], file[name]["offsets"])
        sync(self._temporary)


def _copy_pixels(file, store, rows):
    """The checks of the blocks."""
    count = int(numpy.prod(store.sizes[rows], axis=1).sum()) * store.channels
    target, checks, first = file.create_dataset("pixels", (count,), "u1"), BlockChecks(1), 0
    for row in rows:
        raw = store.bytes_of(row)
        target[first : first + len(raw)] = numpy.frombuffer(raw, numpy.uint8)
        checks.add(raw)
        first += len(raw)
    return checks.values()
