"""The prepared pictures on disk, beside the result, until all of them were seen: only then is it known which are
kept, and on which side. In memory stay a few numbers of each."""

import tempfile
from array import array

import numpy

DIGEST_BYTES = 32


class Store:
    """Pictures in the order in which they were appended, in a file without a name: it goes with this process."""

    def __init__(self, folder, channels):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by close())
        self.channels, self._digests, self._numbers, self._begins = channels, bytearray(), array("q"), array("q", [0])

    def __len__(self):
        return len(self._begins) - 1

    def append(self, prepared, source):
        """`source`: its index in the listing."""
        _, height, width = prepared.pixels.shape
        self._file.write(prepared.pixels.tobytes())
        self._digests += prepared.digest
        self._numbers.extend([source, height, width, *prepared.original[::-1], *prepared.bucket[::-1]])
        self._begins.append(self._begins[-1] + prepared.pixels.size)

    @property
    def digests(self):
        """u8 [pictures, 32]"""
        return numpy.frombuffer(bytes(self._digests), numpy.uint8).reshape(-1, DIGEST_BYTES)

    @property
    def labels(self):
        """u16 [pictures]: none is told from another by a class."""
        return numpy.zeros(len(self), numpy.uint16)

    @property
    def _table(self):
        return numpy.array(self._numbers, numpy.int64).reshape(-1, 7)

    @property
    def sources(self):
        return self._table[:, 0]

    @property
    def sizes(self):
        """i64 [pictures, 2]: height and width."""
        return self._table[:, 1:3]

    @property
    def originals(self):
        return self._table[:, 3:5]

    @property
    def buckets(self):
        return self._table[:, 5:7]

    def bytes_of(self, row):
        begin, end = self._begins[row], self._begins[row + 1]
        self._file.seek(begin)
        return self._file.read(end - begin)

    def pixels_of(self, row):
        """u8 [c, h, w]"""
        height, width = self._numbers[7 * row + 1 : 7 * row + 3]
        return numpy.frombuffer(self.bytes_of(row), numpy.uint8).reshape(self.channels, height, width)

    def close(self):
        self._file.close()
