"""CLIP's vocabulary and merges, from any of the forms in which they are passed on."""

import dataclasses
import gzip
import hashlib
import json
import zlib
from pathlib import Path

from lorascale_data.errors import BAD_INPUT, PrepareError
from lorascale_data.vocabulary import byte_of_character

BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"  # of OpenAI's CLIP, in the packages open_clip_torch and clip-anytorch
BPE_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
BPE_MERGES = 48_894  # of them are in use; the file holds more
BEGIN, END = "<|startoftext|>", "<|endoftext|>"  # unless the tokenizer's own settings name others
WORD_END = "</w>"


@dataclasses.dataclass
class Vocabulary:
    source: Path
    tokens: dict[str, int]
    merges: list[tuple[str, str]]
    added: dict[str, int]  # tokens beside those that merges make

    def __post_init__(self):
        everything = {**self.tokens, **self.added}
        if sorted(everything.values()) != list(range(len(everything))):
            raise _wrong(self.source, "the ids of its tokens do not go from 0 on without gaps")
        for left, right in self.merges:
            if not {left, right, left + right} <= self.tokens.keys():
                raise _wrong(self.source, f"the merge of {left} and {right} is no token")
        self.by_id = sorted(everything, key=everything.get)

    @property
    def sha256(self):
        """Of the lines "ID TOKEN" in order of the ids, then of the lines "LEFT RIGHT" of the merges."""
        lines = [f"{index} {token}\n" for index, token in enumerate(self.by_id)]
        lines += [f"{left} {right}\n" for left, right in self.merges]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def read(path):
    """The Vocabulary of a tokenizer's folder, of a tokenizer.json, or of OpenAI's file."""
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise PrepareError(BAD_INPUT, f"{path}: there is no such file or folder, check the path")
    if path.suffix == ".json":
        return _of_tokenizer_json(path)
    if path.suffix == ".gz":
        return _of_bpe_file(path)
    raise PrepareError(BAD_INPUT, f"{path}: is no tokenizer; give its folder, its tokenizer.json or {BPE_FILE}")


def json_object(path):
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PrepareError(BAD_INPUT, f"{path}: cannot be read ({str(error)[:80]}), fetch it again") from error
    if not isinstance(contents, dict):
        raise PrepareError(BAD_INPUT, f"{path}: is no JSON object, fetch it again")
    return contents


def _wrong(source, what):
    return PrepareError(BAD_INPUT, f"{source}: is no tokenizer of CLIP: {what}; take that of the model")


def _of_folder(folder):
    pair, single = (folder / "vocab.json", folder / "merges.txt"), folder / "tokenizer.json"
    found = []
    if all(file.is_file() for file in pair):
        found.append(_of_pair(folder, *pair))
    if single.is_file():
        found.append(_of_tokenizer_json(single))
    if not found:
        raise PrepareError(
            BAD_INPUT,
            f"{folder}: holds neither vocab.json with merges.txt nor tokenizer.json; give a tokenizer's folder",
        )
    if len({vocabulary.sha256 for vocabulary in found}) > 1:
        raise PrepareError(BAD_INPUT, f"{folder}: vocab.json and tokenizer.json differ, remove the wrong one")
    return found[0]


def _of_pair(folder, vocab, merges):
    lines = _text(merges).split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    pairs = [line.rstrip("\r") for line in lines[first:]]
    added = folder / "added_tokens.json"
    names = json_object(added) if added.is_file() else {}
    return _checked(vocab, json_object(vocab), [pair for pair in pairs if pair], names)


def _of_tokenizer_json(path):
    contents = json_object(path)
    model = contents.get("model")
    if not isinstance(model, dict) or model.get("end_of_word_suffix") != WORD_END:
        raise _wrong(path, f"it does not end words with {WORD_END}")
    added = contents.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise _wrong(path, "added_tokens is no list of tokens")
    names = {token.get("content"): token.get("id") for token in added}
    return _checked(path, model.get("vocab"), model.get("merges"), names)


def _of_bpe_file(path):
    try:
        raw = path.read_bytes()
        text = gzip.decompress(raw).decode()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise PrepareError(BAD_INPUT, f"{path}: cannot be read ({str(error)[:80]}), fetch it again") from error
    if hashlib.sha256(raw).hexdigest() != BPE_SHA256:
        raise PrepareError(BAD_INPUT, f"{path}: is another file than OpenAI's {BPE_FILE}, fetch it again")
    merges = [tuple(line.split()) for line in text.split("\n")[1 : 1 + BPE_MERGES]]
    symbols = list(byte_of_character())  # those that stand for themselves first
    names = [*symbols, *(symbol + WORD_END for symbol in symbols), *map("".join, merges), BEGIN, END]
    return Vocabulary(path, {name: index for index, name in enumerate(names)}, merges, {})


def _checked(path, tokens, merges, added):
    for names in (tokens, added):
        if not isinstance(names, dict) or not all(
            isinstance(name, str) and isinstance(index, int) for name, index in names.items()
        ):
            raise _wrong(path, "its vocabulary does not give each token a number")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges or []]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise _wrong(path, "a merge is not of two tokens")
    return Vocabulary(
        path,
        tokens,
        [tuple(pair) for pair in pairs],
        {name: index for name, index in added.items() if name not in tokens},
    )


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PrepareError(BAD_INPUT, f"{path}: cannot be read ({str(error)[:80]}), fetch it again") from error
