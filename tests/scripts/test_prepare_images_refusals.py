"""What the script refuses, passes over and leaves out; each in one line that says what to do."""

import os
import subprocess
import sys
import time

import h5py
import numpy
import pytest
from conftest import SCRIPTS
from lorascale_images import decoding, image_file, listing, making
from pictures import ImageFile, noise, png, run_images, write_tree

GOOD = {"a/1.png": noise(1), "a/2.png": noise(2), "b/1.png": noise(3)}


@pytest.fixture
def refused(tmp_path):
    """refused(*options): the one line of an error with its code; nothing is left behind."""

    def run(source, *options, code=65):
        before = sorted(file.name for file in tmp_path.iterdir())
        outcome = run_images(source, "--output", tmp_path / "o.h5", *options)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (code, "", 1), outcome.err
        assert sorted(file.name for file in tmp_path.iterdir()) == before
        return outcome.err.removeprefix("prepare_images: ").removesuffix("\n")

    return run


@pytest.fixture
def folder(tmp_path):
    return write_tree(tmp_path / "in", GOOD)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a/1.png": noise(1), "a/2.png": noise(2)}, "all pictures are of class a; to learn classes takes two"),
        ({**GOOD, "c": None}, "classes without a picture: c; remove their folders"),
        ({**GOOD, "c/readme.txt": b"x"}, "classes without a picture: c"),
        ({"a": None, "b": None}, "holds no picture, check the path and the names"),
        ({"x.png": noise(1)}, "holds no folder; make one for each class"),
        ({"train/a/1.png": noise(1), "Validation/b/1.png": noise(2)}, "parts of a data set and no classes; give one"),
        ({**GOOD, "x.png": noise(5)}, "x.png: has no class: it lies beside the folders"),
        ({**GOOD, "b/2.png": b"\x89PNG\r\n"}, "b/2.png: is no picture of a known kind, or damaged"),
        ({**GOOD, "b/2.png": noise(5, 3, 3)}, "b/2.png: is 3 x 3, where the first picture is 5 x 4; give --size"),
        ({**GOOD, "b/2.png": png(noise(5, 60, 60))[:500]}, "b/2.png: cannot be decoded (image file is truncated"),
    ],
)
def test_folders(refused, tmp_path, contents, message):
    assert message in refused(write_tree(tmp_path / "in", contents))


def test_a_picture_is_no_output(folder):
    picture = folder / "a/1.png"
    before = picture.read_bytes()
    outcome = run_images(folder, "--output", picture, "--force")
    assert outcome.code == 64 and f"{picture}: is one of the pictures, choose another name" in outcome.err
    assert picture.read_bytes() == before


def test_links(refused, folder, tmp_path):
    write_tree(tmp_path / "elsewhere", {"secret.png": noise(9)})
    (folder / "a/3.png").symlink_to(tmp_path / "elsewhere/secret.png")
    assert "a/3.png: is a link that leads out of the folder; copy the file" in refused(folder)
    (folder / "a/3.png").unlink()
    (folder / "a/nothing.png").symlink_to("gone.png")
    assert "a/nothing.png: cannot be read (No such file or directory), check" in refused(folder)
    (folder / "a/nothing.png").unlink()
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    assert "in/c: is a link to a folder and not followed" in refused(folder)


def test_a_pipe_is_not_waited_for(refused, folder):
    os.mkfifo(folder / "a/3.png")
    assert "a/3.png: is no file, remove it" in refused(folder)


def test_skip_bad_counts(folder, tmp_path):
    write_tree(folder, {"b/2.png": b"text", "b/3.png": noise(4, 9, 9), "c/1.png": b"", "d": None, "x.png": noise(5)})
    (folder / "b/4.png").symlink_to("/etc/hostname")
    outcome = run_images(folder, "--output", tmp_path / "o.h5", "--skip-bad")
    assert outcome.code == 0, outcome.err
    data = ImageFile(tmp_path / "o.h5")
    assert data.classes == ["a", "b"] and data.label_names() == {"a/1.png": "a", "a/2.png": "a", "b/1.png": "b"}
    assert "left out:   5 bad\n" in outcome.out and "b/2.png: is no picture" in outcome.out
    assert "2 classes without a picture are left out: c, d\n" in outcome.err


def test_classes_keep_their_pictures_where_one_is_left_out(tmp_path):
    write_tree(tmp_path / "in", {"a/1.png": b"", "b/1.png": noise(1), "c/1.png": noise(2)})
    assert run_images(tmp_path / "in", "--output", tmp_path / "o.h5", "--skip-bad").code == 0
    assert ImageFile(tmp_path / "o.h5").label_names() == {"b/1.png": "b", "c/1.png": "c"}


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a/1.png": b"", "b/1.png": b""}, "no picture is good, the first of them: "),
        ({"a/1.png": noise(1), "b/1.png": b""}, "all pictures are of class a"),
    ],
)
def test_too_little_is_left(refused, tmp_path, contents, message):
    assert message in refused(write_tree(tmp_path / "in", contents), "--skip-bad")


@pytest.mark.parametrize("known", [False, True], ids=["own classes", "classes from"])
@pytest.mark.parametrize("more", [{}, {"b/2.png": b""}], ids=["all good", "one bad"])
def test_all_equal_to_one_of_another_class(refused, folder, tmp_path, known, more):
    source = write_tree(tmp_path / "equal", {"a/1.png": noise(1), "b/1.png": noise(1), **more})
    options = ("--classes-from", tmp_path / "known.h5") if known else ()
    if known:
        assert run_images(folder, "--output", tmp_path / "known.h5").code == 0
    assert refused(source, "--skip-bad", *options) == (
        f"{source}: no picture is left: each that is good is equal to one of another class; "
        f"give equal pictures one class"
    )


def test_a_table_of_broken_rows_alone(refused, folder, tmp_path):
    (tmp_path / "in.csv").write_text("file,label\nin/a/1.png\nin/a/2.png\n")
    message = refused(tmp_path / "in.csv", "--skip-bad")
    table = tmp_path / "in.csv"
    assert message.startswith(f"{table}: no picture is good, the first of them: {table}:2: the row has 1 fields")


def test_many_classes_from_an_earlier_file(tmp_path):
    """Their number is no reason to take long: each is looked for among all."""
    known = [f"{i:05}" for i in range(30_000)]
    found = listing.Listing(tmp_path, [listing.Picture("x.png", "x.png", known[0], 0)], known, [])
    begin = time.process_time()
    making.Maker(found, making.Rules(decoding.Shape(3), known), making.Statistics(skip_bad=False))
    assert time.process_time() - begin < 2


def test_both_sides_are_checked_before_one_is_written(refused, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(image_file.ImageFileWriter, "write", lambda *_: pytest.fail("this can take an hour"))
    message = refused(folder, "--validation", tmp_path / "v.h5", "--validation-fraction", "0")
    assert message.startswith("no picture fell to validation: change --validation-fraction or --seed")


def test_what_is_passed_over(folder, tmp_path):
    write_tree(folder, {"a/notes.txt": b"x", "b/Thumbs.db": b"x", ".git/x.png": b"x", "a/.hidden.png": b"x",
                        "__MACOSX/a.png": b"x"})  # fmt: skip
    outcome = run_images(folder, "--output", tmp_path / "o.h5")
    assert outcome.code == 0
    assert "2 files passed over, no pictures by their names: a/notes.txt, b/Thumbs.db\n" in outcome.err
    assert ImageFile(tmp_path / "o.h5").names == sorted(GOOD)


@pytest.mark.parametrize(
    ("table", "options", "code", "message"),
    [
        ("file,class\na,b\n", (), 64, "in.csv: has no column label, but file, class; name the one of the label with"),
        ("file,label\nin/a/1.png,x\nin/a/2.png\n", (), 65, "in.csv:3: the row has 1 fields where the header has 2"),
        ("file,label\nin/a/1.png,x\nin/gone.png,y\n", (), 65, "in.csv:3: in/gone.png: cannot be read (No such file"),
        ("file,label\nin/a/1.png,x\nin/a,y\n", (), 65, "in.csv:3: in/a: is no file, remove it"),
        ("file,label\nin/a/1.png,x\n,y\n", (), 65, "in.csv:3: column file names no file"),
        ("file,label\nin/a/1.png, \n", (), 65, "in.csv:2: column label has no label"),
        ("file,label\n", (), 65, "in.csv: holds no row below a header"),
        ("", (), 65, "in.csv: holds no row below a header"),
        ("file,label\na,b\n", ("--columns", "files=x"), 64, "--columns files=x: give MEANING=KEY"),
        ("file,label\nin/a/1.png,x\nin/a/1.png,y\n", (), 65, "in.csv:3: in/a/1.png of class y; remove the wrong one"),
    ],
)
def test_tables(refused, folder, tmp_path, table, options, code, message):
    (tmp_path / "in.csv").write_text(table)
    assert message in refused(tmp_path / "in.csv", *options, code=code)


def test_inputs_that_are_neither(refused, folder, tmp_path):
    assert "there is no such file or folder" in refused(tmp_path / "gone")
    assert "is neither a folder with a folder for each class nor a table" in refused(folder / "a/1.png")


def test_options(refused, folder, tmp_path):
    for options, message in (
        (("--size", "0"), "0 is no size, such as 64"),
        (("--size", "9x"), "9x is no size"),
        (("--background", "whitish"), "whitish is no colour"),
        (("--validation-fraction", "0.1"), "--validation-fraction needs --validation"),
        (("--validation", tmp_path / "o.h5"), "are one file, give two"),
        (("--fit", "crop"), "--fit needs --size N or WxH"),
        (("--columns", "file=x"), f"--columns and --no-quotes need a table, and {folder} is a folder"),
        (("--no-quotes",), f"--columns and --no-quotes need a table, and {folder} is a folder"),
    ):
        assert message in refused(folder, *options, code=64)
    assert "no picture fell to validation" in refused(folder, "--validation", tmp_path / "v.h5", "--seed", "3",
                                                      "--validation-fraction", "0")  # fmt: skip


def test_classes_from(refused, folder, tmp_path):
    assert run_images(folder, "--output", tmp_path / "known.h5").code == 0
    strange = write_tree(tmp_path / "strange", {"a/1.png": noise(1), "zebra/1.png": noise(2)})
    message = refused(strange, "--classes-from", tmp_path / "known.h5", "--skip-bad")
    assert "classes that --classes-from does not know: zebra; it knows a, b" in message
    assert "no image file of this program" in refused(folder, "--classes-from", other_file(tmp_path))
    assert "is no HDF5 file of this program" in refused(folder, "--classes-from", folder / "a/1.png")
    assert "gone.h5: there is no such file; give an image file" in refused(folder, "--classes-from", folder / "gone.h5")
    assert "is an input too" in refused(folder, "--classes-from", tmp_path / "o.h5", code=64)


def other_file(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = "lorascale-tokens"
    return tmp_path / "other.h5"


def test_existing_output(refused, folder, tmp_path):
    (tmp_path / "o.h5").write_text("precious")
    assert "o.h5: exists, --force replaces it" in refused(folder, code=73)
    write_tree(folder, {"b/9.png": b""})
    assert "is empty" in refused(folder, "--force")
    assert (tmp_path / "o.h5").read_text() == "precious"


@pytest.mark.parametrize("part", ["write", "commit"])
def test_full_disk(folder, tmp_path, monkeypatch, part):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_file.ImageFileWriter, part, refuse)
    outcome = run_images(folder, "--output", tmp_path / "o.h5", "--validation", tmp_path / "v.h5",
                         "--validation-fraction", "0.5")  # fmt: skip
    assert outcome.code == 73 and "No space left on device, free some space" in outcome.err
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_as_a_program(folder, tmp_path):
    """It needs no tokenizers, and ends with the codes that it says."""
    program = [sys.executable, SCRIPTS / "prepare_images.py"]
    arguments = [folder, "--output", tmp_path / "o.h5"]
    code = "import sys; sys.modules['tokenizers'] = None; import prepare_images; sys.exit(prepare_images.main())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=SCRIPTS, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*program, *arguments], capture_output=True, text=True)
    assert done.returncode == 73 and done.stderr.startswith("prepare_images: ")
    assert numpy.array_equal(ImageFile(tmp_path / "o.h5").picture("b/1.png"), noise(3))
