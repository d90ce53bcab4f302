"""Input files as a stream of raw records. Memory is bounded by the longest record, 64 MiB at most.

A raw record is (line number, bytes): a line of JSON Lines, an element of a JSON array, or a piece
of plain text as --text-split says. Nothing is parsed here beyond finding where a record ends,
because this runs in one process; parsing is the workers' part.
"""

import codecs
import dataclasses
import gzip
import itertools
import json
import re
import zlib
from pathlib import Path

from .errors import BAD_INPUT, USAGE, PrepareError

MAX_RECORD_BYTES = 64 << 20
READ_BYTES = 1 << 20
TEXT_SUFFIXES = frozenset([".txt", ".text", ".md", ".rst"])
LINE_SUFFIXES = frozenset([".jsonl", ".ndjson"])
RECORD_FORMATS = ("prompt-completion", "alpaca", "messages", "sharegpt")
FORMATS = ("auto", "text", "jsonl", "json", *RECORD_FORMATS)


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


class Source:
    """One input file, open; `position` is how many of its `size` bytes on disk were consumed."""

    def __init__(self, path, requested_format, split):
        self.path = Path(path)
        self._split = split
        try:
            self._raw = open(self.path, "rb")  # noqa: SIM115 (closed by close())
            self.size = self.path.stat().st_size
            zipped = self._raw.peek(2)[:2] == b"\x1f\x8b"
            self._file = gzip.open(self._raw) if zipped else self._raw
            # One system call a read: read() loops, and loses Ctrl-C where a pipe falls silent.
            self._read_some = self._file.read if zipped else self._file.read1
            self._head = self._read_head()
        except OSError as error:
            raise self._unreadable(error) from error
        self._head = self._head.removeprefix(codecs.BOM_UTF8)
        name = self.path.with_suffix("") if self.path.suffix == ".gz" else self.path
        self.container = self._find_container(requested_format, name.suffix.lower())

    @property
    def position(self):
        return self._raw.tell() if self._raw.seekable() else 0  # a pipe has no size either

    def close(self):
        self._raw.close()

    def records(self):
        """Yields (line number, bytes). Empty lines are passed over."""
        if self.container == "jsonl":
            return ((line, text) for line, text in self._lines() if not text.isspace())
        if self.container == "json":
            return self._array_elements()
        return self._texts()

    def place(self, line):
        return f"{self.path}:{line}"

    def fail(self, line, message):
        return PrepareError(BAD_INPUT, f"{self.place(line)}: {message}")

    def _unreadable(self, error):
        reason = getattr(error, "strerror", None) or str(error)
        return PrepareError(BAD_INPUT, f"{self.path}: cannot be read ({reason}), check the path")

    def _read_head(self):
        head = b""
        while len(head) < READ_BYTES and (more := self._read(READ_BYTES - len(head))):
            head += more
        return head

    def _read(self, count):
        """Up to `count` bytes more of the unzipped contents; b"" at the end."""
        try:
            return self._read_some(count)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise PrepareError(
                BAD_INPUT, f"{self.path}: damaged gzip file ({error}), fetch it again"
            ) from error
        except OSError as error:
            raise self._unreadable(error) from error

    def _find_container(self, requested, suffix):
        head = self._head.lstrip()
        if not head and len(self._head) < READ_BYTES:
            raise PrepareError(BAD_INPUT, f"{self.path}: is empty, take it off the list of inputs")
        if b"\0" in self._head:
            raise PrepareError(
                BAD_INPUT,
                f"{self.path}: holds zero bytes, so it is no UTF-8 text; convert it (iconv -t "
                f"UTF-8)",
            )
        if requested in ("text", "jsonl"):
            return requested
        if requested == "auto" and suffix in TEXT_SUFFIXES:
            return "text"
        if head.startswith(b"["):
            looks_json = suffix == ".json" or requested != "auto" or _starts_array(head)
            if looks_json:
                return "json"
            return "jsonl" if suffix in LINE_SUFFIXES else "text"
        if requested == "json":
            return "json"
        if requested in RECORD_FORMATS or suffix in LINE_SUFFIXES:
            return "jsonl"
        if head.startswith(b"{"):
            # An object that ends on its first line is JSON Lines, one over several lines is not.
            return "jsonl" if _is_object(head.split(b"\n", 1)[0]) else "json"
        return "json" if suffix == ".json" else "text"

    def _blocks(self):
        block, self._head = self._head, b""
        while block:
            yield block
            block = self._read(READ_BYTES)

    def _too_long(self, line):
        return self.fail(
            line,
            f"one record has over {MAX_RECORD_BYTES >> 20} MiB; cut it up"
            + (" with --text-split paragraph, lines:N or chars:N" * (self.container == "text")),
        )

    def _lines(self):
        """Yields (number from 1, line with its line end)."""
        number, rest = 1, b""
        for block in self._blocks():
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield number, line + b"\n"
                number += 1
            if len(rest) > MAX_RECORD_BYTES:
                raise self._too_long(number)
        if rest:
            yield number, rest

    def _array_elements(self):
        """Yields the elements of a JSON array, or the objects of a file of objects over several
        lines."""
        decode = json.JSONDecoder().raw_decode
        text, line, in_array, ended = "", 1, None, False
        decoder = codecs.getincrementaldecoder("utf-8")()
        blocks = self._blocks()
        while True:
            stripped = text.lstrip(" \t\r\n," if in_array else " \t\r\n")
            line += text.count("\n", 0, len(text) - len(stripped))
            text = stripped
            if in_array is None and text:
                in_array = text[0] == "["
                if in_array:
                    text = text[1:]
                    continue
            if in_array and text.startswith("]"):
                if text[1:].strip() or any(block.strip() for block in blocks):
                    raise self.fail(line, "text after the end of the JSON array, remove it")
                return
            if text:
                try:
                    _, end = decode(text)
                    if end < len(text) or ended:  # else a number may go on in the next block
                        yield line, text[:end].encode()
                        line += text.count("\n", 0, end)
                        text = text[end:]
                        continue
                except json.JSONDecodeError as error:
                    if ended:
                        where = line + text.count("\n", 0, error.pos)
                        raise self.fail(where, f"not valid JSON ({error.msg}), mend it") from error
                except RecursionError:
                    raise self.fail(line, "JSON nested too deeply, mend it") from None
            if ended:
                if in_array:
                    raise self.fail(line, "the JSON array does not end, the file seems cut short")
                return
            # Read as much again as is waiting, so that a long element is parsed few times.
            wanted = len(text) + 1
            while wanted > 0 and not ended:
                block = next(blocks, b"")
                ended = not block
                try:
                    more = decoder.decode(block, final=ended)
                except UnicodeDecodeError as error:
                    raise self.fail(line, f"not UTF-8 ({error.reason}), convert it") from error
                text, wanted = text + more, wanted - len(more)
            if len(text) > 2 * MAX_RECORD_BYTES:
                raise self._too_long(line)

    def _texts(self):
        if self._split.kind == "chars":
            return self._pieces_of_characters()
        if self._split.kind in ("document", "formfeed"):
            return self._texts_between(b"\f" if self._split.kind == "formfeed" else None)
        return self._groups_of_lines()

    def _texts_between(self, separator):
        number, parts, length = 1, [], 0
        for block in self._blocks():
            pieces = block.split(separator) if separator else [block]
            for index, piece in enumerate(pieces):
                if index:
                    text = b"".join(parts)
                    yield number, text
                    number, parts, length = number + text.count(b"\n"), [], 0
                parts.append(piece)
                length += len(piece)
                if length > MAX_RECORD_BYTES:
                    raise self._too_long(number)
        yield number, b"".join(parts)

    def _groups_of_lines(self):
        first, group, length = 1, [], 0
        for number, line in self._lines():
            if self._split.kind == "paragraph" and line.isspace():
                full = True
            else:
                if not group:
                    first = number
                group.append(line)
                length += len(line)
                full = len(group) == self._split.size
            if length > MAX_RECORD_BYTES:
                raise self._too_long(first)
            if full and group:
                yield first, b"".join(group)
                group, length = [], 0
        if group:
            yield first, b"".join(group)

    def _pieces_of_characters(self):
        size, number, text = self._split.size, 1, ""
        decoder = codecs.getincrementaldecoder("utf-8")()
        for block in itertools.chain(self._blocks(), [b""]):
            try:
                text += decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line = number + text.count("\n") + block.count(b"\n", 0, error.start)
                raise self.fail(line, f"not UTF-8 ({error.reason}), convert it") from error
            start = 0
            while len(text) - start >= size or (not block and start < len(text)):
                piece = text[start : start + size]
                yield number, piece.encode()
                number += piece.count("\n")
                start += size
            text = text[start:]


def _is_object(line):
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _starts_array(head):
    return re.match(rb"\[\s*(\{|\])", head) is not None
