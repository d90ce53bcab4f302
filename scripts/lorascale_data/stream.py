"""A file's bytes in order, unpacked while they are read. Memory is bounded by one block."""

import bz2
import codecs
import gzip
import lzma
import os
import stat
import zlib
from pathlib import Path

from .errors import BAD_INPUT, PrepareError

MAX_RECORD_BYTES = 64 << 20
READ_BYTES = 1 << 20
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
PACKED_SUFFIXES = frozenset([".gz", ".bz2", ".xz", ".zst"])
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


class Stream:
    """An open file; `position` is how many of its `size` bytes on disk were consumed."""

    def __init__(self, path):
        self.path = Path(path)
        try:
            self._raw = open(self.path, "rb")  # noqa: SIM115 (closed by close())
            status = os.fstat(self._raw.fileno())
            self.size, self.is_regular = status.st_size, stat.S_ISREG(status.st_mode)
            begin = self._raw.peek(6)
            self.packing = next(
                (name for magic, name in _PACKED.items() if begin.startswith(magic)), None
            )
            self._file = self._unpacked()
            # One system call a read: read() loops, and loses Ctrl-C where a pipe falls silent.
            self._read_some = self._file.read if self.packing else self._file.read1
            self.head = self._read_head()
        except OSError as error:
            raise self._unreadable(error) from error
        self._bom = self.head.startswith(codecs.BOM_UTF8)
        self.head = self.head.removeprefix(codecs.BOM_UTF8)

    @property
    def position(self):
        return self._raw.tell() if self._raw.seekable() else 0  # a pipe has no size either

    @property
    def is_whole(self):
        """Whether the head is all there is."""
        return len(self.head) + 3 * self._bom < READ_BYTES

    def close(self):
        self._raw.close()

    def fail(self, line, message):
        return PrepareError(BAD_INPUT, f"{self.path}:{line}: {message}")

    def blocks(self):
        block, self.head = self.head, b""
        while block:
            yield block
            block = self._read(READ_BYTES)

    def lines(self, too_long):
        """Yields (number from 1, line with its line end); `too_long`(line) is the error of a line
        beyond MAX_RECORD_BYTES."""
        number, rest = 1, b""
        for block in self.blocks():
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield number, line + b"\n"
                number += 1
            if len(rest) > MAX_RECORD_BYTES:
                raise too_long(number)
        if rest:
            yield number, rest

    def too_long(self, line, remedy=""):
        return self.fail(line, f"one record has over {MAX_RECORD_BYTES >> 20} MiB; cut it up{remedy}")

    def _unpacked(self):
        if self.packing == "gzip":
            return gzip.open(self._raw)
        if self.packing == "bzip2":
            return bz2.open(self._raw)
        if self.packing == "xz":
            return lzma.open(self._raw)
        if self.packing == "zstd":
            try:
                import pyarrow
            except ImportError as error:
                raise PrepareError(
                    BAD_INPUT, f"{self.path}: is a zstd file, unpack it with zstd -d"
                ) from error
            return pyarrow.CompressedInputStream(pyarrow.PythonFile(self._raw, mode="r"), "zstd")
        return self._raw

    def _unreadable(self, error):
        reason = getattr(error, "strerror", None) or str(error)
        return PrepareError(BAD_INPUT, f"{self.path}: cannot be read ({reason}), check the path")

    def _read_head(self):
        head = b""
        while len(head) < READ_BYTES and (more := self._read(READ_BYTES - len(head))):
            head += more
        return head

    def _read(self, count):
        """Up to `count` bytes more of the unpacked contents; b"" at the end."""
        try:
            return self._read_some(count)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        except OSError as error:
            if self.packing and error.errno is None:  # what bz2 and zstd raise
                raise self._damaged(error) from error
            raise self._unreadable(error) from error

    def _damaged(self, error):
        return PrepareError(
            BAD_INPUT, f"{self.path}: damaged {self.packing} file ({error}), fetch it again"
        )
