"""Captions in files beside the pictures, and folders N_class, as kohya's sd-scripts read them."""

import collections
import os
import re
from pathlib import Path

from lorascale_data.errors import BAD_INPUT, PrepareError, RecordError
from lorascale_data.files import some
from lorascale_images import listing

from . import texts

OTHERS = (".txt", ".caption", ".captions", ".cap", ".tags", ".text", ".prompt")  # extensions of captions in use
MAX_REPEATS = 1 << 20
_GROUP = re.compile(r"([0-9]+)_(.*)", re.DOTALL)


def find(folder, reading, statistics):
    """[(path, name, caption, repeats)] of the pictures at any depth."""
    files = _Files(folder, statistics.note_bad)
    groups = _groups_of(folder, statistics.notes)
    captions = _Captions(folder, files.names, reading, statistics)
    found = []
    for path, name in files.pictures:
        repeats, words = reading.repeats, None
        if groups:
            group = groups.get(Path(name).parts[0])
            if group is None:
                message = "lies beside the folders N_class and not in one; move it into one"
                statistics.note_bad(path, message)
                continue
            repeats, words = group
        if repeats:  # kohya takes a folder 0_class for one to leave out
            try:
                found.append((path, name, captions.of(path, name, words), repeats))
            except RecordError as error:
                statistics.note_bad(captions.place(path), str(error))
    captions.check(has_words=bool(groups))
    return found


class _Files:
    """`pictures` [(path, name)] of a folder, and the `names` of all its files."""

    def __init__(self, folder, note_bad):
        self.pictures, self.names, root = [], set(), folder.resolve()
        for place, folders, names in listing.walk(folder):
            listing.note_links(place, folders, note_bad)
            for name in names:
                path = os.path.join(place, name)
                if listing.is_within(root, path, note_bad):
                    relative = Path(path).relative_to(folder).as_posix()
                    self.names.add(relative)
                    if listing.is_picture(name):
                        self.pictures.append((path, relative))


def _groups_of(folder, notes):
    """{name of a folder N_class: (N, class)}"""
    matches = [_GROUP.fullmatch(path.name) for path in sorted(folder.iterdir()) if path.is_dir()]
    groups = {match[0]: (int(match[1]), match[2].strip()) for match in matches if match}
    for name, (repeats, _) in groups.items():
        if repeats > MAX_REPEATS:
            raise PrepareError(BAD_INPUT, f"{folder / name}: over {MAX_REPEATS:,} repeats, rename the folder")
        if repeats == 0:
            notes.append(f"{folder / name}: 0 repeats, not used")
    return groups


class _Captions:
    def __init__(self, folder, names, reading, statistics):
        self._folder, self._names, self._reading, self._statistics = folder, names, reading, statistics
        self._pictures, self._without, self._longer = 0, [], []

    def place(self, path):
        return os.path.splitext(path)[0] + self._reading.extension

    def of(self, path, name, words):
        """The first line of the file beside it, as kohya has it; else `words`; else ""."""
        self._pictures += 1
        if os.path.splitext(name)[0] + self._reading.extension not in self._names:
            self._without.append(name)
            return words or ""
        place = self.place(path)
        if not os.path.isfile(place):
            raise RecordError("is no file, remove it")
        try:
            text = texts.read(place, self._reading.encoding)
        except OSError as error:
            raise RecordError(f"cannot be read ({error.strerror}), check its permissions") from error
        lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
        if len(lines) > 1:
            self._longer.append(name)
        return lines[0] if lines else ""

    def check(self, has_words):
        extension, notes = self._reading.extension, self._statistics.notes
        if self._without and len(self._without) == self._pictures:
            self._refuse_all(has_words)
        elif self._without:
            instead = "the words of their folders are" if has_words else "no caption is"
            notes.append(
                f"{self._folder}: {len(self._without):,} of {self._pictures:,} pictures have no {extension} beside "
                f"them, {instead} taken: {some(self._without)}"
            )
        if self._longer:
            notes.append(
                f"{self._folder}: {len(self._longer):,} captions have several lines, of which the first is taken: "
                f"{some(self._longer)}"
            )

    def _refuse_all(self, has_words):
        stems = [os.path.splitext(name)[0] for name in self._without]
        beside = collections.Counter(ext for ext in OTHERS for stem in stems if stem + ext in self._names)
        start = f"{self._folder}: 0 of {self._pictures:,} pictures have captions; "
        if beside:
            extension, count = beside.most_common(1)[0]
            raise PrepareError(
                BAD_INPUT,
                f"{start}{count:,} {extension} files lie beside them, which --caption-extension {extension} takes",
            )
        if not has_words and not self._reading.prefix:
            raise PrepareError(
                BAD_INPUT,
                f"{start}write one beside each (NAME{self._reading.extension}), or metadata.csv, or give --prefix TEXT "
                f"as that of all",
            )
