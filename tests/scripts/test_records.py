"""The shapes that records have in use, what becomes of each of their keys, and that none is lost."""

import json
import re
from pathlib import Path

import pytest
from conftest import run_script
from lorascale_data import chat, keys, records, shapes
from lorascale_data.command_line import columns_of
from lorascale_data.errors import RecordError

CHATML = chat.Renderer(chat.PRESETS["chatml"])


class Recorder:
    """A template that reads what it is told to, and shows the conversation that it got."""

    def __init__(self, *names):
        self._names = names

    chats_only = False

    def reads(self, key):
        return key in self._names

    def render(self, conversation):
        self.got = conversation
        return chat.Rendered([[chat.Segment("seen", True)]])


def parse(record, template=CHATML, **rules):
    return records.parse_json(json.dumps(record).encode(), records.Rules(template, **rules))


def turns(*texts, system=None):
    """The text of a ChatML conversation of questions and answers, and its targets."""
    parts = [f"<|im_start|>system\n{system}<|im_end|>\n"] if system else []
    for i, text in enumerate(texts):
        role = "assistant" if i % 2 else "user"
        parts.append(f"<|im_start|>{role}\n{text}<|im_end|>\n")
    return "".join(parts)


def of(record, **rules):
    [document], unused = parse(record, **rules)
    text = "".join(segment.text for segment in document.segments)
    targets = [segment.text for segment in document.segments if segment.target]
    return text, targets, unused


E = "<|im_end|>"
Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
HUMAN, GPT = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}

# (who writes it so, record, text, targets)
SHAPES = [
    ("OpenAI", {"messages": [{"role": "system", "content": "S"}, Q, A]}, turns("Q", "A", system="S"), [f"A{E}"]),
    ("OpenAI developer", {"messages": [{"role": "developer", "content": "S"}, Q, A]}, turns("Q", "A", system="S"), [f"A{E}"]),
    ("OpenAI weight", {"messages": [Q, {**A, "weight": 0}, Q, {**A, "weight": 1}]}, turns("Q", "A", "Q", "A"), [f"A{E}"]),
    ("OpenAI answers as logged", {"messages": [Q, {**A, "refusal": None, "tool_calls": None, "audio": None, "annotations": []}]}, turns("Q", "A"), [f"A{E}"]),
    ("parts", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q1"}, {"type": "input_text", "text": "Q2"}]}, A]}, turns("Q1Q2", "A"), [f"A{E}"]),
    ("JSON in a string", {"messages": json.dumps([Q, A])}, turns("Q", "A"), [f"A{E}"]),
    ("axolotl train", {"messages": [Q, {**A, "train": False}, Q, {**A, "train": True}]}, turns("Q", "A", "Q", "A"), [f"A{E}"]),
    ("axolotl training", {"messages": [Q, {**A, "training": False}, Q, A]}, turns("Q", "A", "Q", "A"), [f"A{E}"]),
    ("axolotl template-free", {"segments": [{"label": False, "text": "Q:"}, {"label": True, "text": "A"}]}, "Q:A", ["A"]),
    ("ms-swift loss", {"messages": [Q, {**A, "loss": False}, Q, A]}, turns("Q", "A", "Q", "A"), [f"A{E}"]),
    ("ShareGPT", {"conversations": [HUMAN, GPT]}, turns("Q", "A"), [f"A{E}"]),
    ("ShareGPT system", {"system": "S", "conversations": [HUMAN, GPT]}, turns("Q", "A", system="S"), [f"A{E}"]),
    ("ShareGPT of roles", {"conversations": [Q, A]}, turns("Q", "A"), [f"A{E}"]),
    ("ShareGPT no tools", {"tools": "[]", "conversations": [HUMAN, GPT]}, turns("Q", "A"), [f"A{E}"]),
    ("LMSYS", {"conversation": [Q, A]}, turns("Q", "A"), [f"A{E}"]),
    ("XTuner", {"conversation": [{"system": "S", "input": "Q", "output": "A"}, {"input": "Q", "output": "A"}]}, turns("Q", "A", "Q", "A", system="S"), [f"A{E}"] * 2),
    ("Firefly", {"conversation": [{"human": "Q", "assistant": "A"}]}, turns("Q", "A"), [f"A{E}"]),
    ("Alpaca", {"instruction": "Q", "input": "X", "output": "A"}, turns("Q\n\nX", "A"), [f"A{E}"]),
    ("Alpaca by LLaMA-Factory", {"instruction": "Q", "input": "", "output": "A", "system": "S", "history": [["q", "a"]]}, turns("q", "a", "Q", "A", system="S"), [f"a{E}", f"A{E}"]),
    ("history of messages", {"query": "Q", "response": "A", "history": [Q, A]}, turns("Q", "A", "Q", "A"), [f"A{E}"] * 2),
    ("GPTeacher", {"instruction": "Q", "input": "", "response": "A"}, turns("Q", "A"), [f"A{E}"]),
    ("Dolly", {"instruction": "Q", "context": "X", "response": "A"}, turns("Q\n\nX", "A"), [f"A{E}"]),
    ("OpenOrca", {"system_prompt": "S", "question": "Q", "response": "A"}, turns("Q", "A", system="S"), [f"A{E}"]),
    ("GSM8K", {"question": "Q", "answer": "A"}, turns("Q", "A"), [f"A{E}"]),
    ("MetaMath", {"query": "Q", "response": "A"}, turns("Q", "A"), [f"A{E}"]),
    ("input and output", {"input": "Q", "output": "A"}, turns("Q", "A"), [f"A{E}"]),
    ("TRL", {"prompt": "Q", "completion": "A"}, turns("Q", "A"), [f"A{E}"]),
    ("TRL conversational", {"prompt": [Q, A, Q], "completion": [A]}, turns("Q", "A", "Q", "A"), [f"A{E}"]),
    ("TRL half conversational", {"prompt": [Q], "completion": "A"}, turns("Q", "A"), [f"A{E}"]),
    ("TRL text", {"text": "T"}, "T", ["T"]),
    ("a table's empty cells", {"text": None, "messages": None, "prompt": "Q", "completion": "A", "tools": []}, turns("Q", "A"), [f"A{E}"]),
    ("weights of all", {"messages": [{**Q, "weight": 1}, {**A, "train": False, "weight": 1}, {**Q, "weight": 0}, {**A, "weight": 1}]}, turns("Q", "A", "Q", "A"), [f"A{E}"]),
    ("wanted by its weight", {"weight": 1, "prompt": "Q", "completion": "A"}, turns("Q", "A"), [f"A{E}"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "text", "targets"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES]
)
def test_shapes(record, text, targets):
    found, found_targets, unused = of(record)
    assert (found, found_targets, unused) == (text, targets, [])


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"messages": [Q, A], "prompt": "Q", "source": "web"}, ["prompt", "source"]),
        ({"instruction": "Q", "output": "A", "text": "### Q", "id": 7}, ["text", "id"]),
        ({"text": "T", "url": "http", "score": 0.5, "empty": ""}, ["url", "score"]),
        ({"messages": [Q, {**A, "name": "Ann", "cache": {"a": 1}}]}, ["message.name", "message.cache"]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q", "cited": 1}]}, A]},
         ["message.content.cited"]),
        ({"conversations": [{**HUMAN, "id": "x"}, GPT], "model": "m"}, ["message.id", "model"]),
        ({"prompt": "Q", "completion": "A", "chosen": "A", "label": True}, ["chosen", "label"]),
    ],
)  # fmt: skip
def test_unknown_keys_are_told(record, names):
    _, unused = parse(record)
    assert [name for name, _ in unused] == names


CALL = {"name": "weather", "arguments": '{"city": "Oslo"}'}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": [Q, {**A, "content": None, "tool_calls": [{"function": CALL}]}]}, '"tool_calls"'),
        ({"messages": [Q, {"role": "assistant", "content": None, "function_call": CALL}]}, '"tool_calls"'),
        ({"conversations": [HUMAN, {"from": "function_call", "value": json.dumps(CALL)}]}, '"tool_calls"'),
        ({"messages": [Q, A], "tools": [{"name": "f"}]}, '"tools"'),
        ({"messages": [Q, A], "functions": [{"name": "f"}]}, '"functions"'),
        ({"messages": [Q, A], "documents": [{"text": "d"}]}, '"documents"'),
        ({"messages": [Q, A], "chat_template_kwargs": {"enable_thinking": True}}, "'enable_thinking'"),
        ({"messages": [Q, {**A, "thinking": "hm"}]}, '"thinking"'),
        ({"prompt": "Q", "completion": "A", "reasoning": "hm"}, '"reasoning"'),
        ({"messages": [Q, {**A, "mask": 1}]}, '"mask"'),
        ({"messages": [Q, {**A, "train_detail": [{"begin_offset": 0}]}]}, '"train_detail"'),
        ({"messages": [{**Q, "images": ["a.png"]}, A]}, '"images"'),
        ({"messages": [Q, A], "images": ["a.png"]}, '"images"'),
        ({"messages": [Q, A], "history": [["q", "a"]]}, '"history"'),
        ({"text": "T", "system": "S"}, '"system"'),
        ({"text": "T", "loss_mask": [0, 1]}, '"loss_mask"'),
        ({"text": "T", "weight": 0.5}, '"weight"'),
        ({"question": "Q", "answer": "A", "choices": ["A", "B"]}, "--columns input=choices"),
        ({"question": "Q", "answer": "A", "context": "X"}, "--columns input=context"),
        ({"prompt": "Q", "completion": "A", "label": False}, '"label"'),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "--columns prompt=prompt,completion=chosen"),
        ({"input_ids": [1, 2], "labels": [-100, 2]}, "tokens of some tokenizer"),
        ({"prompt": "Q", "question": "Q2", "completion": "A"}, "prompt and question: say which"),
        ({"prompt": "Q", "response": "A", "answer": "B"}, "--columns completion=response"),
        ({"messages": "[{'role': 'user', 'content': 'Q'}]"}, "write it with json.dumps"),
        ({"instruction": "Q", "output": "A", "history": [["q"]]}, "no pair of texts"),
        ({"messages": [Q, {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, A]},
         "'image_url', only text"),
        ({"messages": [{"role": "system", "content": "S"}, Q, A], "system": "T"}, "say two things"),
        ({"messages": [Q, {**A, "training": "yes"}]}, '"training" is \'yes\''),
        ({"segments": [{"label": False, "text": "Q"}]}, "no segment is a target"),
        ({"messages": [Q, A, Q], "response": "B"}, "--columns prompt=messages,completion=response adds it"),
        ({"version": 1, "data": [{"text": "T"}]}, "jq -c '.data[]'"),
        ({"messages": [Q, {**A, "tool_calls": [{"function": CALL}]}], "tools": [{"name": "f"}]},
         '"tool_calls" and "tools" cannot be honoured'),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(record, message):
    with pytest.raises(RecordError, match=re.escape(message)):
        parse(record)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Q", "completion": "A", "system": "S"},
        {"prompt": "Q", "completion": "A", "history": [["q", "a"]]},
        {"prompt": "Q", "completion": "A", "tools": [{"name": "f"}]},
        {"prompt": [Q], "completion": [A]},
    ],
)
def test_what_needs_a_template_says_so(record):
    with pytest.raises(RecordError, match="needs? .*--chat-template|a template"):
        parse(record, template=None)


def test_records_marked_as_not_to_be_learnt_are_left_out():
    for switch in ({"weight": 0}, {"train": False}, {"loss": False}, {"weight": 0, "train": True}):
        assert parse({"prompt": "Q", "completion": "A", **switch}) == (None, [])
        assert parse({"messages": [Q, {**A, **switch}]}) == (None, [])  # of all its answers
    with pytest.raises(RecordError, match='"weight" is 0.5, it must be 0 or 1'):
        parse({"prompt": "Q", "completion": "A", "weight": 0.5})


def test_ignored_keys_are_left_out_and_told():
    record = {"messages": [Q, {**A, "images": ["a"]}], "images": ["a.png"], "tools": "x"}
    text, targets, unused = of(record, ignored=frozenset(["images", "tools"]))
    assert (text, targets) == (turns("Q", "A"), [f"A{E}"])
    assert [name for name, _ in unused] == ["message.images", "images", "tools"]


@pytest.mark.parametrize(
    ("record", "key", "text"),
    [
        ({"instruction": "I", "context": "C", "response": "A"}, "context", "### Instruction:\nI\n\n### Response:\nA"),
        ({"instruction": "I", "system": "S", "output": "A"}, "system", "### Instruction:\nI\n\n### Response:\nA"),
        ({"prompt": "Q", "input": "X", "completion": "A"}, "input", "QA"),
    ],
)
def test_ignored_keys_of_a_question_are_not_written(record, key, text):
    found, _, unused = of(record, template=None, ignored=frozenset([key]))
    assert (found, [name for name, _ in unused]) == (text, [key])


@pytest.mark.parametrize(
    ("switch", "learnt"),
    [({"weight": "1"}, True), ({"weight": "0"}, False), ({"train": "TRUE"}, True), ({"loss": "false"}, False),
     ({"train_on_inputs": False}, True), ({"images": False}, True)],
)  # fmt: skip
def test_switches_of_tables_are_text_and_no_is_no_wish(switch, learnt):
    documents, _ = parse({"prompt": "Q", "completion": "A", **switch})
    assert (documents is not None) == learnt
    if "train_on_inputs" in switch:
        parse({"messages": [Q, {**A, "prefix": False}], **switch})
        with pytest.raises(RecordError, match="train_on_inputs"):
            parse({"prompt": "Q", "completion": "A", "train_on_inputs": True})


def test_columns_name_the_keys():
    record = {"prompt": "no", "ask": "Q", "best": "A", "worst": "B", "about": "X", "system": "S"}
    columns = (("prompt", "ask"), ("completion", "best"), ("input", "about"))
    text, targets, unused = of(record, columns=columns)
    assert (text, targets) == (turns("Q\n\nX", "A", system="S"), [f"A{E}"])
    assert unused == [("worst", "B"), ("prompt", "no")]
    assert of({"body": "T", "messages": [Q, A]}, columns=(("text", "body"),))[0] == "T"
    assert of({"log": [Q, A], "text": "T"}, columns=(("messages", "log"),))[0] == turns("Q", "A")
    with pytest.raises(RecordError, match='"ask" of --columns is missing; the keys are text'):
        parse({"text": "T"}, columns=columns)


@pytest.mark.parametrize(
    ("record", "columns", "text", "aside"),
    [
        ({"question": "Q", "answer": "A", "context": "X"}, "input=context", turns("Q\n\nX", "A"), []),
        ({"messages": [Q, A], "preamble": "S"}, "system=preamble", turns("Q", "A", system="S"), []),
        ({"prompt": "Q", "answer": "A", "output": "B"}, "completion=output", turns("Q", "B"), ["answer"]),
        ({"prompt": "P", "question": "Q", "answer": "A"}, "prompt=question", turns("Q", "A"), ["prompt"]),
        ({"ask": "Q", "input": "X", "best": "A"}, "prompt=ask,completion=best", turns("Q\n\nX", "A"), []),
        ({"messages": [Q], "response": "A"}, "prompt=messages,completion=response", turns("Q", "A"), []),
        ({"prompt": "P", "chosen": "A", "rejected": "B"}, "prompt=prompt,completion=chosen",
         turns("P", "A"), ["rejected"]),
    ],
)  # fmt: skip
def test_columns_leave_the_other_keys_what_they_are(record, columns, text, aside):
    """Among them those that refusals advise."""
    found, _, unused = of(record, columns=columns_of(columns, shapes.COLUMNS))
    assert (found, [name for name, _ in unused]) == (text, aside)


def test_columns_name_the_keys_of_messages():
    record = {"turns": [{"who": "user", "said": "Q", "at": 1}, {"who": "gpt", "said": "A"}], "n": 1}
    columns = (("messages", "turns"), ("role", "who"), ("content", "said"))
    text, targets, unused = of(record, columns=columns)
    assert (text, targets) == (turns("Q", "A"), [f"A{E}"])
    assert unused == [("message.at", 1), ("n", 1)]
    renamed = {"messages": record["turns"], "prompt": "P"}
    assert of(renamed, columns=columns[1:])[0] == turns("Q", "A")
    with pytest.raises(RecordError, match='message 1: "who" of --columns is missing'):
        parse({"turns": [Q, A]}, columns=columns)


def test_keys_that_are_there_twice():
    for raw in (b'{"text": "a", "text": "b"}', b'{"messages": [{"role": "user", "role": "assistant"}]}'):
        with pytest.raises(RecordError, match="the key '(text|role)' is there twice"):
            records.parse_json(raw, records.Rules(CHATML))


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALLED = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        (
            {"tools": TOOLS, "messages": [
                Q, {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "c1", "type": "function", "function": CALL}]},
                {"role": "tool", "tool_call_id": "c1", "content": "4"}, A]},
            [Q, {"role": "assistant", "content": None, "tool_calls": [{**CALLED, "id": "c1"}]},
             {"role": "tool", "content": "4", "tool_call_id": "c1"}, A],
        ),
        (
            {"functions": [TOOLS[0]["function"]], "messages": [
                Q, {"role": "assistant", "content": "So:", "function_call": CALL},
                {"role": "function", "name": "weather", "content": "4"}, A]},
            [Q, {"role": "assistant", "content": "So:", "tool_calls": [CALLED]},
             {"role": "tool", "content": "4", "name": "weather"}, A],
        ),
        (
            {"tools": json.dumps([TOOLS[0]["function"]]), "conversations": [
                HUMAN, {"from": "function_call", "value": json.dumps(CALL)},
                {"from": "observation", "value": "4"}, GPT]},
            [Q, {"role": "assistant", "content": None, "tool_calls": [CALLED]},
             {"role": "tool", "content": "4"}, A],
        ),
    ],
    ids=["tools", "functions", "ShareGPT"],
)  # fmt: skip
def test_tools_reach_a_template_that_reads_them(record, messages):
    template = Recorder("tools", "tool_calls", "tool_call_id", "name")
    parse(record, template)
    assert template.got.messages == messages
    assert template.got.learn == [False, True, False, True]
    assert template.got.extras == {"tools": TOOLS}


def test_calls_keep_what_they_carry():
    call = {"name": "f", "parameters": {"a": None}, "strict": True, "note": None}
    record = {"messages": [Q, {"role": "assistant", "tool_calls": [{"id": "c", "function": call, "x": None}]}]}
    template = Recorder("tool_calls")
    parse(record, template)
    assert template.got.messages[1]["tool_calls"] == [
        {"type": "function", "id": "c", "function": {"name": "f", "strict": True, "arguments": {"a": None}}}
    ]
    for wrong in ({"name": 3}, {"arguments": {}}, "f(", {"name": "f", "arguments": "{"}):
        with pytest.raises(RecordError, match='"tool_calls"'):
            parse({"messages": [Q, {"role": "assistant", "tool_calls": [wrong]}]}, template)


@pytest.mark.parametrize("key", ["images", "mask", "loss_mask", "refusal"])
def test_what_changes_training_is_not_passed_to_templates_by_chance(key):
    with pytest.raises(RecordError, match=f'"{key}" cannot be honoured'):
        parse({"messages": [Q, {**A, key: [1]}]}, Recorder(key))


def test_roles_that_only_seem_known_are_translated():
    """That a template's text has the word human does not make it a role of its."""
    template = Recorder("human", "gpt", "tool_call")
    parse({"conversations": [HUMAN, GPT]}, template)
    assert [message["role"] for message in template.got.messages] == ["user", "assistant"]


@pytest.mark.parametrize("given", keys.REASONING)
@pytest.mark.parametrize("read", keys.REASONING)
def test_thoughts_get_the_name_that_the_template_reads(given, read):
    for record in (
        {"messages": [Q, {**A, given: "hm"}]},
        {"prompt": "Q", "completion": "A", given: "hm"},
    ):
        template = Recorder(read)
        parse(record, template)
        assert template.got.messages[-1] == {**A, read: "hm"}


def test_roles_that_a_template_knows_stay():
    record = {"messages": [{"role": "developer", "content": "S"}, Q, A]}
    template = Recorder("developer", "enable_thinking")
    parse({**record, "chat_template_kwargs": {"enable_thinking": False}}, template)
    assert template.got.messages[0]["role"] == "developer"
    assert template.got.extras == {"enable_thinking": False}


def test_report_counts_unused_keys_and_what_was_left_out(prepare):
    rows = [{"text": f"text {i}", "source": {"name": "web" * 30}} for i in range(2000)]
    rows[7] |= {"weight": 0}
    rows[8] |= {"note": "\x1b[2J\n"}
    out = prepare(rows).outcome.out
    place = r"\S+in.jsonl"
    assert "1 marked as not to be learnt" in out
    assert re.search(rf'not used:   source of 1,999 records, such as {{"name": "web\S+\.\.\. at {place}:1\n', out)
    assert re.search(rf'            note of 1 records, such as "\\u001b\[2J\\n" at {place}:9\n', out)


def test_endless_key_names_cost_nothing(prepare):
    rows = [{"text": f"t{i}", **{f"key{i}-{k}": 1 for k in range(50)}} for i in range(50)]
    out = prepare(rows).outcome.out
    assert "and 53 more keys" in out and len(out) < 6000


def test_unused_keys_do_not_depend_on_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("lorascale_data.pipeline.BATCH_RECORDS", 10)
    source = tmp_path / "in.jsonl"
    rows = [{"text": f"t{i}", ("a", "b", "c")[i % 3]: i + 1} for i in range(100)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outs = []
    for workers in (1, 3):
        outcome = run_script(source, "--tokenizer", "bytes", "--output", tmp_path / "o.h5", "--force",
                             "--workers", workers)  # fmt: skip
        outs.append([line for line in outcome.out.splitlines() if not line.startswith("time")])
    assert outs[0] == outs[1] and f"a of 34 records, such as 1 at {source}:1" in "\n".join(outs[0])


def test_a_template_that_no_document_used_is_said(prepare):
    assert "no document used --chat-template chatml" in prepare("text", "--chat-template", "chatml").outcome.err
    record = {"prompt": "Q", "completion": "A"}
    assert "no document used" not in prepare([record], "--chat-template", "chatml").outcome.err
    assert "no document used" not in prepare([record]).outcome.err


@pytest.mark.parametrize("columns", ["prompt", "prompt=", "=x", "label=x", "text=a,text=b"])
def test_wrong_columns(tmp_path, columns):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    outcome = run_script(tmp_path / "in.jsonl", "--tokenizer", "bytes", "--output", tmp_path / "o.h5",
                         "--columns", columns)  # fmt: skip
    assert outcome.code == 64 and "--columns" in outcome.err and outcome.err.count("\n") == 1


def test_the_table_of_keys_names_them_all():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    told = set(re.findall(r"`(\w+)`", page.partition("# The token file")[0]))
    assert keys.KNOWN - {"input_ids", "label"} <= told
    assert {*keys.SYSTEM, *keys.SWITCHES, *shapes.COLUMNS} <= told
