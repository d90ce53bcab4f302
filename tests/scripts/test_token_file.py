"""The layout on disk, exactly as the trainer expects it."""

import zlib

import h5py
import numpy
import pytest
from lorascale_data import token_file
from lorascale_data.digest_set import DigestSet
from lorascale_data.token_file import CHECKS_BLOCK, TokenFileWriter


class FewTokens:
    sha256 = "bytes"
    file_eos_id = 2

    def __init__(self, vocab_size=258):
        self.vocab_size = vocab_size

    def vocabulary_bytes(self):
        return [b"a", b"", b"\xff\n"]


def write(path, documents, masks=None, vocab_size=258):
    """Appends in batches of three documents; a batch's mask is None where none of its own is."""
    writer = TokenFileWriter(path, FewTokens(vocab_size))
    for first in range(0, len(documents), 3):
        batch = documents[first : first + 3]
        mask = masks and masks[first : first + 3]
        joined = numpy.concatenate(mask) if mask and mask[0] is not None else None
        writer.append(numpy.concatenate(batch), [len(each) for each in batch], joined)
    writer.finish()
    writer.commit(replace=False)
    return writer


@pytest.fixture
def random():
    return numpy.random.default_rng(7)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_layout(tmp_path, random, vocab_size, dtype):
    # Two full blocks and a short one.
    lengths = [CHECKS_BLOCK - 5, 3, 1, CHECKS_BLOCK, 17]
    documents = [random.integers(0, vocab_size, n).astype(dtype) for n in lengths]
    masks = [random.integers(0, 2, n).astype(numpy.uint8) for n in lengths]
    write(tmp_path / "a.h5", documents, masks, vocab_size)
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    raw = (tmp_path / "a.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        attributes = dict(file.attrs)
        assert attributes == {
            "format": "lorascale-tokens",
            "version": 1,
            "vocab_size": vocab_size,
            "tokenizer_sha256": "bytes",
            "eos_id": 2,
            "checks_block": 262_144,
        }
        assert {type(attributes[key]) for key in ("version", "vocab_size", "eos_id")} == {
            numpy.int64
        }
        expected = {
            "tokens": numpy.concatenate(documents),
            "loss_mask": numpy.concatenate(masks),
            "offsets": numpy.concatenate([[0], numpy.cumsum(lengths)]).astype("<i8"),
            "vocabulary/bytes": numpy.array([97, 255, 10], numpy.uint8),
            "vocabulary/offsets": numpy.array([0, 1, 1, 3], "<i8"),
        }
        for name, values in expected.items():
            dataset = file[name]
            assert dataset.dtype == values.dtype and dataset.shape == values.shape
            assert numpy.array_equal(dataset[:], values)
            assert dataset.chunks is None and dataset.compression is None
            # Contiguous: the bytes stand in the file as they are.
            place = dataset.id.get_offset()
            assert raw[place : place + values.nbytes] == values.tobytes()
        for name in ("tokens", "loss_mask"):
            values = expected[name]
            blocks = range(0, len(values), CHECKS_BLOCK)
            checks = [zlib.crc32(values[i : i + CHECKS_BLOCK].tobytes()) for i in blocks]
            assert file[f"checks/{name}"].dtype == "<u4"
            assert file[f"checks/{name}"][:].tolist() == checks and len(checks) == 3
        check = file["checks/offsets"]
        assert check.shape == (1,) and check.dtype == "<u4"
        assert check[0] == zlib.crc32(expected["offsets"].tobytes())


def test_mask_that_comes_late_is_one_before(tmp_path):
    documents = [numpy.full(2, i) for i in range(9)]
    masks = [None] * 3 + [numpy.array([0, 1], numpy.uint8)] * 3 + [None] * 3
    writer = write(tmp_path / "a.h5", documents, masks)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["loss_mask"][:].tolist() == [1] * 6 + [0, 1] * 3 + [1] * 6
    assert (writer.documents, writer.tokens, writer.targets) == (9, 18, 15)


def test_no_mask_where_all_tokens_are_targets(tmp_path):
    documents = [numpy.arange(4)] * 6
    write(tmp_path / "none.h5", documents)
    write(tmp_path / "ones.h5", documents, [numpy.ones(4, numpy.uint8)] * 6)
    for name in ("none.h5", "ones.h5"):
        with h5py.File(tmp_path / name) as file:
            assert "loss_mask" not in file and "loss_mask" not in file["checks"]


def test_discard_leaves_nothing(tmp_path):
    writer = TokenFileWriter(tmp_path / "a.h5", FewTokens())
    writer.append(numpy.arange(4), [4], numpy.array([0, 1, 1, 1]))
    writer.finish()
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_offsets_over_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(token_file, "CHECKS_BLOCK", 4)
    lengths = [1 + i % 3 for i in range(23)]
    write(tmp_path / "a.h5", [numpy.zeros(n) for n in lengths])
    with h5py.File(tmp_path / "a.h5") as file:
        offsets = file["offsets"][:]
        assert offsets.tolist() == [0, *numpy.cumsum(lengths).tolist()]
        assert file["checks/offsets"][0] == zlib.crc32(offsets.tobytes())


def test_a_block_that_is_full_has_no_empty_one_behind_it():
    checks = token_file.BlockChecks(2)
    checks.add(bytes(2 * CHECKS_BLOCK))
    assert checks.values().tolist() == [zlib.crc32(bytes(2 * 262_144))]


def test_digest_set_is_a_set(random):
    digests = [row.tobytes() for row in random.integers(0, 256, (20_000, 16), numpy.uint8)]
    digests += [bytes(16), bytes(8) + b"\5" * 8, b"\5" * 8 + bytes(8)]  # halves of zeros
    digests += digests[::3]
    ours, pythons = DigestSet(), set()
    for digest in digests:
        assert ours.add(digest) == (digest not in pythons)
        pythons.add(digest)
    assert len(ours) == len(pythons) == 20_003


def test_a_file_has_its_name_when_it_is_on_the_disk(tmp_path, monkeypatch):
    """Its contents are synced before the rename, and the folder that names it after."""
    done = []

    def note(name, original, of):
        monkeypatch.setattr(token_file.os, name, lambda *args: (done.append((name, of(*args))), original(*args))[1])

    note("fsync", token_file.os.fsync, lambda descriptor: token_file.os.fstat(descriptor).st_ino)
    note("link", token_file.os.link, lambda source, _: token_file.os.stat(source).st_ino)
    write(tmp_path / "t.h5", [numpy.array([1, 2])])
    file, folder = (tmp_path / "t.h5").stat().st_ino, tmp_path.stat().st_ino
    assert done == [("fsync", file), ("link", file), ("fsync", folder)]
