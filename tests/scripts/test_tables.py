"""CSV and TSV by their header, as spreadsheets, pandas and Python write them; and hostile ones."""

import bz2
import csv
import gzip
import io
import json
import lzma
import resource
import subprocess
import sys

import pandas
import pyarrow
import pytest
from conftest import SCRIPTS, read_token_file, run_script
from lorascale_data import sources, stream, tables, texts
from lorascale_data.errors import PrepareError

ROWS = [
    {"prompt": 'Say "hi", please;\tnow|', "completion": "hi\nthere\n"},
    {"prompt": "Größe?", "completion": "1,80 m; 日本 🙂"},
    {"prompt": "", "completion": "  spaces  "},
]


def read(path, requested="auto"):
    source = sources.Source(path, requested, texts.parse_text_split("document"))
    assert source.container == "table"
    return [json.loads(raw) for _, raw in source.records()]


def written(delimiter=",", quoting=csv.QUOTE_MINIMAL, end="\r\n"):
    file = io.StringIO()
    writer = csv.DictWriter(
        file, ["prompt", "completion"], delimiter=delimiter, quoting=quoting, lineterminator=end
    )
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


@pytest.mark.parametrize("delimiter", tables.DELIMITERS)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_what_the_csv_module_writes(tmp_path, delimiter, quoting, bom):
    path = tmp_path / "a.csv"
    path.write_bytes(bom + written(delimiter, quoting, "\r\n" if bom else "\n"))
    assert read(path) == ROWS


@pytest.mark.parametrize(
    ("contents", "delimiter"),
    [
        ("prompt|note, more, notes, all|completion\nq|a, b, c, d|e\n", "|"),  # names that are known
        ("ask;best, or so\n1,2,3;4\n5;6\n", ";"),  # rows like the header
        ("a,b,c;d\n1,2,3;4\n", ","),  # more columns
        ("text\nno, delimiter, here\n", ","),
    ],
)
def test_delimiters_are_found(contents, delimiter):
    assert tables.sniffed(contents.encode()) == delimiter


@pytest.mark.parametrize("sep", [",", "\t", ";"])
def test_what_pandas_writes(tmp_path, sep):
    path = tmp_path / ("a.tsv" if sep == "\t" else "a.csv")
    pandas.DataFrame(ROWS).to_csv(path, sep=sep)  # with its index
    assert read(path) == [{"(column 1)": str(i), **row} for i, row in enumerate(ROWS)]


def test_the_hint_of_excel(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfsep=|\r\n" + written("|"))
    assert read(path) == ROWS


PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda raw: pyarrow.compress(raw, "zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files(tmp_path, suffix):
    pack = PACKERS[suffix]
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(pack(written()))
    assert read(path) == ROWS
    many = b"prompt,completion\n" + b"%s,a\n" % (b"q" * 60) * 20_000
    half = len(many) // 2
    path.write_bytes(pack(many[:half]) + pack(many[half:]))  # one behind the other is one file
    assert len(read(path)) == 20_000
    whole = pack(many)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PrepareError, match=r"a\.csv\S+: damaged .* file .*fetch it again"):
        read(path)


def test_lines_are_those_where_rows_begin(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text\n\n"a\nb"\nc\n"d\n\n"\n')
    source = sources.Source(path, "auto", texts.parse_text_split("document"))
    assert [(n, json.loads(raw)["text"]) for n, raw in source.records()] == [
        (3, "a\nb"), (5, "c"), (6, "d\n\n"),
    ]  # fmt: skip


@pytest.mark.parametrize("block", [1, 7, 64])
def test_rows_do_not_depend_on_the_size_of_reads(tmp_path, monkeypatch, block):
    path = tmp_path / "a.csv"
    path.write_bytes(written())
    source = sources.Source(path, "csv", texts.parse_text_split("document"))
    monkeypatch.setattr(stream, "READ_BYTES", block)
    source._delimiter = ","  # a head of one byte tells none
    assert [json.loads(raw) for _, raw in source.records()] == ROWS


def prepare(tmp_path, name, contents, *options):
    path, out = tmp_path / name, tmp_path / "o.h5"
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return run_script(path, "--tokenizer", "bytes", "--output", out, "--force", *options)


def test_messages_and_other_columns(tmp_path):
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    pandas.DataFrame({"id": [7], "messages": [json.dumps(messages)]}).to_csv(tmp_path / "m.csv", index=False)
    raw = (tmp_path / "m.csv").read_bytes()
    outcome = prepare(tmp_path, "m.csv", raw, "--chat-template", "chatml")
    assert outcome.code == 0 and 'not used:   id of 1 records, such as "7" at ' in outcome.out
    data = read_token_file(tmp_path / "o.h5")
    assert data.target_text(0) == "A<|im_end|>"
    pandas.DataFrame({"messages": [messages]}).to_csv(tmp_path / "m.csv", index=False)
    outcome = prepare(tmp_path, "m.csv", (tmp_path / "m.csv").read_bytes(), "--chat-template", "chatml")
    assert outcome.code == 65 and "m.csv:2: " in outcome.err and "json.dumps" in outcome.err


def test_bad_rows(tmp_path):
    contents = "text,note\na1,x\nb1,y,z\nc1,\nd1\n"
    outcome = prepare(tmp_path, "a.csv", contents)
    assert outcome.code == 65
    assert "a.csv:3: the row has 3 fields where the header has 2; texts with ','" in outcome.err
    assert outcome.err.endswith("need quotes (--skip-bad leaves bad records out)\n")
    outcome = prepare(tmp_path, "a.csv", contents, "--skip-bad")
    assert outcome.code == 0 and "left out:   2 bad" in outcome.out and "a.csv:5: the row has 1" in outcome.out
    assert read_token_file(tmp_path / "o.h5").texts() == ["a1<|endoftext|>", "c1<|endoftext|>"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("What is this?,And that?\na,b\n", "line 1 names the columns; --columns says which"),
        ("just some prose\nin lines\n", "--format text reads plain text"),
        ('text\n"a\nb\n', "a.csv:2: the quote that this row opens is not closed"),
        ('text\n"a"b"\n', "a.csv:2: no valid CSV"),
        ("text,text\na,b\n", "a.csv:1: two columns are named 'text'"),
        (b"text\nGr\xf6\xdfe\n", "a.csv:2: not UTF-8 (byte 0xf6): save it as CSV UTF-8"),
        ("text\na\n".encode("utf-16"), "a.csv: is text in UTF-16: convert it (iconv"),
        ("text\na\n".encode("utf-16-le"), "is text in UTF-16: convert it (iconv -f UTF-16LE"),
        ("text,n\rb,c\rd,e\r", "line ends of old Macs"),
        ("text\n" + "," * 20_000 + "\n", "over 10,000 columns in one row"),
        ("," * 20_000 + "\n", "over 10,000 columns in one row"),
        ("text\n", "hold no document"),
    ],
)
def test_hostile_tables_end_in_one_line(tmp_path, contents, message):
    outcome = prepare(tmp_path, "a.csv", contents)
    assert outcome.code == 65, outcome.out
    assert outcome.err.count("\n") == 1 and message in outcome.err, outcome.err


def test_delimiters_within_quotes_are_no_columns(tmp_path):
    text = "a,b\n" * 15_000
    outcome = prepare(tmp_path, "a.csv", f'text,n\n"{text}{"c," * 15_000}",1\n"{"d," * 15_000}",2\n')
    assert outcome.code == 0, outcome.err
    assert read_token_file(tmp_path / "o.h5").texts()[0] == text + "c," * 15_000 + "<|endoftext|>"


def test_files_whose_quotes_are_text(tmp_path):
    """TSV as databases and corpora have it: no quoting at all."""
    contents = 'text\tn\n"Hi" he said\t1\n5" of snow\t2\n"\t3\n'
    outcome = prepare(tmp_path, "a.tsv", contents)
    assert outcome.code == 65 and "a.tsv:2: no valid CSV" in outcome.err
    assert "if quotes are text in this file, give --no-quotes" in outcome.err
    assert prepare(tmp_path, "a.tsv", contents, "--no-quotes").code == 0
    ends = [text.removesuffix("<|endoftext|>") for text in read_token_file(tmp_path / "o.h5").texts()]
    assert ends == ['"Hi" he said', '5" of snow', '"']


def test_format_text_reads_a_table_as_text(tmp_path):
    assert prepare(tmp_path, "a.csv", "text\na\n", "--format", "text").code == 0
    assert read_token_file(tmp_path / "o.h5").texts() == ["text\na\n<|endoftext|>"]
    assert prepare(tmp_path, "a.dat", "text|n\na|b\n", "--format", "csv").code == 0
    assert read_token_file(tmp_path / "o.h5").texts() == ["a<|endoftext|>"]


# 75 MB, packed in a few KB, of a field that never ends, of columns and of a line.
BOMBS = {
    "field.csv": b'text\n"' + (b"a" * 199 + b"\n") * 5_000,
    "columns.csv": b"text\n" + b"a," * 500_000,
    "line.csv": b"text\n" + b"a" * 1_000_000,
    "line.jsonl": b'{"text": "' + b"a" * 1_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_bounded_memory(tmp_path, name):
    path = tmp_path / f"{name}.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(75):
            file.write(BOMBS[name] if not file.tell() else BOMBS[name][-1_000_000:])
    limit = 450 << 20
    outcome = subprocess.run(
        [sys.executable, SCRIPTS / "prepare_text.py", path, "--tokenizer", "bytes", "--workers", "1",
         "--output", tmp_path / "o.h5"],
        capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    assert outcome.returncode == 65, outcome.stderr
    assert outcome.stderr.count("\n") == 1 and name in outcome.stderr
    assert "over 64 MiB" in outcome.stderr or "over 10,000 columns" in outcome.stderr
