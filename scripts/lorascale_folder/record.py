"""The memory of a data folder: what its file was made of, so that it is made again where that has changed. It also
marks the folder as this program's."""

import json
import os
from pathlib import Path

from lorascale_captions import layouts
from lorascale_data.errors import CANNOT_WRITE, PrepareError
from lorascale_data.files import some
from lorascale_data.token_file import give_name, sync, temporary_name
from lorascale_images import listing

NAME = "prepared.json"
FORMAT, VERSION = "lorascale-prepared-folder", 1
_TOKENIZERS = ("tokenizer", "tokenizer_2")  # in a model's folder


def inputs_of(settings):
    """What the prepared file follows from: options, and sizes and times of files."""
    places = [settings.pictures, *([settings.regularisation] if settings.regularisation else [])]
    files = [path for place in places for path in _of_pictures(place, settings.extension)]
    if settings.source.is_file():
        files.append(settings.source)
    files += _of_tokenizer(settings.tokenizer)
    return {
        "pictures": str(settings.pictures.resolve()),
        "source": str(settings.source.resolve()),
        "options": list(settings.options),
        "files": {os.path.abspath(path): _stamp(path) for path in files},
    }


def read(folder):
    """The record; {} where there is none, or none that this version understands."""
    try:
        record = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    known = isinstance(record, dict) and record.get("format") == FORMAT and record.get("version") == VERSION
    return record if known else {}


def take(folder):
    """Makes the data folder, or refuses one that holds another's files."""
    path = folder / NAME
    if path.is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PrepareError(CANNOT_WRITE, f"{folder}: is not of this program's making and in its way, move it")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, {})


def write(folder, inputs):
    replace(folder / NAME, json.dumps({"format": FORMAT, "version": VERSION, **inputs}, indent=0) + "\n")


def replace(path, text):
    """A reader sees the old file or the whole new one."""
    temporary = temporary_name(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        give_name(temporary, path, replace=True)
    finally:
        temporary.unlink(missing_ok=True)


def change(before, now):
    """What became another, in words; "" where nothing did."""
    if before.get("pictures") != now["pictures"] or before.get("source") != now["source"]:
        return "other pictures"
    old, new = before.get("files", {}), now["files"]
    names = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
    if names:
        return f"{some([os.path.basename(name) for name in names])} changed"
    return "" if before.get("options") == now["options"] else "other settings"


def _of_pictures(folder, extension):
    """Pictures and captions; what else lies there, such as other trainers' caches, does not matter."""
    for place, _, names in listing.walk(folder):
        for name in names:
            if listing.is_picture(name) or name.endswith(extension) or name in layouts.METADATA:
                yield os.path.join(place, name)


def _of_tokenizer(path):
    if path.is_file():
        return [path]
    folders = [path / name for name in _TOKENIZERS if (path / name).is_dir()] or [path]
    return sorted(file for folder in folders for file in folder.iterdir() if file.is_file())


def _stamp(path):
    try:
        found = Path(path).stat()
    except OSError:  # a link to nowhere: whoever reads it says so
        return None
    return [found.st_size, found.st_mtime_ns]
