"""Prompts in token files and from encode_prompt.py: what the model saw before answers in training."""

import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import tokenizers
from lorascale_data import chat

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "encode_prompt.py"
QUESTION = "What is the capital of France?"


def stored_prompts(path):
    with h5py.File(path) as file:
        if "prompts" not in file:
            return {}
        texts, ids = file["prompts/texts/bytes"][:].tobytes(), file["prompts/ids"][:].tolist()
        text_ends, ends = file["prompts/texts/offsets"][:], file["prompts/offsets"][:]
        return {
            texts[text_ends[i] : text_ends[i + 1]].decode(): ids[ends[i] : ends[i + 1]]
            for i in range(len(ends) - 1)
        }


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("preset", chat.PRESETS)
def test_question_ends_where_its_answer_begins(preset, kind, prepare, request, tmp_path):
    folder = request.getfixturevalue(kind)
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Paris is."}]
    ours = prepare(
        [{"messages": messages}], "--chat-template", preset, "--prompt", QUESTION, tokenizer=folder
    )
    begin = ours.masks[0].index(1)
    assert stored_prompts(tmp_path / "out.h5") == {QUESTION: ours.tokens[0][:begin]}


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("ends", [[], ["--no-eos"], ["--no-bos"]])
def test_beginning_of_a_text(kind, ends, prepare, request, tmp_path):
    """Equal to the tokenizer's own ids of it: begin of text where it has one, no end."""
    folder = request.getfixturevalue(kind)
    texts = ["The quick", "naïve café 🙂", " lazy"]
    arguments = [argument for text in texts for argument in ("--prompt", text)]
    prepare("Some text.\n", *ends, *arguments, tokenizer=folder)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = "--no-bos" not in ends
    assert stored_prompts(tmp_path / "out.h5") == {
        text: tokenizer.encode(text, add_special_tokens=special).ids for text in texts
    }


def test_both_files_hold_them_and_none_without(prepare, tmp_path):
    prepare("a\fb\fc\fd\f" * 9, "--text-split", "formfeed", "--no-dedup", "--prompt", "x", "--prompt", "x",
            "--validation", tmp_path / "v.h5", "--validation-fraction", "0.5")  # fmt: skip
    assert stored_prompts(tmp_path / "out.h5") == stored_prompts(tmp_path / "v.h5") == {"x": [120]}
    prepare("a")
    assert stored_prompts(tmp_path / "out.h5") == {}


def encode(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60
    )


def test_script_prints_the_same_ids(prepare, byte_level, tmp_path):
    prepare("a", "--chat-template", "llama3", "--prompt", QUESTION, tokenizer=byte_level)
    outcome = encode("--tokenizer", byte_level, "--chat-template", "llama3", QUESTION)
    assert outcome.returncode == 0, outcome.stderr
    [ids] = stored_prompts(tmp_path / "out.h5").values()
    assert outcome.stdout == " ".join(map(str, ids)) + "\n"


@pytest.mark.parametrize("arguments", [["--tokenizer", "bytes", ""], ["--tokenizer", "/none", "a"]])
def test_script_says_what_is_wrong(arguments):
    outcome = encode(*arguments)
    assert outcome.returncode in (64, 65)
    assert outcome.stderr.startswith("encode_prompt: ") and outcome.stderr.count("\n") == 1
