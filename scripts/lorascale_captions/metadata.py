"""Captions in a table or in JSON Lines: metadata.csv, metadata.jsonl."""

import functools
import json
import os
from pathlib import Path, PurePosixPath

from lorascale_data import json_text, tables
from lorascale_data.errors import BAD_INPUT, PrepareError, RecordError
from lorascale_data.files import some
from lorascale_data.keys import json_type
from lorascale_data.sources import TABLE_SUFFIXES, suffix_of
from lorascale_images import listing

from . import texts

NAMES = {"file": ("file_name", "filename", "file"), "caption": ("text", "prompt", "caption")}


def find(table, reading, statistics):
    """[(path, name, caption, repeats)] in the order of the rows."""
    rows = _Rows(table, dict(reading.columns))
    stream = texts.RecodedStream(table, reading.encoding)
    found = []
    try:
        for line, raw in _raw_rows(table, stream, reading.quotes):
            try:
                path, name, caption = rows.parse(raw)
            except RecordError as error:
                statistics.note_bad(f"{table}:{line}", str(error))
            else:
                found.append((path, name, caption, reading.repeats))
    finally:
        stream.close()
    if rows.count == 0:
        raise PrepareError(BAD_INPUT, f"{table}: holds no row with a picture, check the file")
    if rows.unused:
        statistics.notes.append(f"{table}: not used: {some(sorted(rows.unused))}")
    return found


def note_unnamed(folder, found, statistics):
    """Says which pictures of a folder its metadata do not name."""
    named = {os.path.normpath(path) for path, *_ in found}
    unnamed = []
    for place, _, names in listing.walk(folder):
        paths = [os.path.join(place, name) for name in names if listing.is_picture(name)]
        unnamed += [os.path.relpath(path, folder) for path in paths if os.path.normpath(path) not in named]
    if unnamed and not statistics.bad:
        statistics.notes.append(f"{folder}: {len(unnamed):,} pictures without a row, not used: {some(sorted(unnamed))}")


def _raw_rows(table, stream, quotes):
    suffix = suffix_of(table)
    if suffix in TABLE_SUFFIXES:
        return tables.rows(stream, TABLE_SUFFIXES[suffix], quotes)
    return json_text.lines(stream)


class _Rows:
    def __init__(self, table, columns):
        self._table, self._root, self._columns = table, table.parent.resolve(), columns
        self.count, self.unused = 0, set()
        self._leads_out = functools.lru_cache(1024)(self._leads_out)

    def parse(self, raw):
        """(path, name, caption) of a row."""
        self.count += 1
        if isinstance(raw, tables.Broken):
            raise RecordError(str(raw))
        record = _object(raw)
        keys = {meaning: self._key_of(meaning, record) for meaning in NAMES}
        self.unused |= set(record) - set(keys.values())
        name, caption = (_string(record, keys[meaning]) for meaning in NAMES)
        return self._path_of(name, keys["file"]), name, texts.checked(caption)

    def _key_of(self, meaning, record):
        names = [self._columns[meaning]] if meaning in self._columns else NAMES[meaning]
        found = [name for name in names if name in record]
        if len(found) == 1:
            return found[0]
        problem = (
            f"has {' and '.join(found)}, which both may be the {meaning}; choose one"
            if found
            else f"names no {meaning} ({', '.join(names)}), but {', '.join(record)[:200] or 'nothing'}; name its column"
        )
        message = f"{problem} with --columns {meaning}=NAME"
        if self.count == 1:  # then it is so in all rows
            raise PrepareError(BAD_INPUT, f"{self._table}: {message}")
        raise RecordError(message)

    def _path_of(self, name, key):
        if not name.strip() or "\0" in name or not listing.is_text(name):
            raise RecordError(f"{key} names no file")
        pure, path = PurePosixPath(name), os.path.join(self._table.parent, name)
        wrong = pure.is_absolute() or ".." in pure.parts
        if wrong or self._leads_out(os.path.dirname(path)) or (os.path.islink(path) and self._leads_out(path)):
            raise RecordError(f"{name} leads out of the folder of {self._table.name}; copy the file into it")
        return path

    def _leads_out(self, path):
        return not Path(os.path.realpath(path)).is_relative_to(self._root)


def _object(raw):
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", type(error).__name__)
        raise RecordError(f"not valid JSON ({reason}), mend the line") from error
    if not isinstance(record, dict):
        raise RecordError(f"a {json_type(record)} and no JSON object, mend the line")
    return record


def _string(record, key):
    value = record[key]
    if not isinstance(value, str):
        raise RecordError(f'"{key}" is a {json_type(value)}, it must be a string')
    return value
