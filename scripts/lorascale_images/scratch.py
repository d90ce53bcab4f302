"""The decoded pictures on disk, beside the result, until all of them were seen: only then is it known which
are kept, and on which side. In memory stay their digests, classes and places in the listing."""

import hashlib
import tempfile
from array import array

import numpy

DIGEST_BYTES = 16


class Scratch:
    """Pictures in the order in which they were appended, in a file without a name: it goes with this process, however
    that ends, and is no other run's."""

    def __init__(self, folder):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by close())
        self.shape = None  # [c, h, w], that of the first picture
        self._digests, self._labels, self._sources = bytearray(), array("H"), array("Q")

    def __len__(self):
        return len(self._labels)

    def append(self, pixels, label, source):
        """`pixels` u8 [c, h, w]; `label` an index of a class, `source` one of the listing."""
        self.shape = self.shape or pixels.shape
        raw = pixels.tobytes()
        self._file.write(raw)
        self._digests += hashlib.blake2b(raw, digest_size=DIGEST_BYTES).digest()
        self._labels.append(label)
        self._sources.append(source)

    @property
    def digests(self):
        """u8 [pictures, 16]"""
        return numpy.frombuffer(bytes(self._digests), numpy.uint8).reshape(-1, DIGEST_BYTES)

    @property
    def labels(self):
        return numpy.array(self._labels, numpy.uint16)

    @property
    def sources(self):
        return numpy.array(self._sources, numpy.int64)

    def pixels(self):
        """u8 [pictures, c * h * w], on disk."""
        self._file.flush()
        return numpy.memmap(self._file, numpy.uint8, "r").reshape(len(self), -1)

    def close(self):
        self._file.close()
