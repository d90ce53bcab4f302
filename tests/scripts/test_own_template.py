"""Conversations by the models' own templates: ids equal to those of transformers, targets where the
model would write, nothing lost.

The templates named in TRL are the published files, as the installed trl carries them (those that end in
_training are trl's own, with {% generation %} marks), SmolLM2's is the published one of its folder;
those in templates/ are written in our own words."""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import encode_prompt
import pytest
import tokenizers
import transformers
import trl
from conftest import LLAMA3_PATTERN, TRAINING_TEXT, read_token_file, run_script
from lorascale_data import chat, own_template, records, template_source, tokenizing
from lorascale_data.errors import PrepareError, RecordError
from tokenizers import decoders, models, pre_tokenizers, trainers

TRL = Path(trl.__file__).parent / "chat_templates"
OURS = Path(__file__).parent / "templates"
ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Family:
    end: str  # what ends an answer, by the family's documentation
    bos: str | None = None
    eos: str | None = None
    values: dict | None = None  # variables of the template
    folder: Path = TRL
    file: str | None = None
    merges: bool = False  # the prompt's last line break and the answer's first are one token


FAMILIES = {
    "qwen2_5": Family("<|im_end|>", eos="<|im_end|>"),
    "qwen3": Family("<|im_end|>", eos="<|im_end|>"),
    "qwen3-no-think": Family(
        "<|im_end|>", eos="<|im_end|>", values={"enable_thinking": False}, file="qwen3"
    ),
    "qwen3_5_think": Family("<|im_end|>", eos="<|im_end|>", merges=True),
    "qwen3_training": Family("<|im_end|>", eos="<|im_end|>"),
    "llama3_1": Family("<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>"),
    "llama3_2": Family(
        "<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>", values={"date_string": "26 Jul 2024"}
    ),
    "llama3_training": Family("<|eot_id|>", "<|begin_of_text|>", "<|eot_id|>"),
    "gemma": Family("<end_of_turn>", "<bos>", "<eos>"),  # Gemma 2's, too
    "gemma3": Family("<end_of_turn>", "<bos>", "<eos>"),
    "phi3": Family("<|end|>", "<s>", "<|endoftext|>"),
    "phi3_training": Family("<|end|>", "<s>", "<|endoftext|>"),
    "deepseek_r1_distill": Family(
        "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    ),
    "cohere": Family("<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "gptoss": Family("<|return|>", "<|startoftext|>", "<|return|>"),
    "mistral_v3": Family("</s>", "<s>", "</s>", folder=OURS),
    "mistral_v7": Family("</s>", "<s>", "</s>", folder=OURS),
    "phi4": Family("<|im_end|>", "<|endoftext|>", "<|im_end|>", folder=OURS),
}
SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|begin_of_text|>", "<|eot_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>", "<bos>", "<eos>", "<start_of_turn>",
    "<end_of_turn>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<BOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>",
    "<|startoftext|>", "<|start|>", "<|message|>", "<|channel|>", "<|return|>", "[INST]", "[/INST]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
]  # fmt: skip


def user(text):
    return {"role": "user", "content": text}


def assistant(text=None, **more):
    return {"role": "assistant", **({} if text is None else {"content": text}), **more}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "Be brief."}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city, 'now' & \"here\"",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TURNS = [user("What is 12345?"), assistant("A number."), user("Wie heißt 日本語?"), assistant("Naïve 🙂\n\nok")]
THOUGHTS = [
    user("Is 21 prime?"),
    assistant("<think>\n21 is 3 times 7.\n</think>\n\nNo."),
    user("Is 23?"),
    assistant("<think>\nNothing divides it.\n</think>\n\nYes."),
]
USE = [
    user("Weather in Oslo?"),
    assistant(tool_calls=[call("weather", city="Oslo")]),
    {"role": "tool", "name": "weather", "content": "4 degrees, \"rain\""},
    assistant("It is 4 degrees in Oslo."),
]
LONG = [
    user(f"Question {i} of the café?") if i % 2 == 0 else assistant(f"Answer {i}: {'ok ' * (i % 5 + 1)}done.")
    for i in range(44)
]
CONVERSATIONS = {
    "one": {"messages": TURNS[:2]},
    "two": {"messages": TURNS},
    "system": {"messages": [SYSTEM, *TURNS]},
    "question last": {"messages": [*TURNS, user("And now?")]},
    "padded": {"messages": [user(" spaces "), assistant(" and\n lines ")]},
    "thoughts": {"messages": THOUGHTS},
    "reasoning": {"messages": [user("Spell cat."), assistant("C-A-T", reasoning_content="c, a, t")]},
    "tools": {"messages": USE, "tools": [WEATHER]},
    "calls without tools": {"messages": USE},
    "two calls": {
        "messages": [USE[0], assistant("", tool_calls=[call("weather", city="Oslo"), call("f", x=1)]), *USE[2:]],
        "tools": [WEATHER],
    },
    "thought before a call": {
        "messages": [USE[0], assistant("", reasoning_content="Look it up.", tool_calls=[call("weather", city="Oslo")]),
                     *USE[2:], user("And Rome?"), assistant("Warm.", reasoning_content="It is south.")],
        "tools": [WEATHER],
    },
    "long": {"messages": LONG},
}  # fmt: skip
# Why a record may be refused that transformers would render, without a word, less than it says.
REASONS = (
    "leaves its content out", "writes no calls of tools", "writes no tools", "writes no thoughts",
    "the model's template leaves", "writes the conversation before this answer anew",
)  # fmt: skip


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """A tokenizer that has every family's marks as special tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=SPECIALS, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return tokenizer


@dataclasses.dataclass
class Pair:
    """The same model to us and to transformers."""

    folder: Path
    family: Family
    tokenizer: object
    template: own_template.OwnTemplate
    theirs: object
    source: str

    def documents(self, record, learn="all"):
        renderer = self.template if isinstance(self.template, chat.Renderer) else chat.Renderer(self.template, learn)
        found, unused = records.parse_json(json.dumps(record).encode(), records.Rules(renderer))
        assert {key for key, _ in unused} <= {"message.name"}
        return found, self.tokenizer.encode(found)

    def apply(self, record, **options):
        return self.theirs.apply_chat_template(
            record["messages"], tools=record.get("tools"), chat_template=self.source,
            **{"return_dict": False, **(self.family.values or {}), **options},
        )  # fmt: skip

    def ids(self, record):
        """transformers' ids, with the arguments of calls as texts where the template wants that."""
        try:
            return self.apply(record)
        except TypeError:
            messages = json.loads(json.dumps(record["messages"]))
            for each in (c for message in messages for c in message.get("tool_calls", [])):
                each["function"]["arguments"] = json.dumps(each["function"]["arguments"])
            return self.apply({**record, "messages": messages})


def pair_of(name, folder, library):
    family = FAMILIES[name]
    library.save(str(folder / "tokenizer.json"))
    source = (family.folder / f"{family.file or name}.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    tokens = {"bos_token": family.bos, "eos_token": family.eos}
    tokens = {key: token for key, token in tokens.items() if token is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    tokenizer = tokenizing.load(tokenizing.TokenizerOptions(str(folder)))
    template = own_template.OwnTemplate(template_source.find(folder), tokenizer, family.values)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), **tokens
    )
    return Pair(folder, family, tokenizer, template, theirs, source)


def with_template(pair, source):
    """The same tokenizer with another template in its folder."""
    (pair.folder / "chat_template.jinja").write_text(source)
    template = own_template.OwnTemplate(template_source.find(pair.folder), pair.tokenizer)
    return dataclasses.replace(pair, template=template)


@pytest.fixture(scope="session", params=FAMILIES)
def pair(request, tmp_path_factory, library):
    return pair_of(request.param, tmp_path_factory.mktemp("family"), library)


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct's folder; made on the first use of this machine."""
    made = subprocess.run(
        [ROOT / "scripts/models/smollm2.sh"], capture_output=True, text=True, timeout=900
    )
    if made.returncode == 69:
        pytest.skip(made.stderr.splitlines()[-1])
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


def target_texts(pair, document, encoded):
    """Texts of the runs of target tokens, and where in the text each begins."""
    table = pair.tokenizer.vocabulary_bytes()
    runs, before, was = [], 0, 0
    for index, target in zip(encoded.ids.tolist(), encoded.mask.tolist(), strict=True):
        if target and not was:
            runs.append([before, b""])
        if target:
            runs[-1][1] += table[index]
        before, was = before + len(table[index]), target
    return [(begin, text.decode()) for begin, text in runs]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_are_those_of_transformers_and_targets_what_the_model_would_write(name, pair):
    record = CONVERSATIONS[name]
    answers = [i for i, each in enumerate(record["messages"]) if each["role"] == "assistant"]
    try:
        documents, encoded = pair.documents(record)
    except RecordError as error:
        if "the model's template refuses it" in str(error):
            with pytest.raises(Exception):  # noqa: B017 whatever the template raises
                pair.ids(record)
        else:
            assert any(reason in str(error) for reason in REASONS), error
        return
    if pair.template.load()["default"].marked:  # by the template's own marks
        expected = pair.apply(record, return_dict=True, return_assistant_tokens_mask=True)
        assert [each.ids.tolist() for each in encoded] == [expected["input_ids"]]
        assert [each.mask.tolist() for each in encoded] == [expected["assistant_masks"]]
        return
    whole = len(documents) == 1
    assert whole or len(documents) == len(answers)
    lost = pair.template.load()["default"].lost
    spans = []
    for number, (document, each) in enumerate(zip(documents, encoded, strict=True)):
        last = len(record["messages"]) if whole else answers[number] + 1
        part = {**record, "messages": record["messages"][:last]}
        assert each.ids.tolist() == pair.ids(part)
        spans += target_texts(pair, document, each)
    assert len(spans) == len(answers)
    for i, (begin, text) in zip(answers, spans, strict=True):
        prompt = pair.apply(
            {**record, "messages": record["messages"][:i]}, add_generation_prompt=True, tokenize=False
        )
        place = len(prompt.removesuffix(lost).encode())
        merged = pair.family.merges and text.startswith("\n\n</think>")
        assert begin == place - merged
        assert any(each.merged for each in encoded) or not merged
        assert text.endswith(pair.family.end) and text.count(pair.family.end) == 1
        content = record["messages"][i].get("content", "").split("</think>")[-1].strip()
        assert content in text


@pytest.mark.parametrize(
    ("family", "name", "documents"),
    [
        ("qwen3", "two", 1), ("qwen3", "thoughts", 1), ("qwen3", "reasoning", 1), ("qwen3", "tools", 1),
        ("qwen3", "two calls", 1), ("qwen3", "thought before a call", 3),
        ("qwen3-no-think", "one", 1), ("qwen3-no-think", "two", 2), ("qwen3_5_think", "two", 2),
        ("qwen2_5", "tools", 1), ("llama3_1", "tools", 1), ("llama3_2", "tools", 1), ("gemma", "two", 1),
        ("gemma3", "system", 1), ("phi3", "two", 1), ("deepseek_r1_distill", "thoughts", 1),
        ("mistral_v3", "two", 1), ("mistral_v3", "system", 2), ("mistral_v3", "tools", 1),
        ("mistral_v7", "system", 1), ("phi4", "system", 1), ("gptoss", "two", 2), ("phi3", "long", 1),
        ("qwen3", "long", 1),
    ],
)  # fmt: skip
def test_what_is_rendered_and_how(family, name, documents, tmp_path, library):
    """The test above allows refusals: these are the ones that must not be refused."""
    pair = pair_of(family, tmp_path, library)
    assert len(pair.documents(CONVERSATIONS[name])[0]) == documents


@pytest.mark.parametrize(
    ("family", "record", "message"),
    [
        ("gemma", CONVERSATIONS["system"], "message 0|System role not supported"),
        ("gemma3", CONVERSATIONS["tools"], '"tool_calls" and "tools" cannot be honoured'),
        ("llama3_1", CONVERSATIONS["two calls"], "only supports single tool-calls"),
        ("llama3_1", {"messages": [USE[0], assistant("Let me see.", tool_calls=USE[1]["tool_calls"]), *USE[2:]]},
         "message 2: the model's template leaves its content out beside its tool_calls"),
        ("qwen2_5", CONVERSATIONS["reasoning"], '"reasoning_content" cannot be honoured'),
        ("mistral_v7", CONVERSATIONS["tools"], '"tool_calls" and "tools" cannot be honoured'),
    ],
)  # fmt: skip
def test_what_a_template_cannot_write_is_refused_by_name(family, record, message, tmp_path, library):
    with pytest.raises(RecordError, match=message):
        pair_of(family, tmp_path, library).documents(record)


def test_a_template_that_rewrites_what_was_said_is_refused(tmp_path, library):
    """Answers that change what stands before them can be learnt in no way that the model would see."""
    pair = pair_of("phi4", tmp_path, library)
    source = "{% for m in messages %}{{ '<|im_start|>' ~ messages | length ~ m.role ~ '<|im_sep|>' ~ m.content ~ '<|im_end|>' }}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(source)
    with pytest.raises(PrepareError, match="writes questions anew once they are answered"):
        own_template.OwnTemplate(template_source.find(tmp_path), pair.tokenizer).load()
    # Anew from the second answer on only: found out at the conversation.
    source = source.replace("messages | length", "[messages | length, 2] | max")
    pair = with_template(pair, source)
    assert len(pair.documents({"messages": TURNS[:2]})[0]) == 1
    with pytest.raises(RecordError, match="message 4: the model's template writes the conversation"):
        pair.documents({"messages": TURNS})


def test_changes_of_old_turns_are_found_behind_the_window(tmp_path, library):
    """A template that shortens only what is more than 30 messages old: each answer becomes a document
    of its own, though the nearer turns look the same."""
    pair = pair_of("phi4", tmp_path, library)
    source = (
        "{% for m in messages %}{% set old = loop.index0 < messages | length - 30 and m.role == 'user' %}"
        "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content[:5 if old else 999] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
    )
    pair = with_template(pair, source)
    assert len(pair.documents({"messages": LONG[:28]})[0]) == 1
    with pytest.raises(RecordError, match="leaves its content out"):
        pair.documents({"messages": LONG})


@pytest.mark.parametrize("name", ["one", "two", "system", "thoughts", "reasoning", "long", "question last"])
@pytest.mark.parametrize(
    ("preset", "family"),
    [("qwen2.5", "qwen2_5"), ("qwen3", "qwen3"), ("mistral-v7", "mistral_v7"), ("llama3", "llama3_training")],
)
def test_presets_write_what_the_models_do(preset, family, name, tmp_path, library):
    record = CONVERSATIONS[name]
    if name == "reasoning" and preset != "qwen3":
        return
    pair = pair_of(family, tmp_path, library)
    rules = records.Rules(chat.Renderer(chat.PRESETS[preset]))
    ours, _ = records.parse_json(json.dumps(record).encode(), rules)
    theirs, encoded = pair.documents(record)
    found = pair.tokenizer.encode(ours)
    assert [each.ids.tolist() for each in found] == [each.ids.tolist() for each in encoded]
    assert [each.mask.tolist() for each in found] == [each.mask.tolist() for each in encoded]


def test_only_chosen_answers_are_targets(tmp_path, library):
    pair = pair_of("qwen3", tmp_path, library)
    record = {"messages": [TURNS[0], {**TURNS[1], "weight": 0}, *TURNS[2:]]}
    for each in (pair.documents(record), pair.documents({"messages": TURNS}, "last")):
        [document], [encoded] = each
        [(_, text)] = target_texts(pair, document, encoded)
        assert text.startswith("<think>\n\n</think>\n\nNaïve")
    _, [everything] = pair.documents({"messages": TURNS}, "everything")
    assert everything.mask is None and everything.ids.tolist() == pair.ids({"messages": TURNS})


def test_marks_and_chosen_answers(tmp_path, library):
    pair = pair_of("phi3_training", tmp_path, library)
    [document], [encoded] = pair.documents({"messages": TURNS}, "last")
    texts = [text for _, text in target_texts(pair, document, encoded)]
    assert "".join(texts) == "Naïve 🙂\n\nok<|end|>\n<|endoftext|>"


def test_an_answer_that_brings_its_end_gets_no_second_one(tmp_path, library):
    pair = pair_of("qwen2_5", tmp_path, library)
    ended = {"messages": [TURNS[0], assistant(TURNS[1]["content"] + "<|im_end|>\n")]}
    [document], [encoded] = pair.documents(ended)
    assert encoded.ids.tolist() == pair.ids({"messages": TURNS[:2]}) and document.notes == ("ended",)


def run(folder, contents, tmp_path, *options):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.h5"
    source.write_text("".join(json.dumps(record) + "\n" for record in contents))
    outcome = run_script(source, "--tokenizer", folder, "--output", output, "--force", *options)
    return outcome, read_token_file(output) if outcome.code == 0 else None


def test_smollm2_in_one_command(smollm2, tmp_path):
    """The real model: auto finds its template, ids and the prompt's are those of transformers, a text
    that brings its end token gets no second one, the end of answers is in the file."""
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(smollm2)
    contents = [{"messages": TURNS}, {"messages": [SYSTEM, *TURNS]}, {"messages": LONG}]
    text = "<|im_start|>user\nName a gas.<|im_end|>\n<|im_start|>assistant\n"
    contents += [{"prompt": text, "completion": end} for end in ("Neon.", "Neon.<|im_end|>", "Neon.<|im_end|>\n")]
    outcome, data = run(smollm2, contents, tmp_path, "--prompt", "Who?", "--workers", "2")
    assert outcome.code == 0, outcome.err
    chats = [theirs.apply_chat_template(each["messages"], return_dict=False) for each in contents[:3]]
    assert data.tokens[:3] == chats
    plain = theirs(text + "Neon.<|im_end|>", add_special_tokens=False)["input_ids"]
    line_end = theirs("\n", add_special_tokens=False)["input_ids"]
    assert data.tokens[3:] == [plain, plain, [*plain, *line_end]]
    assert "2 documents or answers end with the end token" in outcome.err
    end = theirs.convert_tokens_to_ids("<|im_end|>")
    assert data.attributes["answer_end_id"] == end
    asked = theirs.apply_chat_template([user("Who?")], add_generation_prompt=True, return_dict=False)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert encode_prompt.main(["--tokenizer", str(smollm2), "Who?"]) == 0
    assert [int(index) for index in out.getvalue().split()] == asked


def test_a_preset_that_writes_otherwise_is_said_with_an_example(smollm2, tmp_path):
    outcome, _ = run(smollm2, [{"messages": TURNS}], tmp_path, "--chat-template", "chatml")
    assert "--chat-template chatml writes chats otherwise than the model's own template in 1 of" in outcome.err
    assert "\\nYou are a helpful AI assistant na" in outcome.err
    outcome, _ = run(smollm2, [{"messages": [SYSTEM, *TURNS]}], tmp_path, "--chat-template", "chatml")
    assert outcome.code == 0 and "otherwise" not in outcome.err


def family_folder(name, folder, library):
    pair_of(name, folder, library)
    return folder


@pytest.mark.parametrize(
    ("options", "contents", "code", "message"),
    [
        (["--chat-template", "owl"], [], 64, "owl: is none of auto, own, none, chatml"),
        (["--chat-template", "gone.jinja"], [], 65, "gone.jinja: cannot be read"),
        (["--chat-template-kwargs", "[1]"], [], 64, "takes an object"),
        (["--chat-template-kwargs", "{"], [], 64, "is no JSON"),
        (["--chat-template", "none"], [{"messages": TURNS}], 65, "a chat needs --chat-template"),
        (["--chat-template", "{broken}"], [], 65, "broken.jinja: line 2: "),
        (["--chat-template", "{empty}"], [], 65, "does not write out what the messages say"),
        (["--chat-template", "{attack}"], [], 65, "refuses it: access to attribute"),
    ],
)
def test_wrong_templates_end_in_one_line(options, contents, code, message, tmp_path, library):
    folder = family_folder("qwen3", tmp_path, library)
    texts = {
        "broken": "{% for m in messages %}\n{{ m. }}",
        "empty": "nothing",
        "attack": "{{ messages.__class__.__mro__ }}",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.jinja").write_text(text)
    places = {name: str(tmp_path / f"{name}.jinja") for name in texts}
    options = [places.get(option.strip("{}"), option) for option in options]
    outcome, _ = run(folder, contents or [{"text": "a b"}], tmp_path, *options)
    assert outcome.code == code and message in outcome.err, outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_variables_of_the_template(tmp_path, library):
    folder = family_folder("qwen3", tmp_path, library)
    options = ("--chat-template-kwargs", '{"enable_thinking": false}')
    _, data = run(folder, [{"messages": TURNS}], tmp_path, *options)
    assert len(data.tokens) == 2  # each answer as the model meets it
    ends = "<|im_start|>assistant\n<think>\n\n</think>\n\nA number.<|im_end|>\n"
    assert data.text(0).endswith(ends) and data.target_text(0) == "A number.<|im_end|>"


def test_turns_of_one_conversation_stay_on_one_side(tmp_path, library):
    folder = family_folder("gptoss", tmp_path, library)
    chats = [
        {"messages": [user(f"{i}?"), assistant("One."), user("More?"), assistant(f"Two {i}.")]}
        for i in range(40)
    ]
    outcome, training = run(
        folder, chats, tmp_path, "--validation", tmp_path / "v.h5", "--validation-fraction", "0.4"
    )
    assert outcome.code == 0, outcome.err
    sides = [training.texts(), read_token_file(tmp_path / "v.h5").texts()]
    assert len(sides[0]) + len(sides[1]) == 80 and all(sides)
    for i in range(40):
        assert sum(any(f">{i}?<" in text for text in side) for side in sides) == 1


def test_templates_are_found_where_models_keep_them(tmp_path, library):
    """A file beats the entry of the configuration; a list has names; tools choose tool_use."""
    library.save(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "tokenizer_config.json"
    assert template_source.find(tmp_path) is None
    config.write_text(json.dumps({"chat_template": "A", "bos_token": {"content": "<s>"}}))
    source = template_source.find(tmp_path / "tokenizer.json")
    assert (source.named, source.tokens) == ({"default": "A"}, {"bos_token": "<s>"})
    named = [{"name": "default", "template": "B"}, {"name": "tool_use", "template": "C"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert template_source.find(tmp_path).named == {"default": "B", "tool_use": "C"}
    (tmp_path / "chat_template.jinja").write_text("D")
    assert template_source.find(tmp_path).named == {"default": "D"} | {"tool_use": "C"}
    (tmp_path / "chat_template.jinja").unlink()
    config.write_text(json.dumps({"chat_template": named[1:]}))
    with pytest.raises(PrepareError, match="has the templates tool_use and none named default"):
        template_source.find(tmp_path)


def test_time_is_linear_in_the_turns(tmp_path, library):
    """Counted in messages rendered, so that a busy machine does not matter."""
    counts = []
    for turns in (64, 192):
        pair = pair_of("qwen2_5", tmp_path, library)
        variant, rendered = pair.template.load()["default"], [0]
        bound = variant.bound

        def counting(extras, values, bound=bound, rendered=rendered):
            render = bound(extras, values)

            def counted(messages, add):
                rendered[0] += len(messages)
                return render(messages, add)

            counted.given = render.given
            return counted

        variant.bound = counting
        messages = [user(f"Q{i}") if i % 2 == 0 else assistant(f"A{i}.") for i in range(turns)]
        assert len(pair.documents({"messages": messages})[0]) == 1
        counts.append(rendered[0] / turns)
    assert counts[1] < 1.15 * counts[0], counts


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": 0}, "config.json of"),
        ({"config.json": "END", "generation_config.json": [0, 1]}, "generation_config.json of"),
        ({"config.json": 0, "generation_config.json": [0, "END"]}, None),
        ({"config.json": "END", "generation_config.json": None}, None),
        ({}, None),
    ],
)
def test_an_end_token_that_servers_would_not_know_is_said(files, message, tmp_path, library):
    folder = family_folder("qwen2_5", tmp_path, library)
    end = library.token_to_id("<|im_end|>")
    for name, ids in files.items():
        ids = [end if i == "END" else i for i in ids] if isinstance(ids, list) else end if ids == "END" else ids
        (folder / name).write_text(json.dumps({"eos_token_id": ids}))
    for contents in ([{"messages": TURNS}], [{"text": "no chat"}]):
        outcome, data = run(folder, contents, tmp_path)
        said = f"answers end with <|im_end|> (token {end}), but " in outcome.err
        assert said == (message is not None and "messages" in contents[0]), outcome.err
        assert not said or f"but {message}" in outcome.err
        assert ("answer_end_id" in data.attributes) == ("messages" in contents[0])


@pytest.mark.parametrize("preset", [None, "qwen3"])
@pytest.mark.parametrize("name", ["two", "thoughts", "long"])
def test_answers_apart_are_what_the_model_writes(name, preset, tmp_path, library):
    """Qwen3 thinks in every turn, and takes earlier thoughts out. Together earlier answers are learnt without a thought,
    which is said; apart each is learnt with its own, be it empty, after what the model then sees."""
    pair = pair_of("qwen3", tmp_path, library)
    if preset:
        pair = dataclasses.replace(pair, template=chat.PRESETS[preset])
    record = CONVERSATIONS[name]
    [together], _ = pair.documents(record)
    assert "earlier" in together.notes
    pair = dataclasses.replace(pair, template=chat.Renderer(pair.template, apart=True))
    documents, encoded = pair.documents(record)
    answers = [i for i, each in enumerate(record["messages"]) if each["role"] == "assistant"]
    assert len(documents) == len(answers) and not any("earlier" in each.notes for each in documents)
    for i, document, each in zip(answers, documents, encoded, strict=True):
        assert each.ids.tolist() == pair.ids({"messages": record["messages"][: i + 1]})
        [(_, text)] = target_texts(pair, document, each)
        assert text.startswith("<think>\n") and text.endswith("<|im_end|>")


@pytest.mark.parametrize("family", ["qwen2_5", "llama3_1", "phi3_training"])
def test_any_template_writes_answers_apart(family, tmp_path, library):
    pair = pair_of(family, tmp_path, library)
    pair = dataclasses.replace(pair, template=chat.Renderer(pair.template, apart=True))
    record = {"messages": [assistant("Ask me."), *TURNS]}
    documents, encoded = pair.documents(record)
    assert [each.ids.tolist() for each in encoded] == [pair.ids({"messages": record["messages"][:end]}) for end in (3, 5)]
    texts = [text for pieces in zip(documents, encoded, strict=True) for _, text in target_texts(pair, *pieces)]
    assert "".join(texts).count("A number.") == 1 and not any("Ask me." in text for text in texts)


def test_several_marks_of_an_answer_belong_to_it(tmp_path, library):
    """{% generation %} around thought and text apart: of the first answer neither is learnt."""
    pair = pair_of("phi4", tmp_path, library)
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{% if m.role == 'assistant' %}"
        "{% if m.reasoning_content %}{% generation %}<think>{{ m.reasoning_content }}</think>{% endgeneration %}{% endif %}"
        " {% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
    )
    pair = with_template(pair, source)
    first = assistant("A number.", reasoning_content="Digits.")
    for weights in ((0, 1), (1, 0)):
        answers = [{**each, "weight": weight} for each, weight in zip((first, assistant("Oslo.")), weights, strict=True)]
        record = {"messages": [TURNS[0], answers[0], TURNS[2], answers[1]]}
        [document], [encoded] = pair.documents(record)
        learnt = "".join(text for _, text in target_texts(pair, document, encoded))
        assert learnt == ("Oslo.<|im_end|>" if weights[1] else "<think>Digits.</think>A number.<|im_end|>")


def test_a_greeting_of_smollm2(smollm2):
    """Whose template writes a system text of its own before the first message, but not before none."""
    tokenizer = tokenizing.load(tokenizing.TokenizerOptions(str(smollm2)))
    template = own_template.OwnTemplate(template_source.find(smollm2), tokenizer)
    record = {"messages": [assistant("Welcome!"), user("Hi?"), assistant("Hello.")]}
    [document], _ = records.parse_json(json.dumps(record).encode(), records.Rules(chat.Renderer(template)))
    assert [s.text for s in document.segments if s.target] == ["Hello.<|im_end|>"] and "unasked" in document.notes
    tools = {"messages": USE, "tools": [WEATHER]}
    with pytest.raises(RecordError, match="the model's own template writes no calls of tools, or leave out"):
        records.parse_json(json.dumps(tools).encode(), records.Rules(chat.Renderer(template)))


def test_questions_and_answers_without_the_template_are_said(smollm2, tmp_path):
    outcome, _ = run(smollm2, [{"prompt": "Q", "completion": "A"}], tmp_path)
    assert "1 questions and answers are plain text, without the model's chat template" in outcome.err
    outcome, _ = run(smollm2, [{"prompt": "Q", "completion": "A"}], tmp_path, "--chat-template", "own")
    assert "plain text" not in outcome.err


@pytest.mark.parametrize("family", ["qwen2_5", "llama3_2", "gemma"])
def test_a_conversation_that_begins_with_an_answer(family, tmp_path, library):
    """What no prompt leads to is no target, and counted; alone it is refused by its real name."""
    pair = pair_of(family, tmp_path, library)
    record = {"messages": [SYSTEM, assistant("Ask me."), *TURNS] if family != "gemma" else [assistant("Ask me."), *TURNS]}
    if family == "gemma":  # whose template wants a question first
        with pytest.raises(RecordError, match="refuses it"):
            pair.documents(record)
        return
    record = {"messages": [assistant("Ask me."), *TURNS]}
    [document], [encoded] = pair.documents(record)
    assert "unasked" in document.notes and encoded.ids.tolist() == pair.ids(record)
    texts = [text for _, text in target_texts(pair, document, encoded)]
    assert len(texts) == 2 and not any("Ask me." in text for text in texts)
    with pytest.raises(RecordError, match="no answer follows a question"):
        pair.documents({"messages": record["messages"][:1] + [user("Really?")]})


def test_a_broken_template_of_the_model_does_not_stop_a_preset(tmp_path, library):
    folder = family_folder("qwen2_5", tmp_path, library)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m. }}")
    outcome, data = run(folder, [{"messages": TURNS}], tmp_path, "--chat-template", "chatml")
    assert outcome.code == 0 and len(data.tokens) == 1, outcome.err


def test_documents_that_are_no_objects_are_refused(tmp_path, library):
    pair = pair_of("phi4", tmp_path, library)
    source = "{% for d in documents or [] %}{{ d.title }}{% endfor %}" + (OURS / "phi4.jinja").read_text()
    pair = with_template(pair, source)
    with pytest.raises(RecordError, match='"documents" must be a list of objects'):
        pair.documents({"messages": TURNS, "documents": ["a text"]})


def test_a_prompt_that_the_template_refuses_is_said_in_one_line(tmp_path, library, capsys):
    folder = family_folder("gemma", tmp_path, library)
    code = encode_prompt.main(["--tokenizer", str(folder), "--chat-template", "own", "--default-system", "S", "hi"])
    assert code == 65 and "System role not supported" in capsys.readouterr().err


def test_bytes_take_no_tokens_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<far>"}))
    (tmp_path / "t.jinja").write_text("{{ bos_token }}")
    monkeypatch.chdir(tmp_path)
    assert template_source.of_file("t.jinja", "bytes").tokens == {}


def test_a_python_without_transformers_is_told(tmp_path, library, monkeypatch):
    """Only chats need it: text is prepared all the same."""
    pair = pair_of("qwen3", tmp_path, library)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    template = own_template.OwnTemplate(template_source.find(tmp_path), pair.tokenizer)
    with pytest.raises(PrepareError, match="this Python lacks jinja2: install"):
        template.load()
