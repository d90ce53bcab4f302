"""Which pictures there are and with which captions. Nothing is opened here but the captions."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from lorascale_data.errors import BAD_INPUT, PrepareError
from lorascale_data.sources import LINE_SUFFIXES, TABLE_SUFFIXES, suffix_of

from . import metadata, sidecars

METADATA = ("metadata.csv", "metadata.jsonl")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How captions are read."""

    extension: str = ".txt"
    encoding: str = "utf-8"
    columns: tuple = ()  # ((meaning, name), ...)
    quotes: bool = True
    repeats: int = 1  # of pictures that lie in no folder N_class
    prefix: str = ""


class Entry(NamedTuple):
    path: str  # to open
    name: str  # to show and to store, relative to the folder
    caption: str
    repeats: int
    is_regularisation: bool = False


def find(source, reading, statistics):
    """[Entry] by name: a folder with metadata, such a file itself, or a folder with captions beside the pictures."""
    source = Path(source)
    if source.is_dir():
        tables = [source / name for name in METADATA if (source / name).exists()]
        if len(tables) > 1:
            raise PrepareError(BAD_INPUT, f"{source}: holds {' and '.join(METADATA)}, remove one of them")
        if not tables and reading.columns:
            raise PrepareError(BAD_INPUT, f"{source}: --columns needs {' or '.join(METADATA)} in it")
        if tables:
            found = metadata.find(tables[0], reading, statistics)
            metadata.note_unnamed(source, found, statistics)
        else:
            found = sidecars.find(source, reading, statistics)
    elif not source.exists():
        raise PrepareError(BAD_INPUT, f"{source}: there is no such file or folder, check the path")
    elif suffix_of(source) in (*TABLE_SUFFIXES, *LINE_SUFFIXES):
        found = metadata.find(source, reading, statistics)
    else:
        raise PrepareError(
            BAD_INPUT,
            f"{source}: is neither a folder with pictures and captions nor a table of them (.csv, .jsonl); give one",
        )
    entries = [Entry(path, name, _whole(reading.prefix, caption), repeats) for path, name, caption, repeats in found]
    if not entries and not statistics.bad:
        raise PrepareError(BAD_INPUT, f"{source}: holds no picture, check the path and the names of the files")
    return sorted(entries, key=lambda entry: entry.name)


def find_all(source, regularisation, reading, statistics):
    """Those of training by name, then those of regularisation by name: these have no --prefix and no --repeats."""
    entries = find(source, reading, statistics)
    if regularisation is not None:
        plain = dataclasses.replace(reading, prefix="", repeats=1)
        entries += [entry._replace(is_regularisation=True) for entry in find(regularisation, plain, statistics)]
    return entries


def _whole(prefix, caption):
    return ", ".join(part for part in (prefix, caption) if part)
