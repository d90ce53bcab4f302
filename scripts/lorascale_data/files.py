"""The inputs of the command line as files: folders stand for the data files in them."""

import json
import os
import re
from pathlib import Path

from .errors import BAD_INPUT, PrepareError
from .sources import COLUMNAR_SUFFIXES, LINE_SUFFIXES, TABLE_SUFFIXES, TEXT_SUFFIXES, suffix_of

SUFFIXES = TEXT_SUFFIXES | LINE_SUFFIXES | frozenset(TABLE_SUFFIXES) | COLUMNAR_SUFFIXES | {".json"}
# Of a folder's files: about the data, not data.
_ABOUT = re.compile(
    r"(readme|licen[cs]e|citation|changelog)(\..*)?|dataset_infos?\.json|dataset_dict\.json|state\.json"
)
_TRAIN = re.compile(r"(^|[^a-z])(train|training)([^a-z]|$)")
_HELD_OUT = re.compile(r"(^|[^a-z])(validation|valid|val|dev|test|testing|eval|evaluation)([^a-z]|$)")


def expand(inputs):
    """(files, notes): the files of all inputs, in the order of the inputs and a folder's by name;
    and what the user should know of those that were passed over."""
    files, notes = [], []
    for path in map(Path, inputs):
        if path.is_dir():
            files += _of_folder(path, notes)
        else:
            files.append(path)
    return files, notes


def _of_folder(folder, notes):
    if (folder / "dataset_dict.json").is_file():
        return _of_dictionary(folder, notes)
    if (folder / "state.json").is_file():
        return _of_dataset(folder)
    found, skipped = [], []
    for place, folders, names in os.walk(folder, onerror=unreadable):
        place = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if place != folder and _is_saved(place):
            folders.clear()
            found += _of_folder(place, notes)
            continue
        for name in sorted(names):
            path = place / name
            if name.startswith(".") or not path.is_file():
                continue
            is_data = suffix_of(path) in SUFFIXES and not _ABOUT.fullmatch(name.lower())
            (found if is_data and path.stat().st_size else skipped).append(path)
    found.sort(key=lambda path: path.relative_to(folder).as_posix())
    found = _without_held_out(folder, found, notes)
    if skipped:
        notes.append(f"{folder}: passed over, no data by their names or empty: {some_of(folder, skipped)}")
    if not found:
        raise PrepareError(
            BAD_INPUT,
            f"{folder}: holds no data file ({', '.join(sorted(SUFFIXES))}, packed or not); name files",
        )
    return found


def unreadable(error):
    raise PrepareError(
        BAD_INPUT, f"{error.filename}: cannot be read ({error.strerror}), check its permissions"
    ) from error


def _without_held_out(folder, files, notes):
    """Where files are named for training, those named for tests are not trained on."""
    names = {path: path.relative_to(folder).as_posix().lower() for path in files}
    held_out = [path for path in files if _HELD_OUT.search(names[path]) and not _TRAIN.search(names[path])]
    if not held_out or not any(_TRAIN.search(name) for name in names.values()):
        return files
    notes.append(
        f"{folder}: passed over, named for validation or tests: {some_of(folder, held_out)}; name them "
        f"as inputs of their own to use them"
    )
    return [path for path in files if path not in set(held_out)]


def some_of(folder, paths):
    return some([path.relative_to(folder).as_posix() for path in paths])


def some(names, most=5):
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _is_saved(folder):
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _of_dictionary(folder, notes):
    """A DatasetDict saved to disk: its training split."""
    splits = _read(folder / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        raise PrepareError(BAD_INPUT, f"{folder}/dataset_dict.json: names no splits, save it again")
    others = [name for name in splits if name != "train"]
    if others == splits and len(splits) != 1:
        raise PrepareError(
            BAD_INPUT,
            f"{folder}: has the splits {', '.join(splits)[:100] or '(none)'} and no train; name one, "
            f"{folder}/{splits[0] if splits else 'NAME'}",
        )
    chosen = splits[0] if others == splits else "train"
    others = [name for name in splits if name != chosen]
    if others:
        notes.append(
            f"{folder}: split {chosen} was read; passed over: {', '.join(others)[:100]} (to use one, "
            f"name {folder}/{others[0]})"
        )
    return _of_dataset(_inside(folder, chosen))


def _of_dataset(folder):
    """A Dataset saved to disk: its Arrow files in their order."""
    state = _read(folder / "state.json")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise PrepareError(
            BAD_INPUT, f"{folder}: a data set with indices, save flatten_indices() of it"
        )
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and isinstance(file.get("filename"), str) for file in files
    ):
        raise PrepareError(BAD_INPUT, f"{folder}/state.json: names no data files, save it again")
    return [_inside(folder, file["filename"]) for file in files]


def _inside(folder, name):
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise PrepareError(BAD_INPUT, f"{folder}: names {name[:60]!r} outside itself, save it again")
    return folder / name


def _read(path):
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PrepareError(
            BAD_INPUT, f"{path}: cannot be read ({str(error)[:80]}), save the data set again"
        ) from error
    if not isinstance(contents, dict):
        raise PrepareError(BAD_INPUT, f"{path}: is no JSON object, save the data set again")
    return contents
