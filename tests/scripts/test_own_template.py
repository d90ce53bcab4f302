"""Conversations by the models' own templates: ids equal to those of transformers, targets where the
model would write, nothing lost."""

import dataclasses
import json
import sys

import pytest
from chat_families import (
    CONVERSATIONS, FAMILIES, LONG, OURS, SYSTEM, THOUGHTS, TURNS, USE, WEATHER, assistant, call, pair_of,
    target_texts, user, with_template,
)  # fmt: skip
from lorascale_data import chat, own_template, records, template_source, tokenizing
from lorascale_data.errors import PrepareError, RecordError

# Why a record may be refused that transformers would render, without a word, less than it says.
REASONS = (
    "leaves its content out", "writes no calls of tools", "writes no tools", "writes no thoughts",
    "the model's template leaves", "writes the conversation before this answer anew",
)  # fmt: skip


@pytest.fixture(scope="session", params=FAMILIES)
def pair(request, tmp_path_factory, library):
    return pair_of(request.param, tmp_path_factory.mktemp("family"), library)


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


def test_documents_that_are_no_objects_are_refused(tmp_path, library):
    pair = pair_of("phi4", tmp_path, library)
    source = "{% for d in documents or [] %}{{ d.title }}{% endfor %}" + (OURS / "phi4.jinja").read_text()
    pair = with_template(pair, source)
    with pytest.raises(RecordError, match='"documents" must be a list of objects'):
        pair.documents({"messages": TURNS, "documents": ["a text"]})


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
