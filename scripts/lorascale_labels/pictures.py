"""Which pictures a folder holds, and their pixels as a model sees them: turned as EXIF says, alpha on white."""

import os
import posixpath
import unicodedata
from pathlib import Path

from lorascale_data.command_line import one_line
from lorascale_data.errors import BAD_INPUT, PrepareError
from lorascale_data.files import unreadable
from lorascale_images.decoding import FORMATS, PictureError, Shape, decode
from PIL import Image

SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
CAPTION_SUFFIXES = (".txt", ".caption")  # of files beside pictures, as other trainers have them
MAX_RATIO = 64  # of the sides; models scale the shorter one to a size of theirs
_COLOURS = Shape(3)


def key_of(name):
    """What names of one file in a table and in a folder have in common."""
    return unicodedata.normalize("NFC", posixpath.normpath(name))


def find(folder):
    """The names of the pictures in `folder`, at any depth, relative to it, in order; hidden ones left out."""
    found = []
    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found += [
            (Path(place) / name).relative_to(folder).as_posix()
            for name in names
            if not _is_hidden(name) and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    if not found:
        raise PrepareError(BAD_INPUT, f"{folder}: holds no picture, check the path and the names of the files")
    return sorted(found)


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def has_caption_file(folder, name):
    """Whether a caption lies beside the picture, in a file of its own."""
    base = os.path.splitext(folder / name)[0]
    return any(os.path.isfile(base + suffix) and os.path.getsize(base + suffix) for suffix in CAPTION_SUFFIXES)


def load(folder, name):
    """A Pillow image of red, green and blue; PictureError says what is wrong with it."""
    _check_name(name)
    path = folder / name
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise PictureError("is a link that leads out of the folder; copy the file")
    pixels, _ = decode(path, _COLOURS)
    _, height, width = pixels.shape
    if max(height, width) > MAX_RATIO * min(height, width):
        raise PictureError(f"is {width} x {height}, too long for a model; crop it")
    return Image.fromarray(pixels.transpose(1, 2, 0))


def _check_name(name):
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PictureError("is named in no UTF-8, rename it") from None
    if one_line(name) != name:
        raise PictureError("has a line break or the like in its name, rename it")
