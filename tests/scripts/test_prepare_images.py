"""The script as users run it: the file that comes out, its layout, what is left out, how it is split."""

import zlib

import h5py
import numpy
import pytest
from lorascale_data import token_file
from lorascale_images import image_file, making, scratch
from pictures import ImageFile, noise, png, run_images, write_tree


@pytest.fixture
def prepare(tmp_path):
    """prepare({name: pixels or bytes} or a table, *options): the image file made of it."""

    def run(contents, *options):
        source = tmp_path / "in"
        if isinstance(contents, str):
            source = tmp_path / "in.csv"
            source.write_text(contents)
        else:
            write_tree(source, contents)
        outcome = run_images(source, "--output", tmp_path / "out.h5", "--force", *options)
        assert outcome.code == 0, outcome.err
        result = ImageFile(tmp_path / "out.h5")
        result.outcome = outcome
        return result

    return run


def many(count, classes=("cat", "dog")):
    return {f"{classes[i % len(classes)]}/{i:03}.png": noise(i) for i in range(count)}


def test_folder(prepare):
    contents = {"dog/z.png": noise(1), "cat/b/deep.png": noise(2), "cat/a.PNG": noise(3), "cat/b.png": noise(4)}
    data = prepare(contents)
    assert data.classes == ["cat", "dog"] and data.labels == [0, 0, 0, 1]
    assert data.names == ["cat/a.PNG", "cat/b.png", "cat/b/deep.png", "dog/z.png"]
    for name, pixels in contents.items():
        assert (data.picture(name) == pixels).all()


def test_layout(tmp_path, monkeypatch):
    """Byte for byte, over several blocks of checks and of copied pictures."""
    for module in (token_file, image_file):
        monkeypatch.setattr(module, "CHECKS_BLOCK", 100)
    monkeypatch.setattr(image_file, "_COPIED_BYTES", 150)
    contents = many(101)
    write_tree(tmp_path / "in", contents)
    assert run_images(tmp_path / "in", "--output", tmp_path / "o.h5").code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "o.h5"]
    names = sorted(contents)
    pixels = numpy.stack([contents[name] for name in names])  # [n, h, w, c]
    labels = numpy.array([name.startswith("dog") for name in names], "<u2")
    text = "".join(names).encode()
    expected = {
        "pixels": pixels.transpose(0, 3, 1, 2).ravel(),
        "labels": labels,
        "classes/bytes": numpy.frombuffer(b"catdog", numpy.uint8),
        "classes/offsets": numpy.array([0, 3, 6], "<i8"),
        "names/bytes": numpy.frombuffer(text, numpy.uint8),
        "names/offsets": numpy.arange(0, len(text) + 1, 11, "<i8"),
        "channel_sums": pixels.sum((0, 1, 2), dtype="<i8"),
        "channel_squares": (pixels.astype("<i8") ** 2).sum((0, 1, 2)),
    }
    raw = (tmp_path / "o.h5").read_bytes()
    with h5py.File(tmp_path / "o.h5") as file:
        attributes = dict(file.attrs)
        assert attributes == {
            "format": "lorascale-images", "version": 1, "channels": 3, "height": 4, "width": 5, "checks_block": 100,
        }  # fmt: skip
        assert {type(value) for name, value in attributes.items() if name != "format"} == {numpy.int64}
        for name, values in expected.items():
            dataset = file[name]
            assert dataset.dtype == values.dtype and dataset.shape == values.shape
            assert dataset.chunks is None and dataset.compression is None
            place = dataset.id.get_offset()
            assert raw[place : place + values.nbytes] == values.tobytes(), name
        checks = {name: file[f"checks/{name}"] for name in ("pixels", "labels", "classes", "names", "channels")}
        assert set(file["checks"]) == set(checks) and all(check.dtype == "<u4" for check in checks.values())
        for name, size in (("pixels", 61), ("labels", 2)):
            parts = [expected[name][i : i + 100] for i in range(0, len(expected[name]), 100)]
            assert checks[name][:].tolist() == [zlib.crc32(part.tobytes()) for part in parts]
            assert len(parts) == size
        for name, parts in (
            ("classes", ("classes/bytes", "classes/offsets")),
            ("names", ("names/bytes", "names/offsets")),
            ("channels", ("channel_sums", "channel_squares")),
        ):
            assert checks[name][:].tolist() == [zlib.crc32(b"".join(expected[part].tobytes() for part in parts))]


def test_two_runs_with_one_output_share_no_scratch_file(tmp_path):
    ours, others = scratch.Scratch(tmp_path), scratch.Scratch(tmp_path)
    for i in range(3):
        ours.append(noise(i), 0, i)
        others.append(noise(9 + i), 0, i)
    assert (ours.pixels() == numpy.stack([noise(i).ravel() for i in range(3)])).all()
    assert (others.pixels() == numpy.stack([noise(9 + i).ravel() for i in range(3)])).all()
    assert list(tmp_path.iterdir()) == []  # whatever ends the process


def test_table(prepare, tmp_path):
    write_tree(tmp_path, {"pics/one.png": noise(1), "pics/two.png": noise(2), "three.png": noise(3)})
    data = prepare("file,label\npics/two.png,9\nthree.png, 10\npics/one.png,9\n")
    assert data.classes == ["9", "10"]  # by number
    assert data.label_names() == {"pics/two.png": "9", "three.png": "10", "pics/one.png": "9"}
    assert data.names == ["pics/two.png", "three.png", "pics/one.png"]
    assert (data.picture("three.png") == noise(3)).all()
    other = prepare('path\tk\tfile\npics/one.png\t"big, cat"\tx\nthree.png\tdog\ty\n', "--columns", "file=path,label=k")
    assert other.label_names() == {"pics/one.png": "big, cat", "three.png": "dog"}


def test_size_and_channels(prepare):
    data = prepare({"a/x.png": noise(1, 20, 31), "b/y.png": noise(2, 9, 9)}, "--size", "6x5", "--channels", "1")
    assert data.pixels.shape == (2, 1, 5, 6)
    assert "size:       6 x 5, 1 channel\n" in data.outcome.out and "enlarged" not in data.outcome.out
    data = prepare({}, "--size", "10")
    assert data.pixels.shape == (2, 3, 10, 10)
    assert "enlarged:   1 pictures" in data.outcome.out


def test_statistics_give_mean_and_deviation(prepare):
    data = prepare(many(20))
    values = data.pixels.astype(float).transpose(1, 0, 2, 3).reshape(3, -1)
    count = values.shape[1]
    assert numpy.allclose(data.sums / count, values.mean(1))
    assert numpy.allclose(data.squares / count - (data.sums / count) ** 2, values.var(1))
    assert f"values:     {values[0].mean():.1f} +- {values[0].std():.1f}," in data.outcome.out


def test_duplicates_are_kept_once(prepare):
    contents = {"a/1.png": noise(1), "a/2.png": noise(1), "a/0.png": noise(2), "b/1.png": noise(3)}
    data = prepare(contents)
    assert data.names == ["a/0.png", "a/1.png", "b/1.png"]
    assert "left out:   1 duplicates\n" in data.outcome.out
    assert len(prepare(contents, "--no-deduplicate").names) == 4


def test_equal_after_conversion_counts(prepare):
    grey = noise(4, channels=1)
    data = prepare({"a/1.png": grey, "a/2.png": grey[..., None].repeat(3, 2), "b/1.png": noise(5)})
    assert data.names == ["a/1.png", "b/1.png"]


def test_the_same_picture_of_two_classes(prepare, tmp_path):
    contents = {"a/1.png": noise(1), "a/2.png": noise(2), "b/1.png": noise(3), "b/2.png": noise(1), "b/3.png": noise(1)}
    write_tree(tmp_path / "in", contents)
    outcome = run_images(tmp_path / "in", "--output", tmp_path / "o.h5")
    assert outcome.code == 65 and outcome.err.count("\n") == 1
    assert "a/1.png is of class a, and the same pixels at" in outcome.err and "b/2.png of class b" in outcome.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in"]
    data = prepare({}, "--skip-bad")
    assert data.names == ["a/2.png", "b/1.png"]
    assert "3 equal to one of another class" in data.outcome.out
    assert len(prepare({}, "--no-deduplicate").names) == 5


def test_result_does_not_depend_on_workers(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "BATCH", 3)
    contents = {**many(40), "cat/double.png": noise(0)}
    options = ("--validation", tmp_path / "v.h5", "--size", "4")
    prepare(contents, *options)
    files = [(tmp_path / name).read_bytes() for name in ("out.h5", "v.h5")]
    prepare({}, *options, "--workers", "3")
    assert files == [(tmp_path / name).read_bytes() for name in ("out.h5", "v.h5")]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [((), [1, 2, 2, 2, 2, 1]), (("--size", "10"), [1] * 10), (("--size", "2x3"), [4, 4, 2])],
)
def test_batches_are_bounded_by_bytes(prepare, monkeypatch, options, sizes):
    """A picture of 4 x 5 in three channels is of 60 bytes; without --size it is the first one that says so."""
    monkeypatch.setattr(making, "BATCH", 4)
    monkeypatch.setattr(making, "BATCH_BYTES", 130)
    process, found = making.Decoder.process, []

    def counted(self, batch):
        found.append(len(batch))
        return process(self, batch)

    monkeypatch.setattr(making.Decoder, "process", counted)
    assert len(prepare(many(10), *options).names) == 10
    assert found == sizes


def test_split_by_content(prepare, tmp_path):
    options = ("--validation", tmp_path / "v.h5", "--validation-fraction", "0.3")
    train = prepare(many(200), *options)
    validation = ImageFile(tmp_path / "v.h5")
    assert validation.classes == train.classes
    assert sorted(train.names + validation.names) == sorted(many(200))
    assert 40 <= len(validation.names) <= 80
    assert f"validation: {len(validation.names)} pictures of 2 classes" in train.outcome.out
    # Other names, other neighbours, and the same pictures on the same sides.
    (tmp_path / "in").rename(tmp_path / "before")
    moved = {name.replace("/", "/x"): pixels for name, pixels in many(90).items()}
    prepare({"cat/aa.png": noise(777), **moved}, *options)
    again = set(ImageFile(tmp_path / "v.h5").names) - {"cat/aa.png"}
    assert again == {name.replace("/", "/x") for name in validation.names if name in many(90)}
    prepare({}, *options, "--seed", "1")
    assert set(ImageFile(tmp_path / "v.h5").names) - {"cat/aa.png"} != again


def test_copies_are_on_one_side(prepare, tmp_path):
    contents = {f"{name[:-4]}-{copy}.png": pixels for name, pixels in many(30).items() for copy in range(2)}
    options = ("--validation", tmp_path / "v.h5", "--validation-fraction", "0.5", "--no-deduplicate")
    train, validation = prepare(contents, *options), ImageFile(tmp_path / "v.h5")
    stems = [{name[:-6] for name in file.names} for file in (train, validation)]
    assert stems[0] and stems[1] and not stems[0] & stems[1]
    assert len(train.names) + len(validation.names) == 60


def test_classes_from_an_earlier_file(prepare, tmp_path):
    prepare({"cat/1.png": noise(1), "dog/1.png": noise(2), "eel/1.png": noise(3)}, "--size", "7x6", "--channels", "1")
    test = write_tree(tmp_path / "test", {"eel/1.png": noise(4, 9, 9), "dog/1.png": noise(5, 9, 9), "cat": None})
    outcome = run_images(test, "--classes-from", tmp_path / "out.h5", "--output", tmp_path / "t.h5")
    assert outcome.code == 0 and "warning: 1 classes have no picture: cat\n" in outcome.err
    data = ImageFile(tmp_path / "t.h5")
    assert data.classes == ["cat", "dog", "eel"] and data.labels == [1, 2]
    assert data.pixels.shape == (2, 1, 6, 7)


def test_links_within_the_folder(prepare, tmp_path):
    write_tree(tmp_path / "in", {"a/1.png": noise(1), "b/1.png": noise(2)})
    (tmp_path / "in/b/2.png").symlink_to("1.png")
    assert prepare({}).outcome.out.count("1 duplicates") == 1


def test_names_that_are_no_text(prepare, tmp_path):
    write_tree(tmp_path / "in", {"a/1.png": noise(1), "b/1.png": noise(2)})
    (tmp_path / "in/b/1.png").rename(tmp_path / "in/b/\udcff.png")
    assert prepare({}).names == ["a/1.png", "b/\\udcff.png"]


def test_progress_of_pictures():
    statistics = making.Statistics(skip_bad=False)
    statistics.total, statistics.done = 8_000, 2_000
    assert statistics.share == 0.25 and statistics.progress(4.0) == "2,000 pictures, 500 a second"


def test_png_of_the_helper_is_one():
    """Else the tests above would compare nothing."""
    pixels = noise(1)
    data = png(pixels)
    rows = zlib.decompress(data[data.index(b"IDAT") + 4 : -16])
    assert rows == b"".join(b"\0" + row.tobytes() for row in pixels)
