"""Data of chats by the model's own template, in one command: what is written, refused and said."""

import contextlib
import io
import json

import encode_prompt
import pytest
import transformers
from chat_families import LONG, SYSTEM, TURNS, assistant, pair_of, user
from conftest import read_token_file, run_script


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


def test_questions_and_answers_without_the_template_are_said(smollm2, tmp_path):
    outcome, _ = run(smollm2, [{"prompt": "Q", "completion": "A"}], tmp_path)
    assert "1 questions and answers are plain text, without the model's chat template" in outcome.err
    outcome, _ = run(smollm2, [{"prompt": "Q", "completion": "A"}], tmp_path, "--chat-template", "own")
    assert "plain text" not in outcome.err


def test_a_broken_template_of_the_model_does_not_stop_a_preset(tmp_path, library):
    folder = family_folder("qwen2_5", tmp_path, library)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m. }}")
    outcome, data = run(folder, [{"messages": TURNS}], tmp_path, "--chat-template", "chatml")
    assert outcome.code == 0 and len(data.tokens) == 1, outcome.err


def test_a_prompt_that_the_template_refuses_is_said_in_one_line(tmp_path, library, capsys):
    folder = family_folder("gemma", tmp_path, library)
    code = encode_prompt.main(["--tokenizer", str(folder), "--chat-template", "own", "--default-system", "S", "hi"])
    assert code == 65 and "System role not supported" in capsys.readouterr().err
