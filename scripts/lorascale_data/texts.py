"""Plain text in pieces, as --text-split says."""

import codecs
import dataclasses
import itertools
import re

from . import stream as streams
from .errors import USAGE, PrepareError

_REMEDY = " with --text-split paragraph, lines:N or chars:N"


@dataclasses.dataclass(frozen=True)
class TextSplit:
    """How plain text falls into documents; `size` counts lines or characters."""

    kind: str
    size: int = 0


def parse_text_split(text):
    match = re.fullmatch(r"(document|formfeed|paragraph)|(lines|chars):([1-9]\d{0,8})", text)
    if not match:
        raise PrepareError(
            USAGE,
            f"--text-split {text}: unknown rule, give document, formfeed, paragraph, lines:N or "
            f"chars:N",
        )
    return TextSplit(match[1]) if match[1] else TextSplit(match[2], int(match[3]))


def pieces(stream, split):
    """Yields (line number, bytes) of a stream.Stream."""
    if split.kind == "chars":
        return _of_characters(stream, split.size)
    if split.kind in ("document", "formfeed"):
        return _between(stream, b"\f" if split.kind == "formfeed" else None)
    return _groups_of_lines(stream, split)


def _too_long(stream, line):
    return stream.too_long(line, _REMEDY)


def _between(stream, separator):
    number, parts, length = 1, [], 0
    for block in stream.blocks():
        cut = block.split(separator) if separator else [block]
        for index, piece in enumerate(cut):
            if index:
                text = b"".join(parts)
                yield number, text
                number, parts, length = number + text.count(b"\n"), [], 0
            parts.append(piece)
            length += len(piece)
            if length > streams.MAX_RECORD_BYTES:
                raise _too_long(stream, number)
    yield number, b"".join(parts)


def _groups_of_lines(stream, split):
    first, group, length = 1, [], 0
    for number, line in stream.lines(lambda line: _too_long(stream, line)):
        if split.kind == "paragraph" and line.isspace():
            full = True
        else:
            if not group:
                first = number
            group.append(line)
            length += len(line)
            full = len(group) == split.size
        if length > streams.MAX_RECORD_BYTES:
            raise _too_long(stream, first)
        if full and group:
            yield first, b"".join(group)
            group, length = [], 0
    if group:
        yield first, b"".join(group)


def _of_characters(stream, size):
    number, text = 1, ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for block in itertools.chain(stream.blocks(), [b""]):
        try:
            text += decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line = number + text.count("\n") + block.count(b"\n", 0, error.start)
            raise stream.fail(line, f"not UTF-8 ({error.reason}), convert it") from error
        start = 0
        while len(text) - start >= size or (not block and start < len(text)):
            piece = text[start : start + size]
            yield number, piece.encode()
            number += piece.count("\n")
            start += size
        text = text[start:]
