"""Small tokenizers of the two kinds in use, trained here, and a runner for the script."""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "demo")]

import prepare_text  # noqa: E402

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = [
    "<|endoftext|>", "<|begin_of_text|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
]  # fmt: skip
TRAINING_TEXT = [
    "The quick brown fox jumps over the lazy dog.\n\nWhat is the capital of France? Paris is.\n",
    "You are a helpful assistant. user assistant system\n answer: 12345 question: 67\n\n",
    "Wie heißt der Bürgermeister von Wesel? Esel! 日本語 テスト, naïve café, 🙂 ok.\n",
] * 30


def byte_level_tokenizer(more_text=(), specials=SPECIALS, size=700):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TRAINING_TEXT, *more_text], trainer)
    return tokenizer


def sentencepiece_tokenizer():
    """Llama 2's kind: visible spaces, one before the first word, bytes for unknown characters."""
    tokenizer = tokenizers.Tokenizer(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *byte_tokens],
        limit_alphabet=80,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    # Byte tokens are ordinary tokens in real files: only the first three are special.
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = description["added_tokens"][:3]
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(description))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A",
        pair="<s> $A <s> $B",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>"))],
    )
    return tokenizer


def save(tokenizer, folder, **config):
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory):
    folder = tmp_path_factory.mktemp("byte_level")
    return save(byte_level_tokenizer(), folder, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentencepiece")
    return save(sentencepiece_tokenizer(), folder, eos_token={"content": "</s>"}, bos_token="<s>")


@pytest.fixture(scope="session")
def library():
    """A tokenizer that has the marks of every family of chat models as special tokens."""
    from chat_families import SPECIALS  # which imports transformers

    return byte_level_tokenizer(specials=SPECIALS, size=800)


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct's folder; made on the first use of this machine."""
    made = subprocess.run(
        [SCRIPTS / "models/smollm2.sh"], capture_output=True, text=True, timeout=900
    )
    if made.returncode == 69:
        pytest.skip(made.stderr.splitlines()[-1])
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


@dataclasses.dataclass
class Outcome:
    code: int
    out: str
    err: str


def run_script(*arguments):
    """Runs prepare_text.py in this process; one worker unless the arguments say otherwise."""
    arguments = [str(argument) for argument in arguments]
    if "--workers" not in arguments:
        arguments += ["--workers", "1"]
    return outcome_of(prepare_text.main, arguments)


def outcome_of(main, arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return Outcome(code, out.getvalue(), err.getvalue())


@dataclasses.dataclass
class TokenFile:
    attributes: dict
    tokens: list[list[int]]  # by document
    masks: list[list[int]] | None
    vocabulary: list[bytes]

    def text(self, document):
        return b"".join(self.vocabulary[i] for i in self.tokens[document]).decode()

    def target_text(self, document):
        pairs = zip(self.tokens[document], self.masks[document], strict=True)
        return b"".join(self.vocabulary[i] for i, target in pairs if target).decode()

    def texts(self):
        return [self.text(document) for document in range(len(self.tokens))]


def read_token_file(path):
    with h5py.File(path) as file:
        offsets = file["offsets"][:].tolist()
        pieces = list(zip(offsets, offsets[1:], strict=False))

        def cut(name):
            values = file[name][:].tolist()
            return [values[begin:end] for begin, end in pieces]

        table, ends = file["vocabulary/bytes"][:].tobytes(), file["vocabulary/offsets"][:].tolist()
        return TokenFile(
            dict(file.attrs),
            cut("tokens"),
            cut("loss_mask") if "loss_mask" in file else None,
            [table[begin:end] for begin, end in zip(ends, ends[1:], strict=False)],
        )


@pytest.fixture
def prepare(tmp_path):
    """prepare(records or text, *options): the token file made from one JSON Lines or text file."""

    def run(contents, *options, tokenizer="bytes"):
        source = tmp_path / ("in.txt" if isinstance(contents, str) else "in.jsonl")
        if not isinstance(contents, str):
            contents = "".join(json.dumps(record) + "\n" for record in contents)
        source.write_text(contents, newline="")
        output = tmp_path / "out.h5"
        outcome = run_script(
            source, "--tokenizer", tokenizer, "--output", output, "--force", *options
        )
        assert outcome.code == 0, outcome.err
        result = read_token_file(output)
        result.outcome = outcome
        return result

    return run
