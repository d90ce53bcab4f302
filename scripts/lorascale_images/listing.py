"""Which pictures there are and of which class, by a folder with a folder for each class or by a table of
files and labels. Nothing is opened here but the table; the order is that of the names in a folder and of
the rows in a table."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from lorascale_data import tables
from lorascale_data.errors import BAD_INPUT, USAGE, PrepareError
from lorascale_data.files import some_of, unreadable
from lorascale_data.sources import TABLE_SUFFIXES, suffix_of
from lorascale_data.stream import Stream

SUFFIXES = frozenset(
    ".apng .avif .bmp .dib .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .pbm .pcx .pgm .png .pnm .ppm .qoi .sgi .tga .tif "
    ".tiff .webp".split()
)
COLUMNS = {"file": "file", "label": "label"}  # and the names that they have unless told otherwise
MAX_CLASSES = 1 << 16  # labels are u16
# Folders of these names are parts of a data set, not classes.
_PARTS = frozenset("train training val valid validation dev test testing eval evaluation".split())
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


class Picture(NamedTuple):
    path: str  # to open
    name: str  # to show and to store, relative to the folder or as the table has it
    label: str
    line: int  # of the table, from 1; 0 in a folder


@dataclasses.dataclass
class Listing:
    source: Path
    pictures: list[Picture]
    classes: list[str]  # in order, those without a picture, too
    notes: list[str]

    def place(self, picture):
        return f"{self.source}:{picture.line}: {picture.name}" if picture.line else picture.path


def find(source, columns, quotes, note_bad):
    """The Listing of a folder or table. `columns` and `quotes`: as --columns and --no-quotes have them;
    `note_bad(place, message)` is told of what cannot be used."""
    source = Path(source)
    if source.is_dir():
        found = _of_folder(source, note_bad)
    elif not source.exists():
        raise PrepareError(BAD_INPUT, f"{source}: there is no such file or folder, check the path")
    elif suffix_of(source) in TABLE_SUFFIXES:
        found = _of_table(source, {**COLUMNS, **dict(columns)}, quotes, note_bad)
    else:
        raise PrepareError(
            BAD_INPUT,
            f"{source}: is neither a folder with a folder for each class nor a table "
            f"({', '.join(sorted(TABLE_SUFFIXES))}) of files and labels; give one of these",
        )
    for name in found.classes:
        if not is_text(name):
            raise PrepareError(BAD_INPUT, f"{source}: class {name!r} is named in no UTF-8, rename it")
    return found


def refuse_as_outputs(outputs, pictures):
    """--force replaces files made earlier, not the `pictures` that the new ones are made of."""
    existing = {path.resolve(): path for path in outputs if path.exists()}
    for picture in pictures if existing else ():
        if (path := existing.get(Path(picture.path).resolve())) is not None:
            raise PrepareError(USAGE, f"{path}: is one of the pictures, choose another name")


def is_text(name):
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def sorted_classes(names):
    """By number where all of them are whole numbers, so that class 10 comes after 9; else by name."""
    names = set(names)
    return sorted(names, key=int if all(map(_NUMBER.fullmatch, names)) else None)


def _of_folder(folder, note_bad):
    root = folder.resolve()
    pictures, passed_over, classes = [], [], []
    for place, folders, names in walk(folder):
        if Path(place) == folder:
            classes = [name for name in folders if not os.path.islink(folder / name)]
            _check_folders(folder, classes)
        note_links(place, folders, note_bad)
        for name in names:
            path = os.path.join(place, name)
            if not is_picture(name):
                passed_over.append(Path(path))
            elif Path(place) == folder:
                note_bad(path, "has no class: it lies beside the folders of classes; move it into one")
            elif is_within(root, path, note_bad):
                relative = Path(path).relative_to(folder)
                pictures.append(Picture(path, relative.as_posix(), relative.parts[0], 0))
    pictures.sort(key=lambda picture: picture.name)
    notes = []
    if passed_over:
        notes.append(
            f"{folder}: {len(passed_over):,} files passed over, no pictures by their names: "
            f"{some_of(folder, sorted(passed_over))}"
        )
    return Listing(folder, pictures, sorted_classes(classes), notes)


def walk(folder):
    """Yields (place, folders, names) of what lies below, by name, without what is hidden."""
    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield place, folders, sorted(name for name in names if not _is_hidden(name))


def note_links(place, folders, note_bad):
    for name in folders:
        path = os.path.join(place, name)
        if os.path.islink(path):
            note_bad(path, "is a link to a folder and not followed; copy the folder, or list files in a table")


def is_picture(name):
    """By its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def is_within(root, path, note_bad):
    """Whether a link, if it is one, stays in the folder: what a stranger's data set points to elsewhere
    on this machine does not belong into it."""
    if not os.path.islink(path):
        return True
    target = os.path.realpath(path)
    if Path(target).is_relative_to(root):
        return True
    note_bad(path, "is a link that leads out of the folder; copy the file, or list files in a table")
    return False


def _check_folders(folder, classes):
    if not classes:
        raise PrepareError(BAD_INPUT, f"{folder}: holds no folder; make one for each class, with its pictures in it")
    parts = [name for name in classes if name.lower() in _PARTS]
    if len(parts) == len(classes):
        raise PrepareError(
            BAD_INPUT,
            f"{folder}: holds {', '.join(parts)}, by their names parts of a data set and no classes; give one, "
            f"{folder / parts[-1]}",
        )


def _of_table(table, columns, quotes, note_bad):
    stream = Stream(table)
    pictures, labels, rows, is_first = [], set(), 0, True
    try:
        for line, raw in tables.rows(stream, TABLE_SUFFIXES[suffix_of(table)], quotes):
            rows += 1
            if isinstance(raw, tables.Broken):
                note_bad(f"{table}:{line}", str(raw))
                continue
            row = json.loads(raw)
            if is_first:
                _check_columns(table, columns, row)
                is_first = False
            name, label = row[columns["file"]], row[columns["label"]].strip()
            if not name or "\0" in name:
                note_bad(f"{table}:{line}", f"column {columns['file']} names no file")
            elif not label:
                note_bad(f"{table}:{line}", f"column {columns['label']} has no label")
            else:
                pictures.append(Picture(os.path.join(table.parent, name), name, label, line))
                labels.add(label)
    finally:
        stream.close()
    if not rows:
        raise PrepareError(BAD_INPUT, f"{table}: holds no row below a header of columns, check the file")
    return Listing(table, pictures, sorted_classes(labels), [])


def _check_columns(table, columns, row):
    for meaning, column in columns.items():
        if column not in row:
            raise PrepareError(
                USAGE,
                f"{table}: has no column {column}, but {', '.join(row)[:200]}; name the one of the {meaning} with "
                f"--columns {meaning}=NAME",
            )
