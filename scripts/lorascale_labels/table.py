"""metadata.csv: file_name and text of each picture, and whatever columns it has besides. Rows stay byte for byte as
they are; new ones are written with the file's own delimiter and line ends."""

import codecs
import csv
import dataclasses
import io

from lorascale_data.errors import BAD_INPUT, PrepareError

from .pictures import key_of

# The columns of a picture's name and of its caption; prepare_images.py knows the same names. New files have the first.
COLUMNS = (("file_name", "filename", "file"), ("text", "prompt", "caption"))
_DELIMITERS = ",;\t|"


@dataclasses.dataclass
class Row:
    raw: str  # with its line end
    fields: list[str]


class Table:
    """The rows of a file's `contents` (bytes); without any it begins with a header."""

    def __init__(self, path, contents):
        self._path = path
        self._bom = contents.startswith(codecs.BOM_UTF8)
        text = self._decoded(contents.removeprefix(codecs.BOM_UTF8)) or ",".join(names[0] for names in COLUMNS) + "\n"
        self._delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
        self._header, *rows = self._rows(text)
        self._end = "\r\n" if self._header.raw.endswith("\r\n") else "\n"
        self._name, self._text = self._places()
        self._by_key = {}
        for row in rows:
            self._remember(row)
        self._all = rows

    def rows_of(self, name):
        return self._by_key.get(key_of(name), [])

    def __iter__(self):
        """The keys of the names in it."""
        return iter(self._by_key)

    def name(self, row):
        return row.fields[self._name]

    def text(self, row):
        return row.fields[self._text]

    def append(self, name, text):
        before = self._all[-1] if self._all else self._header
        if not before.raw.endswith(("\n", "\r")):
            before.raw += self._end
        fields = [""] * len(self._header.fields)
        fields[self._name], fields[self._text] = name, text
        row = Row(self._written(fields), fields)
        self._all.append(row)
        self._remember(row)

    def replace(self, row, text):
        row.fields[self._text] = text
        row.raw = self._written(row.fields)

    def contents(self):
        text = "".join(row.raw for row in (self._header, *self._all))
        return codecs.BOM_UTF8 * self._bom + text.encode()

    def _remember(self, row):
        if row.fields:
            self._by_key.setdefault(key_of(self.name(row)), []).append(row)

    def _written(self, fields):
        out = io.StringIO()
        csv.writer(out, delimiter=self._delimiter, lineterminator=self._end).writerow(fields)
        return out.getvalue()

    def _decoded(self, contents):
        try:
            return contents.decode()
        except UnicodeDecodeError as error:
            line = contents.count(b"\n", 0, error.start) + 1
            raise self._refuse(
                line, f"not UTF-8 (byte {contents[error.start]:#04x}): save it as CSV UTF-8 or convert it with iconv"
            ) from error

    def _rows(self, text):
        """The header and all rows; empty lines are rows without fields."""
        lines = _Recorder(text)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        begin, width = 1, None
        try:
            for fields in reader:
                width = width or len(fields)
                self._check(begin, len(fields), width)
                yield Row(lines.taken(), fields)
                begin = reader.line_num + 1
        except csv.Error as error:
            raise self._refuse(
                begin, f"no valid CSV ({error}): is a quote not closed, or not written twice?"
            ) from error

    def _places(self):
        header = [name.strip() for name in self._header.fields]
        return tuple(self._place(names, header) for names in COLUMNS)

    def _place(self, names, header):
        found = [place for place, name in enumerate(header) if name in names]
        if len(found) != 1:
            has = ", ".join(header)[:200] or "none"
            raise self._refuse(1, f"needs one column {' or '.join(names)}, and has {has}; name the columns so")
        return found[0]

    def _check(self, line, found, wanted):
        if found not in (0, wanted):
            raise self._refuse(
                line,
                f"the row has {found} fields where the header has {wanted}; captions with {self._delimiter!r} in them "
                f"need quotes",
            )

    def _refuse(self, line, message):
        return PrepareError(BAD_INPUT, f"{self._path}:{line}: {message}")


class _Recorder:
    """Lines for csv.reader, which says not what it made a row of."""

    def __init__(self, text):
        self._lines, self._taken = io.StringIO(text, newline=""), []

    def __iter__(self):
        return self

    def __next__(self):
        line = next(self._lines)
        self._taken.append(line)
        return line

    def taken(self):
        raw, self._taken = "".join(self._taken), []
        return raw
