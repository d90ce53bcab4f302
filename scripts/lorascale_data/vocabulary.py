"""The raw bytes that each token id stands for, so that the trainer can print text without a
tokenizer."""

import json
import re

import numpy

SPACE_MARK = "\u2581"  # SentencePiece's visible space


def byte_of_character():
    """GPT-2's map, inverted: bytes 33-126, 161-172 and 174-255 stand for themselves, the other 68
    in ascending order for U+0100, U+0101, ..."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in set(plain)]
    table.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return table


def _types(part):
    """The names of all the components below `part` of a tokenizer.json."""
    if isinstance(part, dict):
        if isinstance(part.get("type"), str):
            yield part["type"]
        for value in part.values():
            yield from _types(value)
    elif isinstance(part, list):
        for value in part:
            yield from _types(value)


def bytes_of_tokens(tokenizer):
    """[vocab_size] bytes of each id of a `tokenizers.Tokenizer`; ids without a token are empty."""
    description = json.loads(tokenizer.to_str())
    model = description.get("model") or {}
    around = [description.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]
    types = set(_types(around))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    if "ByteLevel" in types:
        decode = _byte_level
    elif model.get("byte_fallback") or SPACE_MARK in json.dumps(around, ensure_ascii=False):
        decode = _sentencepiece
    else:
        decode = _word_end_to_space(model.get("end_of_word_suffix"))
    for text, index in vocabulary.items():
        table[index] = decode(text)
    for index, token in tokenizer.get_added_tokens_decoder().items():
        table[index] = token.content.encode()
    return table


_BYTES = byte_of_character()


def _byte_level(text):
    try:
        return bytes(_BYTES[character] for character in text)
    except KeyError:  # a token that did not come from bytes
        return text.encode()


def _sentencepiece(text):
    match = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", text)
    return bytes([int(match[1], 16)]) if match else text.replace(SPACE_MARK, " ").encode()


def _word_end_to_space(suffix):
    if not suffix:
        return str.encode
    return lambda text: (text.removesuffix(suffix) + " " * text.endswith(suffix)).encode()


def as_arrays(table):
    """(bytes u8, offsets i64 [vocab_size + 1]) of a table."""
    offsets = numpy.zeros(len(table) + 1, numpy.int64)
    numpy.cumsum([len(entry) for entry in table], out=offsets[1:])
    return numpy.frombuffer(b"".join(table), numpy.uint8), offsets
