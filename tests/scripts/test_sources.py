"""Where records end in text and JSON files, what containers are known by, and hostile files."""

import gzip
import json

import pytest
from conftest import run_script
from lorascale_data import sources, stream, texts
from lorascale_data.errors import PrepareError


def read(path, requested="auto", split="document"):
    source = sources.Source(path, requested, texts.parse_text_split(split))
    return source.container, list(source.records())


@pytest.fixture
def make(tmp_path):
    def write(contents, name="in.txt"):
        path = tmp_path / name
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return path

    return write


TEXT = "one\ntwo\n\n\nthree\n \nfour"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("document", [(1, TEXT)]),
        ("paragraph", [(1, "one\ntwo\n"), (5, "three\n"), (7, "four")]),
        ("lines:2", [(1, "one\ntwo\n"), (3, "\n\n"), (5, "three\n \n"), (7, "four")]),
        ("chars:9", [(1, "one\ntwo\n\n"), (4, "\nthree\n \n"), (7, "four")]),
    ],
)
def test_text_split(make, rule, expected):
    container, found = read(make(TEXT), split=rule)
    assert container == "text"
    assert [(line, raw.decode()) for line, raw in found] == expected


def test_form_feeds(make):
    _, found = read(make("a\nb\n\fc\n\f\fd"), split="formfeed")
    assert found == [(1, b"a\nb\n"), (3, b"c\n"), (4, b""), (4, b"d")]


@pytest.mark.parametrize("rule", ["document", "formfeed", "paragraph", "lines:3", "chars:7"])
@pytest.mark.parametrize("block", [1, 2, 5])
def test_splits_do_not_depend_on_the_size_of_reads(make, monkeypatch, rule, block):
    path = make("é🙂\na\f\r\nbb\n\n\nccc日本\f\n" * 5)
    whole = read(path, split=rule)
    monkeypatch.setattr(stream, "READ_BYTES", block)
    assert read(path, split=rule) == whole


@pytest.mark.parametrize(
    "rule", ["pages", "lines:0", "chars:", "lines:-1", "document:3", "lines:2x"]
)
def test_unknown_split(rule):
    with pytest.raises(PrepareError, match="unknown rule") as caught:
        texts.parse_text_split(rule)
    assert caught.value.code == 64


RECORDS = [{"text": "a\nb"}, {"text": "[{é"}, {"text": '"\\'}]


@pytest.mark.parametrize(
    ("name", "contents", "container"),
    [
        ("a.jsonl", "\n".join(map(json.dumps, RECORDS)), "jsonl"),
        ("a.data", "\n".join(map(json.dumps, RECORDS)), "jsonl"),
        ("a.json", "\n".join(map(json.dumps, RECORDS)), "jsonl"),
        ("a.jsonl", "\ufeff\n\n" + "\n\n".join(map(json.dumps, RECORDS)) + "\n", "jsonl"),
        ("a.json", json.dumps(RECORDS), "json"),
        ("a.json", json.dumps(RECORDS, indent=2, ensure_ascii=False), "json"),
        ("a.data", json.dumps(RECORDS), "json"),
        ("a.json", "\n".join(json.dumps(record, indent=1) for record in RECORDS), "json"),
        ("a.json", " [ ] ", "json"),
        ("a.txt", json.dumps(RECORDS), "json"),
        ("a.txt", json.dumps(RECORDS, indent=1), "json"),
        ("a.txt", "\n".join(map(json.dumps, RECORDS)), "jsonl"),
        ("a.md", "\ufeff\n" + "\r\n\n".join(map(json.dumps, RECORDS)), "jsonl"),
        ("a.csv", "\n".join(map(json.dumps, RECORDS)), "jsonl"),
        ("a.txt", '{"text": "a"}\nand prose', "text"),
        ("a.txt", "{a} b\n{c}", "text"),
        ("a.txt", "[{a} b]", "text"),
        ("a", "plain [text]", "text"),
        ("a", "[1] A footnote", "text"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_containers(make, name, contents, container, zipped):
    raw = contents.encode()
    path = make(gzip.compress(raw) if zipped else raw, name + ".gz" * zipped)
    found, records = read(path)
    assert found == container
    if container != "text" and contents.strip() != "[ ]":
        assert [json.loads(raw) for _, raw in records] == RECORDS


@pytest.mark.parametrize("contents", ["lines", "array"])
def test_long_records_in_a_text_file_are_noticed(make, contents):
    """The first MiB, which tells what a file is, may end in the middle of a record."""
    records = [json.dumps({"text": "aé" * 9_000}, ensure_ascii=False)] * 60
    text = "\n".join(records) if contents == "lines" else f"[{','.join(records)}]"
    container, found = read(make(text))
    assert container == ("jsonl" if contents == "lines" else "json")
    assert len(found) == 60


def test_lines_of_array_elements(make):
    _, found = read(make('[\n{"text": "a"},\n\n{"text":\n "b"}, {"text": "c"}\n]\n', "a.json"))
    assert [line for line, _ in found] == [2, 4, 5]


@pytest.mark.parametrize("block", [1, 3, 7])
def test_arrays_do_not_depend_on_the_size_of_reads(make, monkeypatch, block):
    path = make(json.dumps([*RECORDS, 12345, -1.5e10, True, None], indent=1), "a.json")
    whole = read(path, "json")
    monkeypatch.setattr(stream, "READ_BYTES", block)
    assert read(path, "json") == whole


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"  \n\n", "is empty"),
        ("a.txt", b"text\0text", "zero bytes"),
        ("a.json", b'[{"text": "a"}', "in.json:1: the JSON array does not end"),
        ("a.json", b'[{"text": "a"}] x', "text after the end of the JSON array"),
        ("a.json", b'[{"text": "a"},\n{"text" "b"}]', "in.json:2: not valid JSON"),
        ("a.json", b'[{"text": "\xff"}]', "not UTF-8"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "in.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"text": "\xc3("}', "in.jsonl:1: not UTF-8"),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", "in.jsonl:1: not valid JSON"),
        ("a.jsonl", b'{"text": ' + b"9" * 10_000 + b"}\n", "in.jsonl:1: not valid JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}', "half a surrogate pair"),
        ("a.jsonl", b"3\n", "is no JSON object"),
        ("a.jsonl", b'[1, 2]\n{"text": "a"}\n', "in.jsonl:1: is no JSON object"),
        ("a.jsonl", b'{"text": "beta"\n', "column 16"),
        ("a.txt", b"fine\nfine\nb\xe4d\n", "in.txt:1: not UTF-8 2 lines further on (byte 0xe4)"),
        ("a.txt.gz", b"\x1f\x8b\x08\0\0\0", "damaged gzip"),
        ("a.txt.gz", gzip.compress(b"text" * 9999, mtime=0)[:-12], "damaged gzip"),
    ],
)
def test_hostile_files_end_in_one_line(make, tmp_path, name, contents, message):
    path = make(contents, name.replace("a.", "in.", 1))
    for workers in ("1", "2"):
        outcome = run_script(
            path, "--tokenizer", "bytes", "--output", tmp_path / "out.h5", "--workers", workers
        )
        assert outcome.code == 65
        assert outcome.err.startswith("prepare_text: ") and outcome.err.count("\n") == 1
        assert message in outcome.err and path.name in outcome.err
        assert sorted(file.name for file in tmp_path.iterdir()) == [path.name]


def test_bad_text_under_chars_names_its_line(make, tmp_path):
    path = make(b"fine\nfine\nb\xe4d\n")
    outcome = run_script(
        path, "--tokenizer", "bytes", "--output", tmp_path / "o.h5", "--text-split", "chars:4"
    )
    assert outcome.code == 65 and "in.txt:3: not UTF-8" in outcome.err


def test_endless_records_are_refused(make, monkeypatch):
    monkeypatch.setattr(stream, "READ_BYTES", 64)
    monkeypatch.setattr(stream, "MAX_RECORD_BYTES", 1000)
    with pytest.raises(PrepareError, match=r"one record has over.*--text-split paragraph"):
        read(make("word " * 1000))
    with pytest.raises(PrepareError, match=r"in.txt:2: one record has over"):
        read(make("a\n" + "word " * 1000), split="lines:1")
    with pytest.raises(PrepareError, match=r"in.json:1: one record has over"):
        read(make('["' + "word " * 1000, "in.json"))
    assert len(read(make("word " * 1000), split="chars:10")[1]) == 500


def test_missing_file(tmp_path):
    outcome = run_script(tmp_path / "no.txt", "--tokenizer", "bytes", "--output", tmp_path / "o.h5")
    assert outcome.code == 65
    assert "no.txt: cannot be read (No such file or directory)" in outcome.err
