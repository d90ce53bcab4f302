"""Where captions come from, in every layout, and what is refused of them: each in one line that says what to do."""

import json
import os
import struct
import zlib

import pytest
from captioned import CaptionedFile, run_captioned
from pictures import chunk, noise, png, write_tree

A, B, C = noise(1, 8, 8), noise(2, 8, 8), noise(3, 8, 8)


def encoded(contents):
    return {name: text.encode() if isinstance(text, str) else text for name, text in contents.items()}


@pytest.fixture
def captions(tmp_path):
    """captions({name: pixels, bytes or text}, *options): {name: caption} of what was made of it."""

    def run(contents, *options, source="in"):
        write_tree(tmp_path / "in", encoded(contents))
        outcome = run_captioned(tmp_path / source, tmp_path / "o.h5", "--force", *options)
        assert outcome.code == 0, outcome.err
        data = CaptionedFile(tmp_path / "o.h5")
        run.warnings, run.out, run.repeats = outcome.err, outcome.out, dict(zip(data.names, data.repeats, strict=True))
        return dict(zip(data.names, data.captions, strict=True))

    return run


@pytest.fixture
def refused(tmp_path):
    """refused({name: contents}, *options): the one line of the error; nothing is left behind."""

    def run(contents, *options, code=65, source="in"):
        write_tree(tmp_path / "in", encoded(contents))
        (tmp_path / "o.h5").unlink(missing_ok=True)
        outcome = run_captioned(tmp_path / source, tmp_path / "o.h5", *options)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (code, "", 1), outcome.err
        assert not [name for name in os.listdir(tmp_path) if name.startswith("o.h5")]
        return outcome.err.removeprefix("prepare_images: ").removesuffix("\n")

    return run


@pytest.mark.parametrize(
    "table",
    [
        'filename,prompt\nb.png,"a dog, big"\nsub/a.png,a cat\n',
        'file_name,text\nb.png,"a dog, big"\nsub/a.png,a cat\n',
        '\ufefffile,caption\r\nb.png,"a dog, big"\r\nsub/a.png,a cat\r\n',
        "file_name;text\nb.png;a dog, big\nsub/a.png;a cat\n",
    ],
)
def test_metadata_csv(captions, table):
    found = captions({"b.png": A, "sub/a.png": B, "c.png": C, "metadata.csv": table}, "--repeats", "2")
    assert found == {"b.png": "a dog, big", "sub/a.png": "a cat"}
    assert captions.repeats == {"b.png": 2, "sub/a.png": 2}
    assert "1 pictures without a row, not used: c.png\n" in captions.warnings


def test_metadata_jsonl(captions):
    lines = [{"file_name": "a.png", "text": "a cat", "width": 9}, {"file": "b.png", "caption": "dög"}]
    found = captions({"a.png": A, "b.png": B, "metadata.jsonl": "\n".join(map(json.dumps, lines)) + "\n\n"})
    assert found == {"a.png": "a cat", "b.png": "dög"}
    assert "metadata.jsonl: not used: width\n" in captions.warnings


def test_a_table_by_its_name_and_columns_of_other_names(captions):
    contents = {"a.png": A, "list.csv": "path,text,prompt\na.png,one,two\n"}
    assert captions(contents, "--columns", "file=path,caption=prompt", source="in/list.csv") == {"a.png": "two"}


def test_sidecars(captions):
    contents = {"a.png": A, "a.txt": "a cat\r\nsecond line\r\n", "sub/b.png": B, "sub/b.txt": "\n  dog  \n", "c.png": C}
    found = captions({**contents, ".hidden.png": A, "notes.md": "x"})
    assert found == {"a.png": "a cat", "sub/b.png": "dog", "c.png": ""}
    assert "1 of 3 pictures have no .txt beside them, no caption is taken: c.png\n" in captions.warnings
    assert "1 captions have several lines, of which the first is taken: a.png\n" in captions.warnings
    found = captions({"a.caption": "other", "c.caption": "third"}, "--caption-extension", ".caption")
    assert found == {"a.png": "other", "sub/b.png": "", "c.png": "third"}


def test_folders_with_repeats(captions):
    contents = {"10_sks dog/a.png": A, "10_sks dog/a.txt": "sks dog, grass", "3_cat_toy/deep/b.png": B, "0_x/c.png": C}
    found = captions(contents, "--repeats", "5")
    assert found == {"10_sks dog/a.png": "sks dog, grass", "3_cat_toy/deep/b.png": "cat_toy"}
    assert captions.repeats == {"10_sks dog/a.png": 10, "3_cat_toy/deep/b.png": 3}
    assert "0_x: 0 repeats, not used\n" in captions.warnings
    assert "pictures have no .txt beside them, the words of their folders are taken" in captions.warnings
    assert captions({}, "--prefix", "ink")["3_cat_toy/deep/b.png"] == "ink, cat_toy"


def test_captions_that_the_setting_does_not_expect(refused):
    """bmaltais/kohya_ss 927, also where a folder's words would do."""
    contents = {f"{i:02}.png": noise(i, 8, 8) for i in range(30)} | {f"{i:02}.txt": "x" for i in range(30)}
    message = refused(contents, "--caption-extension", ".caption")
    expected = "0 of 30 pictures have captions; 30 .txt files lie beside them, which --caption-extension .txt takes"
    assert message.endswith(expected)
    classes = {"2_dog/a.png": A, "2_dog/a.caption": "x"}
    assert "0 of 1 pictures have captions; 1 .caption files" in refused(classes, source="in/2_dog")


def test_words_of_a_folder_do_not_hide_captions(refused):
    assert "1 .caption files lie beside them" in refused({"2_dog/a.png": A, "2_dog/a.caption": "x"})


def test_no_captions(captions, refused):
    message = "0 of 1 pictures have captions; write one beside each (NAME.txt), or metadata.csv, or give --prefix TEXT"
    assert message in refused({"a.png": A})
    assert captions({}, "--prefix", "sks style") == {"a.png": "sks style"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("it’s".encode("cp1252"), "a.txt: byte 2 (0x92) is no UTF-8; save it as UTF-8, or read it with "
         "--caption-encoding cp1252 if it is that"),
        ("cat".encode("utf-16"), "a.txt: byte 0 (0xff) is no UTF-8; save it as UTF-8, or read it with "
         "--caption-encoding utf-16 if"),
        (b"c\0a\0t\0", "a.txt: the caption has a NUL as its character 2"),
        (b"x" * (2 << 20), "a.txt: has over 1 MiB and is no caption, remove it"),
        (b"\xef\xbb\xbfab\x92", "a.txt: byte 5 (0x92)"),
        (b"a <|endoftext|> b", "a.png: the caption has a character or word that the tokenizer reads as the end"),
    ],
)  # fmt: skip
def test_encodings_that_are_refused(refused, captions, raw, message):
    """ai-toolkit 113, lora-scripts 218, sd-scripts 513."""
    assert message in refused({"a.png": A, "a.txt": raw, "b.png": B, "b.txt": "dog"})
    assert captions({}, "--skip-bad") == {"b.png": "dog"} and "left out:   1 bad\n" in captions.out


def test_encodings_that_are_read(captions):
    assert captions({"a.png": A, "a.txt": b"\xef\xbb\xbfcat", "b.png": B, "b.txt": b""}) == {
        "a.png": "cat",
        "b.png": "",
    }
    assert captions({"a.txt": "it’s".encode("cp1252")}, "--caption-encoding", "cp1252")["a.png"] == "it’s"
    assert "1 captions have curly quotes or HTML entities" in captions.warnings and captions.warnings.count("\n") == 1
    wide = {"a.txt": "dög".encode("utf-16"), "b.txt": "x".encode("utf-16")}
    assert captions(wide, "--caption-encoding", "utf-16") == {"a.png": "dög", "b.png": "x"}


def test_encodings_of_metadata(captions, refused):
    table = "file_name,text\na.png,it’s\n".encode("cp1252")
    message = refused({"a.png": A, "metadata.csv": table}, "--skip-bad")
    assert "metadata.csv: byte 23 (0x92) is no UTF-8; save it as UTF-8, or read it with --caption-encoding" in message
    assert captions({}, "--caption-encoding", "cp1252") == {"a.png": "it’s"}
    table = "file_name,text\na.png,dög\n".encode("utf-16")
    assert captions({"metadata.csv": table}, "--caption-encoding", "utf-16") == {"a.png": "dög"}
    raw = (
        b"file_name,text\n" + (b"b.png," + b"x" * 1000 + b"\n") * 1200 + b"a.png,\xff\n"
    )  # beyond what is read at once
    assert f"byte {len(raw) - 2} (0xff)" in refused({"metadata.csv": raw, "b.png": png(B)})


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("metadata.csv", "file_name,text\n../x.png,a\n", "metadata.csv:2: ../x.png leads out of the folder of"),
        ("metadata.csv", "file_name,text\nsub/../a.png,a\n", "metadata.csv:2: sub/../a.png leads out of the folder"),
        ("metadata.csv", "file_name,text\n/etc/hostname,a\n", "metadata.csv:2: /etc/hostname leads out of the folder"),
        ("metadata.csv", "file_name,text\nlink.png,a\n", "metadata.csv:2: link.png leads out of the folder"),
        ("metadata.csv", "file_name,text\nout/x.png,a\n", "metadata.csv:2: out/x.png leads out of the folder"),
        ("metadata.csv", "file_name,text\na\0.png,a\n", "metadata.csv:2: file_name names no file"),
        ("metadata.csv", "file_name,text\na.png,a\0b\n", "metadata.csv:2: the caption has a NUL as its character 2"),
        ("metadata.csv", "file_name,text\na.png,a, b\n", "metadata.csv:2: the row has 3 fields where the header has 2"),
        ("metadata.csv", 'file_name,text\na.png,"a\n', "metadata.csv:2: the quote that this row opens is not closed"),
        ("metadata.csv", "file_name,text\ngone.png,a\n", "gone.png: cannot be read (No such file or directory)"),
        ("metadata.csv", "file_name,text\n", "metadata.csv: holds no row with a picture"),
        ("metadata.csv", "", "metadata.csv: holds no row with a picture"),
        ("metadata.csv", "file_name,words\na.png,a\n", "names no caption (text, prompt, caption), but file_name, "
         "words; name its column with --columns caption=NAME"),
        ("metadata.csv", "file_name,text,prompt\na.png,a,b\n", "has text and prompt, which both may be the caption; "
         "choose one with --columns caption=NAME"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x"\n', "metadata.jsonl:1: not valid JSON ("),
        ("metadata.jsonl", "[" * 100_000, "metadata.jsonl:1: not valid JSON (RecursionError)"),
        ("metadata.jsonl", '["a.png", "x"]\n', "metadata.jsonl:1: a list and no JSON object"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": 5}\n', 'metadata.jsonl:1: "text" is a number, it must be'),
        ("metadata.jsonl", '{"file_name": "a.png", "text": null}\n', 'metadata.jsonl:1: "text" is a null, it must be'),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "\\ud800"}\n', "metadata.jsonl:1: the caption has half of"),
        ("metadata.jsonl", '{"file_name": "\\ud800", "text": "x"}\n', "metadata.jsonl:1: file_name names no file"),
        ("metadata.jsonl", '{"file_name": "b.png", "text": "x"}\n{"file_name": "a.png"}\n', "metadata.jsonl:2: names"),
    ],
)  # fmt: skip
def test_metadata_that_is_refused(refused, tmp_path, name, table, message):
    write_tree(tmp_path, {"elsewhere/x.png": C, "in/a.png": A, "in/b.png": B, "x.png": C})
    (tmp_path / "in/link.png").symlink_to("../x.png")
    (tmp_path / "in/out").symlink_to(tmp_path / "elsewhere")
    assert message in refused({name: table})


def test_two_tables(refused):
    contents = {"a.png": A, "metadata.csv": "file_name,text\na.png,x\n", "metadata.jsonl": "{}"}
    assert "holds metadata.csv and metadata.jsonl, remove one of them" in refused(contents)


def test_links_that_lead_out(refused, captions, tmp_path):
    """Not even a caption is read from elsewhere."""
    write_tree(tmp_path, {"secret.txt": b"password", "x.png": C, "in/a.png": A, "in/b.png": B, "in/b.txt": b"dog"})
    (tmp_path / "in/a.txt").symlink_to("../secret.txt")
    (tmp_path / "in/c.png").symlink_to("../x.png")
    message = refused({})
    assert message.startswith("2 bad pictures: ") and "in/a.txt: is a link that leads out of the folder" in message
    assert "in/c.png: is a link that leads out" in message and message.endswith("(--skip-bad leaves bad pictures out)")
    assert captions({}, "--skip-bad") == {"a.png": "", "b.png": "dog"}


def test_pictures_beside_the_folders(refused):
    contents = {"2_dog/a.png": A, "b.png": B, "cat/c.png": C}
    message = refused(contents)
    assert message.count("lies beside the folders N_class and not in one; move it into one") == 2


def bomb():
    """A PNG that says it is of 100,000 x 100,000 pixels."""
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_damaged_pictures_are_named(refused, captions, tmp_path):
    """bmaltais/kohya_ss 1718, sd-scripts 1385: found here, all of them, and not in training."""
    contents = {"a.png": A, "cut.png": png(noise(5, 60, 60))[:900], "empty.png": b"", "bomb.png": bomb(),
                "text.png": b"hello", "z.png": B}  # fmt: skip
    captioned = {**contents, **{name.replace("png", "txt"): "cat" for name in contents}}
    message = refused(captioned)
    assert message.startswith("4 bad pictures: ")
    for part in ("bomb.png: has over 134,217,728 pixels", "cut.png: cannot be decoded (image file is truncated",
                 "empty.png: is empty", "text.png: is no picture of a known kind"):  # fmt: skip
        assert part in message
    assert captions({}, "--skip-bad") == {"a.png": "cat", "z.png": "cat"}
    os.mkfifo(tmp_path / "in/pipe.png")
    assert "pipe.png: is no file, remove it" in refused({})


def test_many_bad_pictures_end_the_run_early(refused):
    message = refused({f"{i:02}.png": b"x" for i in range(30)}, "--prefix", "x")
    assert message.startswith("10 bad pictures or more: ") and message.count("is no picture of") == 10


def test_captions_are_refused_before_a_picture_is_opened(refused):
    message = refused({"a.png": A, "a.txt": b"\xff", "b.png": b"x", "b.txt": "dog"})
    assert "a.txt: byte 0 (0xff)" in message and "b.png" not in message


def test_nothing_is_left(refused):
    assert "no picture is good, the first of them: " in refused({"a.png": b"x", "a.txt": "x"}, "--skip-bad")


def test_inputs(refused, tmp_path):
    assert "holds no picture, check the path" in refused({"readme.md": "x"})
    assert "there is no such file or folder" in refused({}, source="gone")
    assert "is neither a folder with pictures and captions nor a table" in refused({"a.png": A}, source="in/a.png")
    assert "--columns needs metadata.csv or metadata.jsonl" in refused({}, "--columns", "caption=x")
    write_tree(tmp_path / "in", {"prior/r.png": A})
    assert "prior: lies in " in refused({}, "--regularisation", tmp_path / "in/prior", code=64)
    assert "over 1,048,576 repeats" in refused({"99999999999_x/a.png": A})
