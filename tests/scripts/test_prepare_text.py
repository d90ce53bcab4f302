"""The script as users run it: what comes out, what is left out, and what is refused."""

import gzip
import json

import prepare_text
import pytest
from conftest import read_token_file, run_script
from lorascale_data import chat, report
from lorascale_data.chat import Segment
from lorascale_data.pipeline import digest_of
from lorascale_data.records import Document
from lorascale_data.splitter import Splitter

WORDS = ["fox", "dog", "lazy", "quick", "brown", "über", "café", "jumps", "over", "the"]


def texts(count):
    return [f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} {i}" for i in range(count)]


def test_plain_text_round_trip(prepare):
    text = "Grüße,\n\n  world! 🙂\ttabs\x0c and\rmore \n"
    data = prepare(text)
    assert data.texts() == [text + "<|endoftext|>"]
    assert data.masks is None
    assert (data.attributes["vocab_size"], data.attributes["eos_id"]) == (258, 256)
    assert data.attributes["tokenizer_sha256"] == "bytes"


def test_line_ends_of_windows(prepare):
    assert prepare("a\r\nb\r\n").texts() == ["a\nb\n<|endoftext|>"]


def test_hub_tokenizer_round_trip(prepare, byte_level):
    data = prepare("\n".join(texts(500)), "--text-split", "lines:7", tokenizer=byte_level)
    assert "".join(text.removesuffix("<|endoftext|>") for text in data.texts()) == "\n".join(
        texts(500)
    )
    assert len(data.tokens) == 72
    assert len(data.attributes["tokenizer_sha256"]) == 64


def test_every_kind_of_record(prepare):
    data = prepare(
        [
            {"text": "plain"},
            {"prompt": "P", "completion": "C"},
            {"instruction": "I", "input": "", "output": "O"},
            {"instruction": "I", "input": "X", "output": "O"},
            {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
            {"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A!"}]},
        ],
        "--chat-template", "llama3",
    )  # fmt: skip
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    turn = "<|begin_of_text|>" + header.format("user") + "{}<|eot_id|>" + header.format("assistant")
    assert data.texts() == [
        "plain<|endoftext|>",
        turn.format("P") + "C<|eot_id|>",
        turn.format("I") + "O<|eot_id|>",
        turn.format("I\n\nX") + "O<|eot_id|>",
        turn.format("Q") + "A<|eot_id|>",
        turn.format("Q?") + "A!<|eot_id|>",
    ]
    targets = [data.target_text(i) for i in range(6)]
    end = "<|eot_id|>"
    expected = ["plain<|endoftext|>", f"C{end}", f"O{end}", f"O{end}", f"A{end}", f"A!{end}"]
    assert targets == expected


def test_records_without_a_template(prepare):
    data = prepare(
        [
            {"prompt": "P: ", "completion": "C"},
            {"instruction": "I", "input": "X", "output": "O"},
            {"instruction": "I", "output": "O", "system": "S"},
        ]
    )
    assert data.texts() == [
        "P: C<|endoftext|>",
        "### Instruction:\nI\n\n### Input:\nX\n\n### Response:\nO<|endoftext|>",
        "S\n\n### Instruction:\nI\n\n### Response:\nO<|endoftext|>",
    ]
    assert [data.target_text(i) for i in range(3)] == ["C<|endoftext|>", *["O<|endoftext|>"] * 2]


def test_lists_of_text_parts(prepare):
    parts = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "C"}]
    data = prepare([{"messages": messages}], "--chat-template", "mistral-v3-tekken")
    assert data.texts() == ["<s>[INST]AB[/INST]C</s>"]


def test_answers_of_weight_0_are_no_targets(prepare):
    answers = [{"role": "assistant", "content": "A", "weight": 0}, {"role": "assistant", "content": "B", "weight": 1}]
    question = {"role": "user", "content": "Q"}
    data = prepare([{"messages": [question, answers[0], question, answers[1]]}], "--chat-template", "mistral-v3-tekken")
    assert data.texts() == ["<s>[INST]Q[/INST]A</s>[INST]Q[/INST]B</s>"]
    assert data.target_text(0) == "B</s>"


def test_no_eos(prepare):
    data = prepare([{"prompt": "P", "completion": "C"}, {"text": "plain"}], "--no-eos")
    assert data.texts() == ["PC", "plain"]
    assert data.attributes["eos_id"] == 256


def test_max_length_keeps_the_start_and_drops_what_has_no_target_left(prepare):
    records = [
        {"prompt": "12345678", "completion": "abc"},
        {"prompt": "12", "completion": "abcdefgh"},
        {"text": "long enough"},
    ]
    data = prepare(records, "--max-length", "6")
    assert data.texts() == ["12abcd", "long e"]
    assert "3 documents longer than --max-length" in data.outcome.out
    assert "1 too short or cut too short" in data.outcome.out


def test_duplicates(prepare):
    records = [{"text": t} for t in ["a1", "b1", "a1", "c1", "b1", "a1"]]
    assert prepare(records).texts() == [f"{t}<|endoftext|>" for t in ("a1", "b1", "c1")]
    assert "3 duplicates" in prepare(records).outcome.out
    assert len(prepare(records, "--no-dedup").tokens) == 6


def test_same_text_with_other_targets_is_no_duplicate(prepare):
    records = [
        {"prompt": "ab", "completion": "cd"},
        {"prompt": "a", "completion": "bcd"},
        {"text": "abcd"},
    ]
    assert len(prepare(records).tokens) == 3


def test_digests_tell_kinds_targets_and_segments_apart():
    a, b = Segment("a", True), Segment("b", False)
    documents = [
        Document("chat", [a, b]),
        Document("answer", [a, b]),
        Document("chat", [Segment("a", False), Segment("b", True)]),
        Document("chat", [b, a]),
        Document("chat", [Segment("ab", True)]),
        Document("chat", [Segment("a1:1:b", True)]),
    ]
    assert len({digest_of(document) for document in documents}) == len(documents)
    assert digest_of(documents[0]) == digest_of(Document("chat", [a, b], ("elsewhere",)))


def split_of(tmp_path, lines, *options):
    source = tmp_path / "in.txt"
    source.write_text("\n".join(lines))
    names = [tmp_path / "train.h5", tmp_path / "val.h5"]
    outcome = run_script(
        source, "--tokenizer", "bytes", "--output", names[0], "--validation", names[1],
        "--text-split", "lines:1", "--force", *options,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    train, validation = (read_token_file(name) for name in names)
    clean = [
        [text.removesuffix("<|endoftext|>").strip() for text in data.texts()]
        for data in (train, validation)
    ]
    return clean[0], clean[1], [name.read_bytes() for name in names]


def test_split_depends_on_documents_alone(tmp_path):
    lines = texts(2000)
    train, validation, _ = split_of(tmp_path, [*lines, ""])
    assert sorted(train + validation) == sorted(lines)
    assert 60 <= len(validation) <= 140  # 5 % of 2000, and four standard deviations
    again = split_of(tmp_path, [*reversed(lines), *lines[:500], ""], "--no-dedup")
    assert set(again[1]) == set(validation) and set(again[0]) == set(train)
    fewer = split_of(tmp_path, [*lines[::3], ""])
    assert set(fewer[1]) == set(validation) & set(lines[::3])
    other = split_of(tmp_path, [*lines, ""], "--seed", "1")
    assert set(other[1]) != set(validation)


def test_number_of_workers_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("lorascale_data.pipeline.BATCH_RECORDS", 50)
    lines = [*texts(3000), *texts(100)]
    results = [split_of(tmp_path, lines, "--workers", workers)[2] for workers in ("1", "2", "5")]
    assert results[0] == results[1] == results[2]


def test_validation_fraction(tmp_path):
    _, validation, _ = split_of(tmp_path, texts(4000), "--validation-fraction", "0.5")
    assert 1800 <= len(validation) <= 2200
    assert Splitter(1.0, 0).is_validation(b"\xff" * 16)
    assert not Splitter(0.0, 0).is_validation(bytes(16))


def test_several_inputs_in_order(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "second"}\n{"text": "third"}'))
    (tmp_path / "c.json").write_text(json.dumps([{"text": "fourth"}]))
    names = [tmp_path / name for name in ("a.txt", "b.jsonl.gz", "c.json")]
    out = tmp_path / "o.h5"
    assert run_script(*names, "--tokenizer", "bytes", "--output", out).code == 0
    found = [text.removesuffix("<|endoftext|>") for text in read_token_file(out).texts()]
    assert found == ["first", "second", "third", "fourth"]


def test_skip_bad_counts_and_names_examples(prepare):
    records = [{"text": "a1"}, {"no": 1}, {"text": 3}, {"text": "b1"}, {"text": ""}]
    data = prepare(records, "--skip-bad")
    assert data.texts() == ["a1<|endoftext|>", "b1<|endoftext|>"]
    assert "1 empty, 2 bad" in data.outcome.out
    assert 'in.jsonl:3: "text" is a number, it must be a string' in data.outcome.out


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"other": 1}, "keys other: give text; prompt and completion;"),
        ({"prompt": "a", "completion": None}, '"completion" is a null, it must be a string'),
        ({"prompt": "a", "completion": " "}, "the answer is empty"),
        ({"instruction": "a", "output": ["b"]}, '"output" is a list'),
        ({"messages": []}, "at least one message"),
        ({"messages": "hi"}, "must be a list"),
        ({"messages": ["hi"]}, "message 1 is a string, it must be an object"),
        ({"messages": [{"role": "user"}]}, 'message 1: "content" is missing'),
        ({"messages": [{"role": "user", "content": "a"}]}, "no message of the assistant"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "message 1: the answer is empty"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
            "message 2: a system message must come first",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "only text can be learnt",
        ),
        ({"conversations": [{"from": "alien", "value": "a"}]}, "unknown role 'alien'"),
        ({"messages": [{"role": "assitant", "content": "a"}]}, "message 1: unknown role 'assitant'"),
        (
            {"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]},
            'message 1: "weight" is 0.5, it must be 0 or 1',
        ),
        (
            {"messages": [{"role": "user", "content": "a"}]},
            "no message of the assistant",
        ),
    ],
)
def test_bad_records(tmp_path, record, message):
    source, out = tmp_path / "in.jsonl", tmp_path / "o.h5"
    source.write_text('{"text": "fine"}\n\n' + json.dumps(record) + "\n")
    outcome = run_script(
        source, "--tokenizer", "bytes", "--output", out, "--chat-template", "chatml"
    )
    assert outcome.code == 65
    assert outcome.err.startswith(f"prepare_text: {source}:3: ") and message in outcome.err
    assert "--skip-bad" in outcome.err and outcome.err.count("\n") == 1
    assert not out.exists()


def test_chat_without_a_template_says_which_option(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"messages": [{"role": "assistant", "content": "a"}]}\n')
    outcome = run_script(source, "--tokenizer", "bytes", "--output", tmp_path / "o.h5")
    assert outcome.code == 65 and "needs --chat-template" in outcome.err


def test_required_format(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n')
    arguments = (source, "--tokenizer", "bytes", "--output", tmp_path / "o.h5", "--format")
    outcome = run_script(*arguments, "alpaca")
    assert outcome.code == 65 and '"instruction" is missing' in outcome.err
    assert run_script(*arguments, "text").code == 0
    assert read_token_file(tmp_path / "o.h5").texts() == ['{"text": "a"}\n<|endoftext|>']


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--format", "xml"], 64, "invalid choice: 'xml'"),
        (["--max-length", "1"], 64, "is not between 2"),
        (["--workers", "0"], 64, "is not between 1"),
        (["--validation-fraction", "0.1"], 64, "needs --validation"),
        (["--validation", "{out}"], 64, "are one file"),
        (["--validation", "{in}"], 64, "is an input too"),
        (["--user-prefix", "Q"], 64, "need --chat-template custom"),
        (["--default-system", "Q"], 64, "--default-system needs --chat-template"),
        (["--eos-token", "x"], 64, "not for --tokenizer bytes"),
        (["--validation", "{folder}", "--force"], 73, "is a folder"),
        (["--validation", "{in}/x/v.h5"], 73, "choose another place"),
        (["--validation", "{folder}/v.h5"], 65, "no document fell to validation"),
        (
            ["--validation", "{folder}/v.h5", "--validation-fraction", "1"],
            65,
            "no document fell to training",
        ),
        (["--nonsense"], 64, "unrecognized arguments"),
    ],
)
def test_wrong_use(tmp_path, options, code, message):
    source, out = tmp_path / "in.txt", tmp_path / "o.h5"
    source.write_text("text")
    places = {"{in}": str(source), "{out}": str(out), "{folder}": str(tmp_path)}
    for mark, place in places.items():
        options = [option.replace(mark, place) for option in options]
    outcome = run_script(source, "--tokenizer", "bytes", "--output", out, *options)
    assert outcome.code == code
    assert outcome.err.startswith("prepare_text: ") and message in outcome.err
    assert outcome.err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["in.txt"]


def test_inputs_without_a_document(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": ""}\n{"text": "  "}\n')
    outcome = run_script(source, "--tokenizer", "bytes", "--output", tmp_path / "o.h5")
    assert outcome.code == 65 and "hold no document" in outcome.err


def test_existing_output_is_kept_without_force(tmp_path):
    source, out = tmp_path / "in.txt", tmp_path / "o.h5"
    source.write_text("text")
    out.write_text("precious")
    arguments = (source, "--tokenizer", "bytes", "--output", out)
    outcome = run_script(*arguments)
    assert outcome.code == 73 and "--force replaces it" in outcome.err
    assert out.read_text() == "precious"
    assert run_script(*arguments, "--force").code == 0
    assert read_token_file(out).texts() == ["text<|endoftext|>"]


def test_help_names_every_template():
    with pytest.raises(SystemExit) as caught:
        run_script("--help")
    assert caught.value.code == 0
    assert all(f"{name}," in prepare_text.make_parser().format_help() for name in chat.PRESETS)


class Terminal:
    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_bar():
    statistics, terminal, times = report.Statistics(), Terminal(), iter([0.0, 0.1, 10.0])
    statistics.bytes_total, statistics.bytes_read = 400_000_000, 100_000_000
    progress = report.Progress(terminal, lambda: next(times))
    progress.update(statistics)
    assert terminal.text == ""  # too soon
    progress.update(statistics)
    assert "[######" in terminal.text and " 25%" in terminal.text
    assert "10.0 MB/s, 0:30 left" in terminal.text
    progress.close()
    assert terminal.text.endswith("\r\033[K")


def test_clock_time():
    assert [report.clock_time(s) for s in (0, 59.6, 3725)] == ["0:00", "1:00", "1:02:05"]


@pytest.mark.parametrize(
    ("lengths", "row", "packed", "padded"),
    [
        ([10], 10, 1.0, 1.0),
        ([6, 6, 4, 4], 10, 1.0, 0.5),
        ([25], 10, 25 / 30, 1.0),
        ([6, 6], 10, 0.6, 0.6),
        ([7, 5, 3, 5], 10, 1.0, 0.5),
    ],
)
def test_efficiencies(lengths, row, packed, padded):
    assert report.packing_efficiency(lengths, row) == pytest.approx(packed)
    assert report.padding_efficiency(lengths, row) == pytest.approx(padded)


def test_suggested_row_length():
    assert report.suggested_row_length([100] * 99 + [5000]) == 128
    assert report.suggested_row_length([100_000]) == 2048
    assert report.suggested_row_length([3]) == 64


def test_summary(prepare):
    data = prepare(
        [{"prompt": "12345", "completion": "ab"}, {"prompt": "123", "completion": "abcd"}]
    )
    out = data.outcome.out
    assert "training:   2 documents, 16 tokens, 50 % of them targets" in out
    assert "mean 8.0, longest 8 tokens" in out
    assert "<=          8            2  ####" in out
    assert "suggested:  sequence_length: 64" in out


def test_the_first_records_of_each_file(tmp_path):
    for name, texts in (("a.jsonl", "abc"), ("b.jsonl", "de")):
        (tmp_path / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out = tmp_path / "o.h5"
    outcome = run_script(tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--tokenizer", "bytes", "--output", out,
                         "--max-records", "2")
    assert outcome.code == 0, outcome.err
    assert [text[0] for text in read_token_file(out).texts()] == ["a", "b", "d", "e"]
