"""Input files as a stream of raw records. Memory is bounded by the longest record, 64 MiB at most.

A raw record is (number, bytes): a line of JSON Lines, an element of a JSON array, a row of a table,
or a piece of plain text as --text-split says. As little is parsed here as finding where a record
ends takes, because this runs in one process; the rest is the workers' part.
"""

from pathlib import Path

from . import json_text, signatures, tables, texts
from .columnar import Table
from .errors import BAD_INPUT, PrepareError
from .stream import PACKED_SUFFIXES, Stream

TEXT_SUFFIXES = frozenset([".txt", ".text", ".md", ".rst"])
LINE_SUFFIXES = frozenset([".jsonl", ".ndjson"])
TABLE_SUFFIXES = {".csv": None, ".tsv": "\t", ".tab": "\t"}  # and what parts their columns
COLUMNAR_SUFFIXES = frozenset([".parquet", ".pq", ".arrow", ".feather"])
RECORD_FORMATS = ("prompt-completion", "alpaca", "messages", "sharegpt")
FORMATS = ("auto", "text", "jsonl", "json", "csv", "tsv", "parquet", "arrow", *RECORD_FORMATS)


def suffix_of(path):
    """The suffix below that of a packer."""
    path = Path(path)
    return (path.with_suffix("") if path.suffix in PACKED_SUFFIXES else path).suffix.lower()


class Source:
    """One input file. It is looked at when made, and open only while it is read: there may be more
    files than a process may hold open.

    `container` is text, jsonl, json, table or columnar; `position` is how many of its `size` bytes
    on disk were consumed; `notes` are what the user should know of how it is read; `unused` counts
    columns that no record shape knows (None: the records tell). `wanted` are further names of
    columns, `ignored` those that are not needed; `quotes`: see tables.rows.
    """

    def __init__(
        self, path, requested_format, split, wanted=frozenset(), ignored=frozenset(), quotes=True
    ):
        self.path = Path(path)
        self.notes, self.hint, self.unused = [], "", None
        self._split, self._quotes = split, quotes
        self._columns = (frozenset(wanted), frozenset(ignored))
        self._open = self._stream = Stream(self.path)
        self.size = self._stream.size
        is_regular = self._stream.is_regular
        self.container = self._find_container(requested_format, suffix_of(self.path))
        if self.container == "columnar":
            self._start_table()
        if is_regular:
            self.close()

    @property
    def position(self):
        return self._open.position if self._open else 0

    def close(self):
        if self._open:
            self._open.close()
        self._open = self._stream = None

    def records(self):
        """Yields (line or row, bytes or tables.Broken). Empty lines are passed over."""
        if self.container == "columnar":
            self._start_table()
            return self._open.records()
        if self._stream is None:
            self._open = self._stream = Stream(self.path)
        if self.container == "jsonl":
            return json_text.lines(self._stream)
        if self.container == "json":
            return json_text.elements(self._stream)
        if self.container == "table":
            return tables.rows(self._stream, self._delimiter, self._quotes)
        return texts.pieces(self._stream, self._split)

    def place(self, number):
        if self.container == "columnar":
            return f"{self.path}: row {number}"
        return f"{self.path}:{number}"

    def fail(self, number, message):
        return PrepareError(BAD_INPUT, f"{self.place(number)}: {message}")

    def _start_table(self):
        self.close()
        self._open = Table(self.path, self.size, self._kind, *self._columns)
        self.unused = self._open.unused

    def _refuse(self, message):
        return PrepareError(BAD_INPUT, f"{self.path}: {message}")

    def _find_container(self, requested, suffix):
        head = self._stream.head
        if self._stream.is_whole and not head.strip():
            raise self._refuse("is empty, take it off the list of inputs")
        found = signatures.recognise(head)
        if found is not None:
            return self._binary(requested, *found)
        if requested in ("parquet", "arrow"):
            raise self._refuse(f"is no {requested.capitalize()} file, leave out --format")
        if requested in ("text", "jsonl"):
            return requested
        if requested in ("csv", "tsv"):
            return self._table("\t" if requested == "tsv" else TABLE_SUFFIXES.get(suffix))
        head = head.lstrip()
        if suffix in TABLE_SUFFIXES and requested != "json" and not json_text.starts_with_object(head):
            return self._table(TABLE_SUFFIXES[suffix])
        if requested == "auto" and suffix in TEXT_SUFFIXES:
            return self._text_or_lines(head)
        if head.startswith(b"["):
            if suffix == ".json" or requested != "auto" or json_text.starts_array(head):
                return "json"
            return "jsonl" if suffix in LINE_SUFFIXES else "text"
        if requested == "json":
            return "json"
        if requested in RECORD_FORMATS or suffix in LINE_SUFFIXES:
            return "jsonl"
        if head.startswith(b"{"):
            # An object that ends on its first line is JSON Lines, one over several lines is not.
            return "jsonl" if json_text.starts_with_object(head) else "json"
        return "json" if suffix == ".json" else "text"

    def _table(self, delimiter):
        self._delimiter = delimiter
        self.hint = (
            "line 1 names the columns; --columns says which hold what, --format text reads plain text"
        )
        return "table"

    def _text_or_lines(self, head):
        """Text by its name, but data by what it holds?"""
        whole = self._stream.is_whole
        if json_text.starts_with_object(head):
            odd = json_text.first_line_that_is_no_object(self._stream.head, whole)
            if odd:
                self.notes.append(
                    f"{self.path}: begins like JSON Lines, but line {odd} is no object; it was read "
                    f"as plain text (--format jsonl reads records)"
                )
                return "text"
            container, name = "jsonl", "JSON Lines"
        elif json_text.holds_array_of_objects(head, whole):
            container, name = "json", "a JSON array"
        else:
            return "text"
        self.hint = "--format text reads this file as plain text"
        self.notes.append(f"{self.path}: is {name} and was read so ({self.hint})")
        return container

    def _binary(self, requested, what, remedy):
        if what not in signatures.COLUMNAR:
            raise self._refuse(f"is {what}: {remedy}")
        if requested in ("text", "jsonl", "json", "csv", "tsv"):
            raise self._refuse(f"is a file of {what}, not {requested}: leave out --format")
        if self._stream.packing or not self._stream.is_regular:
            packed = f"packed with {self._stream.packing}" if self._stream.packing else "in a pipe"
            raise self._refuse(f"is {what} {packed}, which cannot be read: unpack it into a file")
        self._kind = what
        return "columnar"
