"""Parquet and Arrow files as pandas, pyarrow and datasets write them, and damaged ones."""

import json
import random
import resource
import subprocess
import sys

import pandas
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from conftest import SCRIPTS, read_token_file, run_script
from lorascale_data import sources, texts
from lorascale_data.errors import PrepareError

Q, A = {"role": "user", "content": "Größe 🙂?"}, {"role": "assistant", "content": "A"}
CALL = {"function": {"name": "f", "arguments": '{"a": 1}'}}
ROWS = [
    {"messages": [Q, A], "source": "web"},
    {"messages": [Q, {**A, "tool_calls": [CALL]}, A]},
    {"prompt": "P", "completion": "C", "system": "S"},
    {"text": "T\n", "source": "book", "vector": [0.5, 1.5]},
] * 100
KEYS = ("messages", "prompt", "completion", "system", "text", "source", "vector")
TABLE = pyarrow.Table.from_pylist([{key: row.get(key) for key in KEYS} for row in ROWS])


def write_parquet(table, path):
    pyarrow.parquet.write_table(table, path, row_group_size=150)


def write_pandas(table, path):
    table.to_pandas().to_parquet(path)


def write_feather(table, path):
    pyarrow.feather.write_feather(table, path, chunksize=64)


def write_file(table, path):
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=64)


def write_stream(table, path):
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=64)


WRITERS = {
    "a.parquet": write_parquet,
    "pandas.parquet": write_pandas,
    "a.feather": write_feather,
    "a.arrow": write_file,
    "stream.arrow": write_stream,
}


def source_of(path, *columns):
    return sources.Source(path, "auto", texts.parse_text_split("document"), *columns)


def read(path):
    source = source_of(path)
    assert source.container == "columnar"
    found = [(row, json.loads(raw)) for row, raw in source.records()]
    source.close()
    return found, source


def without_nulls(record):
    """The columns of a row stay, for --columns may name them; a null is no value."""
    return {key: value for key, value in record.items() if value is not None}


@pytest.mark.parametrize("name", WRITERS)
def test_rows_come_back_without_what_tables_fill_up(tmp_path, name):
    WRITERS[name](TABLE, tmp_path / "data")  # known by what it holds
    found, source = read(tmp_path / "data")
    known = [{k: v for k, v in row.items() if k not in ("source", "vector")} for row in ROWS]
    assert [(row, without_nulls(record)) for row, record in found] == list(enumerate(known, 1))
    assert source.unused.found["source"] == [200, '"web"', 1]
    assert source.unused.found["vector"] == [100, "[0.5, 1.5]", 4]
    assert source.place(3) == f"{tmp_path / 'data'}: row 3"


def test_kinds_of_columns(tmp_path):
    strings = pyarrow.array(["a", "b", None])
    table = pyarrow.table(
        {
            "prompt": strings.dictionary_encode(),
            "completion": strings.cast(pyarrow.large_string()),
            "system": pyarrow.array([b"s", b"\xff", b""], pyarrow.binary()),
            "history": pyarrow.array([[["q", "a"]], [], None]),
            "weight": pyarrow.array([1, 0, None], pyarrow.int8()),
            "loss": pyarrow.array([1, 2, None], pyarrow.timestamp("s")),
            "chat_template_kwargs": pyarrow.array(
                [[("a", 1)], None, []], pyarrow.map_(pyarrow.string(), pyarrow.int32())
            ),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    write_file(table, tmp_path / "a.arrow")
    for name in ("a.parquet", "a.arrow"):
        found = [without_nulls(record) for _, record in read(tmp_path / name)[0]]
        assert found == [
            {"prompt": "a", "completion": "a", "system": "s", "history": [["q", "a"]], "weight": 1,
             "loss": "1970-01-01 00:00:01", "chat_template_kwargs": {"a": 1}},
            {"prompt": "b", "completion": "b", "system": {"bytes": 1}, "history": [], "weight": 0,
             "loss": "1970-01-01 00:00:02"},
            {"system": "", "chat_template_kwargs": {}},
        ]  # fmt: skip


def prepare(tmp_path, path, *options):
    return run_script(path, "--tokenizer", "bytes", "--output", tmp_path / "o.h5", "--force", *options)


def test_the_script_reads_them(tmp_path):
    pandas.DataFrame({"ask": ["Q1", "Q2"], "best": ["A1", None], "n": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    options = ("--columns", "prompt=ask,completion=best", "--chat-template", "chatml")
    outcome = prepare(tmp_path, tmp_path / "a.parquet", *options)
    assert outcome.code == 65 and f'{tmp_path}/a.parquet: row 2: "best" of --columns' in outcome.err
    outcome = prepare(tmp_path, tmp_path / "a.parquet", *options, "--skip-bad")
    assert outcome.code == 0 and "n of 2 records, such as 1 at " in outcome.out
    assert read_token_file(tmp_path / "o.h5").target_text(0) == "A1<|im_end|>"
    # A column without which there still is a record may have empty cells.
    pandas.DataFrame({"ask": ["Q1", "Q2"], "best": ["A1", "A2"], "ctx": ["c", None]}).to_parquet(tmp_path / "a.parquet")
    outcome = prepare(tmp_path, tmp_path / "a.parquet", "--columns", "prompt=ask,completion=best,input=ctx")
    assert outcome.code == 0, outcome.err
    assert [text.removesuffix("<|endoftext|>") for text in read_token_file(tmp_path / "o.h5").texts()] == ["Q1\n\ncA1", "Q2A2"]


def test_ignored_columns_are_not_even_read(tmp_path):
    table = pyarrow.table({"text": ["a", "b"], "images": [[b"x" * 1000], []]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert '"images" cannot be honoured' in prepare(tmp_path, tmp_path / "a.parquet").err
    outcome = prepare(tmp_path, tmp_path / "a.parquet", "--ignore", "images")
    assert outcome.code == 0 and 'images of 2 records, such as "(not read)"' in outcome.out


def test_number_of_workers_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("lorascale_data.pipeline.BATCH_RECORDS", 20)
    names = [tmp_path / name for name in WRITERS]
    rows = [{"text": f"{i} é", "n": i} for i in range(400)]
    for path in names:
        WRITERS[path.name](pyarrow.Table.from_pylist(rows), path)
    results = []
    for workers in ("1", "3"):
        outcome = run_script(*names, "--tokenizer", "bytes", "--output", tmp_path / "o.h5", "--force",
                             "--no-dedup", "--workers", workers)  # fmt: skip
        lines = [line for line in outcome.out.splitlines() if not line.startswith("time")]
        results.append((lines, (tmp_path / "o.h5").read_bytes()))
    assert results[0] == results[1]
    texts_read = read_token_file(tmp_path / "o.h5").texts()
    assert texts_read == [f"{row['text']}<|endoftext|>" for row in rows] * len(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_end_in_one_line(tmp_path, name):
    path = tmp_path / name
    rows = [{"text": f"{i} é", "messages": [Q, A], "raw": b"\xff"} for i in range(200)]
    WRITERS[name](pyarrow.Table.from_pylist(rows), path)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for trial in range(120):
        raw = bytearray(whole)
        if trial % 3 == 0:
            raw = raw[: rng.randrange(12, len(raw))]
        else:
            for _ in range(1 << trial % 6):
                raw[rng.randrange(8, len(raw))] = rng.randrange(256)
        path.write_bytes(raw)
        try:
            source = source_of(path)
            assert sum(1 for _ in source.records()) <= 200
        except PrepareError as error:
            refused += 1
            assert error.code == 65 and "\n" not in str(error) and name in str(error)
            if trial % 3 == 0:
                assert "damaged or cut short? Fetch it again; " in str(error)
    assert refused >= 40  # all that were cut short, and more


def test_a_stream_cut_between_its_batches_is_not_taken_for_whole(tmp_path):
    write_stream(TABLE, tmp_path / "a.arrow")
    whole = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(whole[:-8])  # without the mark of its end
    with pytest.raises(PrepareError, match="it does not end.*damaged or cut short"):
        read(tmp_path / "a.arrow")


@pytest.mark.parametrize(
    ("format_", "name", "message"),
    [
        ("text", "a.parquet", "is a file of Parquet, not text: leave out --format"),
        ("csv", "a.arrow", "is a file of Arrow, not csv"),
        ("parquet", "a.txt", "is no Parquet file, leave out --format"),
    ],
)
def test_formats_that_are_not_so(tmp_path, format_, name, message):
    path = tmp_path / name
    WRITERS.get(name, lambda _, path: path.write_text("text"))(pyarrow.table({"text": ["a"]}), path)
    outcome = prepare(tmp_path, path, "--format", format_)
    assert outcome.code == 65 and message in outcome.err


def test_two_columns_of_one_name(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    outcome = prepare(tmp_path, tmp_path / "a.parquet")
    assert outcome.code == 65 and "two columns named 'text'" in outcome.err


def test_without_pyarrow_the_way_out_is_named(tmp_path, monkeypatch):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    outcome = prepare(tmp_path, tmp_path / "a.parquet")
    assert outcome.code == 65 and "needs pyarrow, which is not installed; pandas.read_parquet" in outcome.err


MEASURED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import prepare_text
code = prepare_text.main(sys.argv[1:])
status = open("/proc/self/status").read()  # getrusage would count the test's own memory at the fork
print("peak", int(status.partition("VmHWM:")[2].split()[0]) >> 10)
sys.exit(code)
"""


@pytest.mark.parametrize("kind", ["rows", "value", "dictionary"])
def test_bombs_cost_bounded_memory(tmp_path, kind):
    """A few KB on disk: a text in very many rows, one of 66 MiB, one of 8 MiB in 60 rows."""
    rows = 25_000
    column = {
        "rows": lambda: pyarrow.array(["some text " * 100]).take(pyarrow.array([0] * rows)),
        "value": lambda: pyarrow.array(["x" * (66 << 20)]),
        "dictionary": lambda: pyarrow.DictionaryArray.from_arrays(
            pyarrow.array([0] * 60, pyarrow.int32()), pyarrow.array(["x" * (8 << 20)])
        ),
    }[kind]()
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": column})
    pyarrow.parquet.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    outcome = subprocess.run(
        [sys.executable, "-c", MEASURED, SCRIPTS, path, "--tokenizer", "bytes", "--workers", "1",
         "--output", tmp_path / "o.h5", "--format", "parquet"],
        capture_output=True, text=True, timeout=200, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
    )  # fmt: skip
    peak = int(outcome.stdout.rpartition("peak ")[2])
    if kind == "value":
        assert outcome.returncode == 65 and "one record has over 64 MiB" in outcome.stderr
    else:
        assert outcome.returncode == 0, outcome.stderr
        assert f"{59 if kind == 'dictionary' else rows - 1:,} duplicates" in outcome.stdout
    assert peak < {"rows": 170, "value": 520, "dictionary": 360}[kind]  # MiB
