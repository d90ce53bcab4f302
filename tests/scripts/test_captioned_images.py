"""Pictures with captions as users prepare them: the file that comes out, what is left out, how it is split."""

import hashlib
import json
import struct
import subprocess
import sys
import zlib

import h5py
import numpy
import pytest
from captioned import CaptionedFile, run_captioned, tokenizer_folder, vocabulary
from conftest import SCRIPTS
from lorascale_captions import making
from lorascale_captions.captioned_file import CaptionedFileWriter
from lorascale_captions.sheet import spread
from lorascale_data import token_file
from lorascale_images import image_file
from pictures import noise, run_images, write_tree
from PIL import Image

COUNT = len(vocabulary())


@pytest.fixture
def prepare(tmp_path):
    """prepare({name: pixels, bytes or caption}, *options): the file made of it."""

    def run(contents, *options, **named):
        write_tree(tmp_path / "in", {n: c.encode() if isinstance(c, str) else c for n, c in contents.items()})
        outcome = run_captioned(tmp_path / "in", tmp_path / "out.h5", "--force", *options, **named)
        assert outcome.code == 0, outcome.err
        result = CaptionedFile(tmp_path / "out.h5")
        result.outcome = outcome
        return result

    return run


def many(count, folder=""):
    """Square ones and ones twice as wide."""
    pictures = {f"{folder}{i:03}.png": noise(i, 16, 16 + 16 * (i % 2)) for i in range(count)}
    return {**pictures, **{name.replace("png", "txt"): f"cat, {name}" for name in pictures}}


def test_layout(tmp_path, monkeypatch):
    """Byte for byte, over several blocks of checks."""
    for module in (token_file, image_file):
        monkeypatch.setattr(module, "CHECKS_BLOCK", 1000)
    monkeypatch.setattr("lorascale_captions.captioned_file.CHECKS_BLOCK", 1000)
    tall, wide, other = noise(1, 24, 16), noise(2, 8, 32), noise(3, 8, 8)
    write_tree(tmp_path / "in", {"3_cat/b.png": wide, "3_cat/b.txt": b"photo, cat", "2_x/a.png": tall})
    write_tree(tmp_path / "prior", {"r.png": other, "r.txt": b"dog"})
    model = tmp_path / "model"
    for name in ("tokenizer", "tokenizer_2"):
        pad = {} if name == "tokenizer" else {"pad_token": "!"}
        tokenizer_folder(model / name, bos_token="<|startoftext|>", eos_token={"content": "<|endoftext|>"}, **pad)
    arguments = [tmp_path / "in", "--model", model, "--output", tmp_path / "o.h5", "--resolution", "64",
                 "--bucket-step", "8", "--regularisation", tmp_path / "prior"]  # fmt: skip
    assert run_images(*arguments).code == 0
    names = vocabulary()
    x, photo, cat, dog, comma = (names[name] for name in ("x</w>", "photo</w>", "cat</w>", "dog</w>", ",</w>"))
    pictures = [tall, wide, other]
    text, captions = b"2_x/a.png3_cat/b.pngr.png", b"xphoto, catdog"
    expected = {
        "pixels": numpy.concatenate([picture.transpose(2, 0, 1).ravel() for picture in pictures]),
        "heights": numpy.array([24, 8, 8], "<u4"),
        "widths": numpy.array([16, 32, 8], "<u4"),
        "original_heights": numpy.array([24, 8, 8], "<u4"),
        "original_widths": numpy.array([16, 32, 8], "<u4"),
        "bucket_heights": numpy.array([8, 8, 24], "<u4"),
        "bucket_widths": numpy.array([8, 32, 16], "<u4"),
        "bucket": numpy.array([2, 1, 0], "<u4"),
        "digests": numpy.frombuffer(b"".join(digest(picture) for picture in pictures), "u1"),
        "repeats": numpy.array([2, 3, 1], "<u4"),
        "regularisation": numpy.array([0, 0, 1], "u1"),
        "tokens": numpy.array([x, comma, x, photo, comma, photo, cat, comma, cat, dog, comma, dog], "<u4"),
        "tags": numpy.array([0, 2, 3, 5, 6, 8, 9, 11, 12], "<i8"),
        "caption_tags": numpy.array([0, 1, 3, 4], "<i8"),
        "captions/bytes": numpy.frombuffer(captions, "u1"),
        "captions/offsets": numpy.array([0, 1, 11, 14], "<i8"),
        "names/bytes": numpy.frombuffer(text, "u1"),
        "names/offsets": numpy.array([0, 9, 20, 25], "<i8"),
    }
    raw = (tmp_path / "o.h5").read_bytes()
    with h5py.File(tmp_path / "o.h5") as file:
        attributes = dict(file.attrs)
        assert json.loads(attributes.pop("settings"))["resolution"] == [64, 64]
        assert len(attributes.pop("tokenizer_sha256")) == 64
        numbers = {"version": 1, "channels": 3, "checks_block": 1000, "vocabulary": COUNT, "begin_token": COUNT - 2,
                   "end_token": COUNT - 1, "pad_token": COUNT - 1, "pad_token_2": names["!"]}  # fmt: skip
        assert attributes.pop("format") == "lorascale-captioned-images" and attributes == numbers
        assert {type(value) for value in attributes.values()} == {numpy.int64}
        found = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        checks = {name.removeprefix("checks/") for name in found if name.startswith("checks/")}
        assert checks == {name.split("/")[0] for name in expected}
        assert {name for name in found if not name.startswith("checks/")} == set(expected)
        for name, values in expected.items():
            dataset = file[name]
            assert (dataset.dtype, dataset.shape) == (values.dtype, values.shape), name
            assert dataset.chunks is None and dataset.compression is None
            place = dataset.id.get_offset()
            assert raw[place : place + values.nbytes] == values.tobytes(), name
        blocks = [expected["pixels"][i : i + 1000] for i in range(0, len(expected["pixels"]), 1000)]
        assert len(blocks) == 3
        assert file["checks/pixels"][:].tolist() == [zlib.crc32(block.tobytes()) for block in blocks]
        for name in checks - {"pixels"}:
            parts = [expected[part] for part in (name, f"{name}/bytes", f"{name}/offsets") if part in expected]
            assert file[f"checks/{name}"].dtype == "<u4"
            assert file[f"checks/{name}"][:].tolist() == [zlib.crc32(b"".join(p.tobytes() for p in parts))]


def digest(picture):
    height, width = picture.shape[:2]
    return hashlib.sha256(struct.pack("<qq", height, width) + picture.transpose(2, 0, 1).tobytes()).digest()


def test_no_captions_at_all(prepare, tmp_path):
    """Empty captions have no tags, and data sets without an element are whole."""
    data = prepare({"a.png": noise(1, 8, 8), "a.txt": ""})
    assert data.captions == [""] and data.tags("a.png") == []
    assert data.data["tags"].tolist() == [0] and data.data["caption_tags"].tolist() == [0, 0]
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["tokens"].shape == (0,) and file["checks/tokens"][:].tolist() == [0]


def test_duplicates_are_kept_once(prepare):
    contents = {"a.png": noise(1, 8, 8), "a.txt": "cat", "b.png": noise(1, 8, 8), "b.txt": "dog",
                "c.png": noise(2, 8, 8), "c.txt": "cat", "d.png": noise(2, 8, 8), "d.txt": "cat"}  # fmt: skip
    data = prepare(contents)
    assert data.names == ["a.png", "c.png"]
    assert "left out:   2 duplicates\n" in data.outcome.out
    assert "1 pictures are left out as duplicates, whose captions are others" in data.outcome.err
    assert data.outcome.err.endswith("(--no-deduplicate keeps them): b.png\n")
    assert len(prepare({}, "--no-deduplicate").names) == 4


def test_result_does_not_depend_on_workers(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "BATCH", 3)
    options = ("--validation", tmp_path / "v.h5", "--sheet", tmp_path / "s.png", "--masks")
    names = ("out.h5", "v.h5", "s.png")
    prepare(many(30), *options)
    files = [(tmp_path / name).read_bytes() for name in names]
    again = prepare({}, *options, "--workers", "3")
    assert files == [(tmp_path / name).read_bytes() for name in names]
    assert again.outcome.err == ""


def test_split(prepare, tmp_path):
    """By content, and regularisation is for training alone."""
    write_tree(tmp_path / "prior", {k: v if k.endswith("png") else v.encode() for k, v in many(40, "x").items()})
    contents = {n.replace("0", "q", 1): c for n, c in many(90).items() if not n.startswith("x")}
    for name in [name for name in contents if name.endswith("png")]:
        contents[name] = noise(1000 + int(name[1:3]), 16, 16)
    options = ("--validation", tmp_path / "v.h5", "--validation-fraction", "0.4")
    train = prepare(contents, *options, "--regularisation", tmp_path / "prior")
    validation = CaptionedFile(tmp_path / "v.h5")
    assert sum(train.regularisation) == 40 and sum(validation.regularisation) == 0
    assert train.regularisation == sorted(train.regularisation)
    assert len(train.names) + len(validation.names) == 130 and 20 <= len(validation.names) <= 55
    assert train.names == sorted(train.names[:-40]) + sorted(train.names[-40:])
    assert "and 40 for regularisation" in train.outcome.out


def test_repeats_are_recorded_and_counted(prepare, tmp_path):
    """SimpleTuner 745, OneTrainer 573: each picture is there once with its repeats, those of a bucket of its own,
    too, and the number of samples of an epoch is said."""
    contents = {f"4_dog/{i:02}.png": noise(i, 16, 16) for i in range(18)} | {"1_cat/wide.png": noise(50, 8, 48)}
    data = prepare(contents, "--repeats", "7")
    assert sorted(set(data.buckets)) == [(16, 16), (48, 8)] and data.repeats == [1] + [4] * 18
    assert "training:   19 pictures, 73 samples an epoch -> " in data.outcome.out
    assert "buckets: 48 x 8: 1, 16 x 16: 18\n" in data.outcome.out


def test_repeats_and_prefix_are_not_for_regularisation(prepare, tmp_path):
    write_tree(tmp_path / "prior", {"9_dog/r.png": noise(9, 8, 8)})
    contents = {"a.png": noise(1, 8, 8), "a.txt": "cat", "b.png": noise(2, 8, 8), "b.txt": ""}
    data = prepare(contents, "--prefix", " sks ", "--repeats", "3", "--regularisation", tmp_path / "prior")
    assert data.captions == ["sks, cat", "sks", "dog"] and data.repeats == [3, 3, 9]
    assert data.names == ["a.png", "b.png", "9_dog/r.png"]


def test_sheet(prepare, tmp_path):
    data = prepare(many(70), "--sheet", tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.format == "PNG" and sheet.size == (8 * 172, 8 * 242)
        pixels = numpy.asarray(sheet)
    assert (pixels[6 + 160 - 16 : 6 + 160, 6 + 72 : 6 + 88] == data.pixels("000.png")).all()
    assert (pixels[172:220, :172] < 128).any()  # the caption
    buckets = numpy.array([[1, 1]] * 100 + [[1, 2]] * 3)
    chosen = spread(buckets, 10)
    assert len(chosen) == 10 and (chosen >= 100).sum() == 3 and (numpy.diff(chosen) > 0).all()
    assert spread(buckets[:2], 10).tolist() == [0, 1]


def test_all_or_none(tmp_path):
    write_tree(tmp_path / "in", {"a.png": noise(1, 8, 8), "a.txt": b"x", "b.png": b"broken", "b.txt": b"x"})
    options = ("--sheet", tmp_path / "s.png")
    assert run_captioned(tmp_path / "in", tmp_path / "o.h5", *options).code == 65
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "in"]
    (tmp_path / "s.png").write_text("precious")
    outcome = run_captioned(tmp_path / "in", tmp_path / "o.h5", *options, "--skip-bad")
    assert outcome.code == 73 and "s.png: exists, --force replaces it" in outcome.err
    outcome = run_captioned(tmp_path / "in", tmp_path / "o.h5", "--sheet", tmp_path / "o.h5")
    assert outcome.code == 64 and "is --sheet and another file of this run" in outcome.err
    outcome = run_captioned(tmp_path / "in", tmp_path / "o.h5", "--sheet", tmp_path / "in/a.png", "--force")
    assert outcome.code == 64 and "a.png: is one of the pictures" in outcome.err


@pytest.mark.parametrize("part", ["write", "commit"])
def test_full_disk(tmp_path, monkeypatch, part):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    write_tree(tmp_path / "in", {"a.png": noise(1, 8, 8), "a.txt": b"cat"})
    monkeypatch.setattr(CaptionedFileWriter, part, refuse)
    outcome = run_captioned(tmp_path / "in", tmp_path / "o.h5", "--sheet", tmp_path / "s.png")
    assert outcome.code == 73 and "No space left on device, free some space" in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "in"]


def test_as_a_program(tmp_path):
    write_tree(tmp_path / "in", {"a.png": noise(1, 8, 8), "a.txt": b"cat"})
    folder = tokenizer_folder(tmp_path / "clip")
    arguments = [tmp_path / "in", "--tokenizer", folder, "--output", tmp_path / "o.h5", "--workers", "1"]
    program = [sys.executable, SCRIPTS / "prepare_images.py", *arguments]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 65 and "smaller than --bucket-step 64; --upscale enlarges it" in done.stderr
    done = subprocess.run([*program, "--upscale"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "enlarged:   1 pictures" in done.stdout
    assert CaptionedFile(tmp_path / "o.h5").sizes == [(512, 512)]
