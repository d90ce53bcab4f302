"""Token files: HDF5 with the layout that the trainer reads (format "lorascale-tokens", version 1).

  /tokens     u16 (vocab_size <= 65536) or u32 [tokens], all documents back to back
  /offsets    i64 [documents + 1], document d is tokens[offsets[d]:offsets[d + 1]]
  /loss_mask  u8 [tokens], 1 = target; absent where every token is one
  /checks/... u32: zlib CRC-32 of each block of 262,144 elements; of all offsets together
  /vocabulary/bytes u8, /vocabulary/offsets i64 [vocab_size + 1]: the bytes that an id stands for
  /prompts/ids u32, /prompts/offsets i64 [prompts + 1]: prompts as ids, where there are any, and
  /prompts/texts/bytes u8, /prompts/texts/offsets i64 [prompts + 1]: their texts

All datasets are contiguous, unfiltered and little-endian, so the trainer reads them past the HDF5
library. Sizes are known only at the end: tokens first go to scratch files without a name beside the result,
which is then written under a name of its own, synced and renamed. A reader never sees half a file.
"""

import errno
import os
import tempfile
import zlib
from pathlib import Path

import h5py
import numpy

from .vocabulary import as_arrays

CHECKS_BLOCK = 262_144
FORMAT = "lorascale-tokens"
VERSION = 1


def token_type(vocab_size):
    return numpy.dtype("<u2" if vocab_size <= 65_536 else "<u4")


def write_table(file, name, entries):
    """Byte strings as GROUP/bytes and GROUP/offsets."""
    table, offsets = as_arrays(entries)
    group = file.create_group(name)
    group.create_dataset("bytes", data=table, dtype="u1")
    group.create_dataset("offsets", data=offsets, dtype="<i8")


def temporary_name(path):
    """Of this process alone: another run may write the same file."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def sync(path):
    with open(path, "rb") as written:
        os.fsync(written.fileno())


def give_name(temporary, path, replace):
    """A reader sees the old file or the whole new one, after a power cut, too. Without `replace` FileExistsError where
    there is one by now."""
    if replace:
        os.replace(temporary, path)
    else:
        _rename_to_new(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}  # what a file system without links says


def _rename_to_new(temporary, path):
    try:
        os.link(temporary, path)  # never replaces
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(temporary, path)
    else:
        os.unlink(temporary)


class BlockChecks:
    """The CRC-32 of each block of CHECKS_BLOCK elements of what passes by."""

    def __init__(self, itemsize):
        self._block = CHECKS_BLOCK * itemsize
        self._done, self._current, self._filled = [], 0, 0

    def add(self, raw):
        raw = memoryview(raw)
        while raw:
            part = raw[: self._block - self._filled]
            self._current = zlib.crc32(part, self._current)
            self._filled += len(part)
            raw = raw[len(part) :]
            if self._filled == self._block:
                self._done.append(self._current)
                self._current = self._filled = 0

    def values(self):
        return numpy.array([*self._done, self._current] if self._filled else self._done, "<u4")


class TokenFileWriter:
    """Collects documents, then `finish` writes the file and `commit` gives it its name. `discard`
    at any time before that leaves no trace. Raises OSError where the disk refuses."""

    def __init__(self, path, tokenizer):
        self.path = Path(path)
        self._tokenizer = tokenizer
        self.dtype = token_type(tokenizer.vocab_size)
        self.documents = self.tokens = self.targets = 0
        self._temporary = temporary_name(self.path)
        self._scratch = {}
        self._open("tokens")
        self._open("lengths")

    def _open(self, name):
        self._scratch[name] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115

    def append(self, tokens, lengths, mask):
        """`tokens` [n] of self.dtype, `lengths` [documents], each > 0; `mask` [n] u8 or None."""
        if mask is not None and "loss_mask" not in self._scratch:
            self._open("loss_mask")
            self._write_ones(self.tokens)
        if mask is not None:
            self._scratch["loss_mask"].write(numpy.ascontiguousarray(mask, numpy.uint8))
        elif "loss_mask" in self._scratch:
            self._write_ones(len(tokens))
        self._scratch["tokens"].write(numpy.ascontiguousarray(tokens, self.dtype))
        self._scratch["lengths"].write(numpy.ascontiguousarray(lengths, "<i8"))
        self.documents += len(lengths)
        self.tokens += len(tokens)
        self.targets += len(tokens) if mask is None else int(numpy.count_nonzero(mask))

    def _write_ones(self, count):
        ones = b"\1" * min(count, 1 << 20)
        while count > 0:
            count -= self._scratch["loss_mask"].write(ones[:count])

    def finish(self, prompts=None, answer_end_id=None):
        """`prompts`: {text: ids}; `answer_end_id`: the token that ends the answers of chats."""
        with h5py.File(self._temporary, "w", libver="earliest") as file:
            file.attrs["format"] = FORMAT
            file.attrs["version"] = numpy.int64(VERSION)
            file.attrs["vocab_size"] = numpy.int64(self._tokenizer.vocab_size)
            file.attrs["tokenizer_sha256"] = self._tokenizer.sha256
            file.attrs["eos_id"] = numpy.int64(self._tokenizer.file_eos_id)
            if answer_end_id is not None:
                file.attrs["answer_end_id"] = numpy.int64(answer_end_id)
            file.attrs["checks_block"] = numpy.int64(CHECKS_BLOCK)
            checks = file.create_group("checks")
            checks["tokens"] = self._copy(file, "tokens", self.dtype)
            if self.targets < self.tokens:
                checks["loss_mask"] = self._copy(file, "loss_mask", numpy.dtype("u1"))
            checks["offsets"] = self._copy_offsets(file)
            write_table(file, "vocabulary", self._tokenizer.vocabulary_bytes())
            if prompts:
                self._write_prompts(file, prompts)
        sync(self._temporary)

    def _copy(self, file, name, dtype):
        """Copies a scratch file into a dataset; returns the CRC-32 of each block."""
        source = self._scratch[name]
        source.seek(0)
        target = file.create_dataset(name, (self.tokens,), dtype)
        checks, first = BlockChecks(dtype.itemsize), 0
        while raw := source.read(CHECKS_BLOCK * dtype.itemsize):
            checks.add(raw)
            values = numpy.frombuffer(raw, dtype)
            target[first : first + len(values)] = values
            first += len(values)
        return checks.values()

    def _copy_offsets(self, file):
        source = self._scratch["lengths"]
        source.seek(0)
        target = file.create_dataset("offsets", (self.documents + 1,), "<i8")
        target[0] = 0
        check, first, end = zlib.crc32(bytes(8)), 1, 0
        while raw := source.read(8 * CHECKS_BLOCK):
            offsets = numpy.cumsum(numpy.frombuffer(raw, "<i8")) + end
            target[first : first + len(offsets)] = offsets
            check = zlib.crc32(offsets.astype("<i8"), check)
            first, end = first + len(offsets), int(offsets[-1])
        return numpy.array([check], "<u4")

    def _write_prompts(self, file, prompts):
        write_table(file, "prompts/texts", [text.encode() for text in prompts])
        ids = list(prompts.values())
        ends = numpy.cumsum([len(prompt) for prompt in ids])
        file["prompts/ids"] = numpy.concatenate(ids).astype("<u4")
        file["prompts/offsets"] = numpy.concatenate([[0], ends]).astype("<i8")

    def commit(self, replace):
        give_name(self._temporary, self.path, replace)
        self.discard()

    def discard(self):
        for file in self._scratch.values():
            file.close()
        self._scratch = {}
        self._temporary.unlink(missing_ok=True)
