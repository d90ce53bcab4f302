"""Every preset against the Jinja template of its family as transformers renders, tokenises and
masks it, and against the strings written out by hand."""

import json

import pytest
import tokenizers
import transformers
from lorascale_data import chat, records
from lorascale_data.errors import PrepareError, RecordError

SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris is."},
    {"role": "user", "content": "Wie heißt 12345?"},
    {"role": "assistant", "content": "naïve café 🙂\n\nok"},
]

GENERATED = "{% generation %}{{ TEXT }}{% endgeneration %}"


def chatml_jinja(default_system=None, last_prefix="", last_thought=""):
    default = ""
    if default_system:
        default = (
            "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n"
            + default_system
            + "<|im_end|>\\n' }}{% endif %}"
        )
    return (
        default + "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        "{% if m['role'] == 'assistant' %}{% if loop.last %}{{ '" + last_prefix + "' }}{% endif %}"
        "{% generation %}{% if loop.last %}{{ '" + last_thought + "' }}{% endif %}"
        "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    )


def inst_jinja(start, turn, question, answer, system):
    """`system`: a Jinja expression of s and u for the first question; the others are of u and a."""
    return (
        "{{ '" + start + "' }}{% set ns = namespace(s=none) %}{% for m in messages %}"
        "{% if m['role'] == 'system' %}{% set ns.s = m['content'] %}"
        "{% elif m['role'] == 'user' %}{% set u = m['content'] %}{% set s = ns.s %}{{ '"
        + turn
        + "' }}"
        "{% if s is not none %}" + system + "{% set ns.s = none %}{% endif %}{{ " + question + " }}"
        "{% else %}{% generation %}{{ " + answer.replace("a", "m['content']", 1) + " }}"
        "{% endgeneration %}{% endif %}{% endfor %}"
    )


LLAMA3_JINJA = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
    "{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
)
PREPENDED = "{% set u = s + '\\n\\n' + u %}"
QWEN25_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
JINJA = {
    "chatml": chatml_jinja(),
    "qwen2": chatml_jinja("You are a helpful assistant."),
    "qwen2.5": chatml_jinja(QWEN25_SYSTEM),
    "qwen3": chatml_jinja(last_thought="<think>\\n\\n</think>\\n\\n"),
    "qwen3-no-think": chatml_jinja(last_prefix="<think>\\n\\n</think>\\n\\n"),
    "llama3": LLAMA3_JINJA,
    "llama2": inst_jinja(
        "", "<s>", "'[INST] ' + u.strip() + ' [/INST]'", "' ' + a.strip() + ' </s>'",
        "{% set u = '<<SYS>>\\n' + s + '\\n<</SYS>>\\n\\n' + u %}",
    ),
    "mistral-v1": inst_jinja(
        "<s>", "", "' [INST] ' + u + ' [/INST]'", "' ' + a + '</s>'", PREPENDED
    ),
    "mistral-v3": inst_jinja("<s>", "", "'[INST] ' + u + '[/INST]'", "' ' + a + '</s>'", PREPENDED),
    "mistral-v3-tekken": inst_jinja("<s>", "", "'[INST]' + u + '[/INST]'", "a + '</s>'", PREPENDED),
    "mistral-v7": inst_jinja(
        "<s>", "", "'[INST] ' + u + '[/INST]'", "' ' + a + '</s>'",
        "{{ '[SYSTEM_PROMPT] ' + s + '[/SYSTEM_PROMPT]' }}",
    ),
}  # fmt: skip


def rendered(preset, messages):
    rules = records.Rules(chat.Renderer(chat.PRESETS[preset]))
    [document], _ = records.parse_json(json.dumps({"messages": messages}).encode(), rules)
    return document.segments


def test_every_preset_has_a_reference():
    assert set(JINJA) == set(chat.PRESETS)


@pytest.mark.parametrize(
    "messages", [CHAT, [SYSTEM, *CHAT], CHAT[:2]], ids=["chat", "system", "one"]
)
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("preset", chat.PRESETS)
def test_ids_and_mask_equal_those_of_transformers(preset, kind, messages, prepare, request):
    folder = request.getfixturevalue(kind)
    ours = prepare([{"messages": messages}], "--chat-template", preset, tokenizer=folder)
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ).apply_chat_template(
        messages,
        chat_template=JINJA[preset],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert ours.tokens == [reference["input_ids"]]
    assert ours.masks == [reference["assistant_masks"]]
    assert 0 < sum(ours.masks[0]) < len(ours.masks[0])


# Written out by hand from the formats' descriptions; | marks where targets begin and end.
BY_HAND = {
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
    "<|im_start|>assistant\n|A<|im_end|>|\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n|A<|eot_id|>|",
    "llama2": "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST]| A </s>|",
    "mistral-v1": "<s> [INST] S\n\nQ [/INST]| A</s>|",
    "mistral-v3": "<s>[INST] S\n\nQ[/INST]| A</s>|",
    "mistral-v3-tekken": "<s>[INST]S\n\nQ[/INST]|A</s>|",
    "mistral-v7": "<s>[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] Q[/INST]| A</s>|",
}
BY_HAND["qwen2"] = BY_HAND["qwen2.5"] = BY_HAND["chatml"]
BY_HAND["qwen3"] = BY_HAND["chatml"].replace("|A<", "|<think>\n\n</think>\n\nA<")


@pytest.mark.parametrize("preset", BY_HAND)
def test_strings_by_hand(preset):
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A"},
    ]
    # A bar next to < or > belongs to a special such as <|im_end|>, except where it opens a target.
    marked = BY_HAND[preset].replace("|<think>", "|\3think>")
    parts = marked.replace("<|", "\1").replace("|>", "\2").replace("\3", "<").split("|")
    parts = [part.replace("\1", "<|").replace("\2", "|>") for part in parts]
    expected = [(text, i % 2 == 1) for i, text in enumerate(parts) if text]
    found = [(segment.text, segment.target) for segment in rendered(preset, messages)]
    assert found == expected


def test_llama2_begins_each_turn_anew():
    text = "".join(segment.text for segment in rendered("llama2", CHAT))
    assert text == (
        "<s>[INST] What is the capital of France? [/INST] Paris is. </s>"
        "<s>[INST] Wie heißt 12345? [/INST] naïve café 🙂\n\nok </s>"
    )


def test_mistral_begins_once():
    text = "".join(segment.text for segment in rendered("mistral-v3", CHAT))
    assert text.count("<s>") == 1
    assert text.endswith(" Paris is.</s>[INST] Wie heißt 12345?[/INST] naïve café 🙂\n\nok</s>")


@pytest.mark.parametrize("preset", ["llama2", "llama3"])
def test_contents_are_trimmed_where_the_family_does(preset):
    padded = [{**message, "content": f" {message['content']}\n"} for message in CHAT]
    assert rendered(preset, padded) == rendered(preset, CHAT)


def test_default_system_yields_to_a_given_one():
    assert QWEN25_SYSTEM in rendered("qwen2.5", CHAT)[0].text
    assert QWEN25_SYSTEM not in rendered("qwen2.5", [SYSTEM, *CHAT])[0].text


@pytest.mark.parametrize("preset", ["llama2", "mistral-v1", "mistral-v7"])
def test_turns_must_alternate_where_the_template_needs_it(preset):
    with pytest.raises(RecordError, match="message 2 is of role 'user'.*take turns"):
        rendered(preset, [CHAT[0], *CHAT])


def test_contents_that_look_like_places_of_the_template_stay():
    messages = [
        {"role": "system", "content": "{u} {a}"},
        {"role": "user", "content": "{s} {a} {u}"},
        {"role": "assistant", "content": "{a} {u}"},
    ]
    text = "".join(segment.text for segment in rendered("llama2", messages))
    assert text == "<s>[INST] <<SYS>>\n{u} {a}\n<</SYS>>\n\n{s} {a} {u} [/INST] {a} {u} </s>"


def test_custom_template(prepare):
    data = prepare(
        [{"messages": [SYSTEM, *CHAT[:2]]}],
        "--chat-template", "custom", "--chat-start", "START\\n", "--system-prefix", "# ",
        "--system-suffix", "\\n", "--user-prefix", "Q: ", "--user-suffix", "\\n",
        "--assistant-prefix", "A:\\t", "--assistant-suffix", "\\n\\n",
    )  # fmt: skip
    assert data.texts() == [
        "START\n# Be brief.\nQ: What is the capital of France?\nA:\tParis is.\n\n"
    ]
    assert data.target_text(0) == "Paris is.\n\n"


def test_custom_template_must_be_able_to_stop():
    with pytest.raises(PrepareError, match="--assistant-suffix"):
        chat.custom_template({"user": "Q", "assistant": "A"}, {"assistant": ""}, "", None)
    with pytest.raises(PrepareError, match="--user-prefix and --assistant-prefix"):
        chat.custom_template({"user": None, "assistant": "A"}, {"assistant": "\n"}, "", None)


def test_backslashes_of_the_shell():
    assert chat.unescaped(r"a\nb\tc\\nd") == "a\nb\tc\\nd"


def test_default_system_option(prepare):
    options = ("--chat-template", "mistral-v7", "--default-system", "Be kind.")
    given = prepare([{"messages": CHAT[:2]}], *options)
    assert given.text(0).startswith("<s>[SYSTEM_PROMPT] Be kind.[/SYSTEM_PROMPT][INST] What")


def test_foreign_template_is_warned_of(prepare, sentencepiece):
    data = prepare([{"messages": CHAT}], "--chat-template", "chatml", tokenizer=sentencepiece)
    assert (
        "warning: <|im_start|>, <|im_end|> of template chatml are not one token" in data.outcome.err
    )


def chat_of(**second_answer):
    return {"messages": [*CHAT[:3], {**CHAT[3], "content": "Two.", **second_answer}]}


@pytest.mark.parametrize(
    ("record", "options", "targets"),
    [
        (chat_of(), [], "Paris is.<|im_end|>Two.<|im_end|>"),
        (chat_of(weight=0), [], "Paris is.<|im_end|>"),
        (chat_of(loss=False), [], "Paris is.<|im_end|>"),
        (chat_of(train=False, loss=None), [], "Paris is.<|im_end|>"),
        (chat_of(train=True, weight=1), [], "Paris is.<|im_end|>Two.<|im_end|>"),
        (chat_of(), ["--learn", "last"], "Two.<|im_end|>"),
        (chat_of(weight=0), ["--learn", "last"], "Paris is.<|im_end|>"),
    ],
)
def test_switches_say_which_answers_are_learnt(record, options, targets, prepare):
    data = prepare([record], "--chat-template", "chatml", *options)
    assert data.target_text(0) == targets
    whole = prepare([record], "--chat-template", "chatml", "--learn", "everything")
    assert whole.masks is None and whole.tokens == data.tokens


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (chat_of(weight=2), '"weight" is 2'),
        (chat_of(loss="no"), "\"loss\" is 'no'"),
        ({"messages": [{**CHAT[0], "train": True}, *CHAT[1:]]}, "only answers are learnt"),
        ({**chat_of(), "tools": [{"name": "f"}]}, '"tools" cannot be honoured'),
        (chat_of(tool_calls=[{"name": "f"}]), '"tool_calls" cannot be honoured'),
        (chat_of(content=None, tool_calls=[{"name": "f"}]), '"tool_calls" cannot be honoured'),
        (chat_of(reasoning_content="hm"), '"reasoning_content" cannot be honoured'),
    ],
)
def test_what_a_preset_cannot_render_is_refused_by_name(record, message):
    rules = records.Rules(chat.Renderer(chat.PRESETS["chatml"]))
    with pytest.raises(RecordError, match=message):
        records.parse_json(json.dumps(record).encode(), rules)
