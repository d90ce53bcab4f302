"""Folders and saved data sets as inputs, files that are no text, and what is said of each."""

import bz2
import gzip
import json
import os
import pickle
import subprocess
import sys
import zipfile

import datasets
import h5py
import numpy
import pytest
from conftest import SCRIPTS, read_token_file, run_script
from lorascale_data import files, signatures

END = "<|endoftext|>"


@pytest.fixture
def folder(tmp_path):
    def make(**contents):
        for name, text in contents.items():
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / "in"

    return make


def prepare(path, *options):
    out = path.parent / "o.h5"
    outcome = run_script(path, "--tokenizer", "bytes", "--output", out, "--force", *options)
    read = outcome.code == 0 and [text.removesuffix(END) for text in read_token_file(out).texts()]
    return outcome, read


def test_a_folder_is_its_data_files_in_order(folder):
    path = folder(**{
        "b.txt": "b1", "a/z.md": "z1", "a/b.jsonl.gz": gzip.compress(b'{"text": "j1"}\n'),
        "c.csv.bz2": bz2.compress(b"text\nc1\n"), "README.md": "about", "LICENSE.txt": "licence",
        "x.png": b"\x89PNG\r\n\x1a\n", "empty.txt": "", ".hidden.txt": "h", ".git/a.txt": "h",
    })  # fmt: skip
    outcome, read = prepare(path)
    assert read == ["j1", "z1", "b1", "c1"]
    note = f"{path}: passed over, no data by their names or empty: LICENSE.txt, README.md, empty.txt, x.png\n"
    assert outcome.err == f"prepare_text: warning: {note}"
    assert prepare(path / "README.md")[1] == ["about"]  # by its own name it is wanted


def test_held_out_files_are_not_trained_on(folder):
    path = folder(**{
        "data/train-00000-of-00002.jsonl": '{"text": "a1"}\n', "data/train-00001-of-00002.jsonl": '{"text": "a2"}\n',
        "data/test-00000-of-00001.jsonl": '{"text": "t1"}\n', "data/validation.jsonl": '{"text": "v1"}\n',
        "latest.jsonl": '{"text": "l1"}\n', "training_test.jsonl": '{"text": "b1"}\n',
    })  # fmt: skip
    outcome, read = prepare(path)
    assert read == ["a1", "a2", "l1", "b1"]
    assert "passed over, named for validation or tests: data/test-00000-of-00001.jsonl, data/valid" in outcome.err
    other = folder(**{"only/test.txt": "x1", "only/dev.txt": "y1"}) / "only"
    assert prepare(other)[1] == ["y1", "x1"]


def test_a_folder_without_data(folder):
    path = folder(**{"a.png": b"\x89PNG", "b.bin": "x"})
    outcome, _ = prepare(path)
    assert outcome.code == 65 and "holds no data file (.arrow, .csv," in outcome.err
    assert outcome.err.count("\n") == 1


def test_more_files_than_may_be_open(folder):
    import resource

    path = folder(**{f"{i:04}.txt": f"text {i}" for i in range(400)})
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, old[1]))
    try:
        assert prepare(path)[1] == [f"text {i}" for i in range(400)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


ROWS = [
    {"messages": [{"role": "user", "content": f"Q{i}"}, {"role": "assistant", "content": f"A{i} é"}],
     "n": i}
    for i in range(30)
]  # fmt: skip


def expected(rows):
    turn = "<|im_start|>{role}\n{content}<|im_end|>\n"
    return ["".join(turn.format(**message) for message in row["messages"]) for row in rows]


def test_a_data_set_saved_to_disk(tmp_path):
    saved = datasets.Dataset.from_list(ROWS)
    saved.shuffle(seed=3).save_to_disk(tmp_path / "in", num_shards=3)
    reference = datasets.load_from_disk(str(tmp_path / "in"))  # the library itself reads it back
    outcome, read = prepare(tmp_path / "in", "--chat-template", "chatml")
    assert read == expected(reference) and outcome.err == ""
    assert "n of 30 records, such as" in outcome.out
    assert [path.name for path in files.expand([tmp_path / "in"])[0]] == [
        f"data-0000{i}-of-00003.arrow" for i in range(3)
    ]


def test_splits_of_a_data_set(tmp_path):
    saved = datasets.Dataset.from_list(ROWS)
    splits = {"test": saved.select(range(5)), "train": saved.select(range(5, 30))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "in")
    outcome, read = prepare(tmp_path / "in", "--chat-template", "chatml")
    assert read == expected(ROWS[5:])
    assert f"split train was read; passed over: test (to use one, name {tmp_path}/in/test)" in outcome.err
    assert prepare(tmp_path / "in" / "test", "--chat-template", "chatml")[1] == expected(ROWS[:5])
    datasets.DatasetDict({"a": saved, "b": saved}).save_to_disk(tmp_path / "two")
    outcome, _ = prepare(tmp_path / "two")
    assert outcome.code == 65 and "the splits a, b and no train; name one" in outcome.err


TEMPLATE = """{% if tools %}TOOLS {{ tools | tojson }}
{% endif %}{% for message in messages %}<{{ message.role }}>{{ message.content or "" }}
{%- for call in message.tool_calls or [] %}CALL {{ call.function | tojson }}{% endfor %}</{{ message.role }}>
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""


@pytest.mark.parametrize("mixed", [False, True])
def test_calls_of_unlike_arguments_in_a_data_set(tmp_path, mixed):
    """Arrow makes one object of all arguments, or datasets keeps them as JSON: both come back."""
    calls = [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": "x"}}]
    rows = [
        {
            "tools": [{"name": call["name"]}],
            "messages": [
                {"role": "user", "content": "Q"},
                {"role": "assistant", "tool_calls": [{"type": "function", "function": call}]},
                {"role": "tool", "content": "T"},
                {"role": "assistant", "content": "A"},
            ],
        }
        for call in calls
    ]
    features = datasets.Features({key: datasets.List(datasets.Json()) for key in rows[0]})
    datasets.Dataset.from_list(rows, features=features if mixed else None).save_to_disk(tmp_path / "in")
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    outcome, read = prepare(tmp_path / "in", "--chat-template", tmp_path / "t.jinja")
    assert outcome.code == 0, outcome.err
    for text, call in zip(read, calls, strict=True):
        tool = json.dumps([{"type": "function", "function": {"name": call["name"]}}])
        assert text == (
            f"TOOLS {tool}\n<user>Q</user>\n<assistant>CALL {json.dumps(call)}</assistant>\n"
            f"<tool>T</tool>\n<assistant>A</assistant>\n"
        )
    outcome, _ = prepare(tmp_path / "in", "--chat-template", "chatml")
    assert outcome.code == 65 and '"tool_calls" and "tools" cannot be honoured' in outcome.err


def test_names_of_files_that_are_no_text(tmp_path):
    name = os.fsdecode(b"\xff.jsonl")
    (tmp_path / name).write_text('{"text": "a1", "n": 1}\n{"no": 1}\n')
    outcome = subprocess.run(
        [sys.executable, SCRIPTS / "prepare_text.py", tmp_path, "--tokenizer", "bytes", "--workers", "1",
         "--output", tmp_path / "o.h5", "--skip-bad"],
        capture_output=True, timeout=60, check=False, env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert rb"n of 1 records, such as 1 at " in outcome.stdout and rb"\udcff.jsonl:2: keys no" in outcome.stdout


def test_folders_that_may_not_be_read(folder, monkeypatch):
    path = folder(**{"a.txt": "a", "b/c.txt": "c"})

    def refuse(place, _scandir=os.scandir):
        if str(place).endswith("b"):
            raise PermissionError(13, "Permission denied", str(place))
        return _scandir(place)

    monkeypatch.setattr("os.scandir", refuse)
    outcome, _ = prepare(path)
    assert outcome.code == 65 and f"{path}/b: cannot be read (Permission denied)" in outcome.err


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("dataset_dict.json", "{}", "names no splits"),
        ("dataset_dict.json", '{"splits": ["../../etc"]}', "outside itself"),
        ("dataset_dict.json", '{"splits": []}', "has the splits (none)"),
        ("state.json", "[", "cannot be read"),
        ("state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}', "outside itself"),
        ("state.json", '{"_data_files": [{"filename": "no.arrow"}]}', "no.arrow: cannot be read (No such file"),
        ("state.json", '{"_data_files": [], "_indices_files": [{"filename": "i"}]}', "save flatten_indices()"),
        ("state.json", '{"_data_files": []}', "hold no document"),
    ],
)
def test_damaged_data_sets(folder, name, contents, message):
    outcome, _ = prepare(folder(**{name: contents}))
    assert outcome.code == 65 and message in outcome.err and outcome.err.count("\n") == 1


def test_json_lines_in_a_text_file_are_noticed(folder):
    path = folder(**{"a.txt": '{"prompt":"Q","completion":"A"}\n{"prompt":"Q2","completion":"A2"}\n'})
    outcome, read = prepare(path / "a.txt")
    assert read == ["QA", "Q2A2"]
    assert "a.txt: is JSON Lines and was read so (--format text reads this file as plain text)" in outcome.err
    assert prepare(path / "a.txt", "--format", "text")[1][0].startswith('{"prompt"')
    path = folder(**{"b.txt": '{"level": "info", "at": 3}\n'})
    outcome, _ = prepare(path / "b.txt")
    assert outcome.code == 65 and "keys at, level: give text" in outcome.err
    assert "--format text reads this file as plain text" in outcome.err
    path = folder(**{"c.txt": '{"text": "a"}\nprose\n'})
    outcome, read = prepare(path / "c.txt")
    assert read == ['{"text": "a"}\nprose\n'] and "begins like JSON Lines, but line 2 is no object" in outcome.err


def zipped(path, name):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "x")


def hdf5(path):
    with h5py.File(path, "w") as file:
        file["tokens"] = [1]


MADE = {
    "numpy.txt": (lambda path: numpy.save(path.open("wb"), numpy.zeros(3)), "is a NumPy array"),
    "npz.txt": (lambda path: numpy.savez(path.open("wb"), a=numpy.zeros(3)), "is NumPy arrays"),
    "pickle.txt": (lambda path: path.write_bytes(pickle.dumps(["text"])), "is a Python pickle: reading one runs"),
    "hdf5.txt": (hdf5, "is an HDF5 file: a token file is not prepared again: give it to data.train"),
    "word.txt": (lambda path: zipped(path, "word/document.xml"), "is an Office document: save it as text"),
    "zip.txt": (lambda path: zipped(path, "a.txt"), "is a zip archive: unpack it and give the folder"),
}
WRITTEN = {
    b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj": "is a PDF: extract its text first",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR": "is a PNG image: only text can be learnt",
    b"\xff\xd8\xff\xe0\0\x10JFIF": "is a JPEG image",
    b"{\\rtf1\\ansi text}": "is a rich text file",
    b"SQLite format 3\0" + bytes(84): "is an SQLite database: export it",
    b"GGUF\3\0\0\0": "is model weights (GGUF)",
    (20).to_bytes(8, "little") + b'{"a":{}}': "is model weights (safetensors)",
    b"t\0e\0x\0t\0" * 9: "is text in UTF-16: convert it (iconv -f UTF-16LE",
    b"\0t\0e\0x\0t" * 9: "is text in UTF-16: convert it (iconv -f UTF-16BE",
    b"text" + bytes(2): "holds zero bytes",
    b"PAR1\x15\0\x15\x10": "is a Parquet file and cannot be read",
    b"ARROW1\0\0\x10": "is an Arrow file and cannot be read",
    b"\xff\xff\xff\xff\x50\4\0\0": "is an Arrow file and cannot be read",
    b"FEA1\0\0": "is a Feather file of version 1",
    bytes(257) + b"ustar\x0000": "is a tar archive: unpack it",
    gzip.compress(bytes(257) + b"ustar\x0000", mtime=0): "is a tar archive: unpack it",
    gzip.compress(b"PAR1\0" + bytes(20), mtime=0): "is Parquet packed with gzip, which cannot be read",
    b"\x04\x22\x4d\x18\0": "is an LZ4 file: unpack it with lz4 -d",
}


@pytest.mark.parametrize("contents", WRITTEN, ids=range(len(WRITTEN)))
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ""])
def test_files_that_are_no_text_are_called_what_they_are(tmp_path, contents, suffix):
    path = tmp_path / f"in{suffix}"
    path.write_bytes(contents)
    outcome, _ = prepare(path)
    assert outcome.code == 65 and outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"prepare_text: {path}: ") and WRITTEN[contents] in outcome.err


@pytest.mark.parametrize("name", MADE)
def test_files_that_others_made(tmp_path, name):
    make, message = MADE[name]
    make(tmp_path / name)
    outcome, _ = prepare(tmp_path / name)
    assert outcome.code == 65 and message in outcome.err and outcome.err.count("\n") == 1


@pytest.mark.parametrize("text", ["RIFF raff", "ORCA", "GGUF is a format", "ID3 tags", "PAR1", "\ufffd", "PK"])
def test_texts_that_begin_like_other_files_are_texts(text):
    assert signatures.recognise(text.encode()) is None
