"""CSV and TSV, by their header, as JSON records of strings."""

import csv
import io
import itertools
import json

from . import stream as streams
from .keys import KNOWN, MAX_COLUMNS, repeated

DELIMITERS = (",", "\t", ";", "|")
SNIFFED_BYTES = 1 << 16
SNIFFED_ROWS = 20
_NO_QUOTES = "if quotes are text in this file, give --no-quotes"


class Broken(str):
    """Stands for a record that cannot be read: what is wrong with it, and the remedy."""


def rows(stream, delimiter=None, quotes=True):
    """Yields (line number, bytes or Broken), a JSON object for each row below the header. Without
    `quotes` a quote is a character like others, and a row is a line."""
    csv.field_size_limit(streams.MAX_RECORD_BYTES)
    first_row_is_a_setting = stream.head[:4].lower() == b"sep=" and stream.head[5:6] in b"\r\n"
    if first_row_is_a_setting:  # what Excel writes
        delimiter = stream.head[4:5].decode("ascii", "replace")
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    lines = _Lines(stream, delimiter or sniffed(stream.head))
    if first_row_is_a_setting:
        next(lines)
        lines.begin_row()
    header = _header(stream, next(_rows(stream, lines, quoting), [""]))
    for row in _rows(stream, lines, quoting):
        if len(row) != len(header):
            yield lines.first, Broken(
                f"the row has {len(row)} fields where the header has {len(header)}; texts with "
                f"{lines.delimiter!r} or line ends in them need quotes"
            )
        else:
            record = dict(zip(header, row, strict=True))
            yield lines.first, json.dumps(record, ensure_ascii=False).encode()


def sniffed(head):
    """The delimiter that makes the most of the first rows: known names in the header, then rows of
    as many fields as the header, then many columns."""
    text = head[:SNIFFED_BYTES].decode("utf-8", "replace")
    return max(DELIMITERS, key=lambda delimiter: _fitness(text, delimiter))


def _fitness(text, delimiter):
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter)
        found = [row for row in itertools.islice(reader, SNIFFED_ROWS) if row]
    except csv.Error:
        return (0, False, 0)
    header, *others = found or [[""]]
    whole = others[:-1]  # the last may be cut off
    return (
        sum(name.strip() in KNOWN for name in header) if len(header) > 1 else 0,
        len(header) > 1 and all(len(row) == len(header) for row in whole),
        len(header),
    )


class _Lines:
    """The file's lines for csv.reader, one row's at a time: bounded before they are parsed."""

    def __init__(self, stream, delimiter):
        self.delimiter, self.first, self._number = delimiter, 1, 0
        self._stream, self._bytes = stream, 0
        self._lines = stream.lines(self._too_long)

    def __iter__(self):
        return self

    def __next__(self):
        number, line = next(self._lines)
        continued, self._number = self._bytes > 0, number
        if not continued:
            self.first = number
        self._bytes += len(line)
        if self._bytes > streams.MAX_RECORD_BYTES:
            raise self._too_long(self.first)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._stream.fail(
                number,
                f"not UTF-8 (byte {line[error.start]:#04x}): save it as CSV UTF-8 or convert it "
                f"(iconv -f WINDOWS-1252 -t UTF-8)",
            ) from error
        if text.count(self.delimiter) >= MAX_COLUMNS and self._columns(text, continued) > MAX_COLUMNS:
            raise self._stream.fail(
                number, f"over {MAX_COLUMNS:,} columns in one row; --format text reads plain text"
            )
        return text

    def begin_row(self):
        self._bytes = 0

    def _columns(self, text, quoted):
        """Fields that begin in a line; `quoted`: the line begins within quotes."""
        count, place = 1, 0
        while place >= 0:
            end = text.find('"', place)
            if not quoted:
                count += text.count(self.delimiter, place, len(text) if end < 0 else end)
            quoted, place = not quoted, end + 1 if end >= 0 else -1
        return count

    def _too_long(self, line):
        return self._stream.fail(
            line,
            f"one row has over {streams.MAX_RECORD_BYTES >> 20} MiB: is a quote not closed? "
            f"Or cut it up; {_NO_QUOTES}",
        )


def _rows(stream, lines, quoting):
    reader = csv.reader(lines, delimiter=lines.delimiter, quoting=quoting, strict=True)
    while True:
        lines.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                message = f"the quote that this row opens is not closed; {_NO_QUOTES}"
            elif "new-line" in str(error):
                message = "line ends of old Macs (a lone \\r): convert them (tr '\\r' '\\n')"
            else:
                message = (
                    f"no valid CSV ({error}): a quote within a quoted text is written twice; "
                    f"{_NO_QUOTES}"
                )
            raise stream.fail(lines.first, message) from error
        if row:  # empty lines are passed over
            yield row


def _header(stream, names):
    names = [name.strip() or f"(column {number})" for number, name in enumerate(names, 1)]
    twice = repeated(names)
    if twice is not None:
        raise stream.fail(1, f"two columns are named {twice[:40]!r}, rename one")
    return names
