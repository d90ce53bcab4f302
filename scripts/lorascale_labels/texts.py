"""Captions as one line each, and the tags that CLIP chooses from: a file of one a line, or the tags themselves."""

import re
from pathlib import Path

from lorascale_data.command_line import names
from lorascale_data.errors import BAD_INPUT, USAGE, PrepareError


def flat(text):
    """`text` on one line, with single spaces."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def tags_of(text):
    """The tags of --tags, each once, in order."""
    tags = _of_file(Path(text)) if _is_file(text) else names(text)
    tags = list(dict.fromkeys(filter(None, map(flat, tags))))
    if len(tags) < 2:
        raise PrepareError(
            USAGE, f"--tags {text[:60]}: to choose from takes two tags or more: a file of one a line, or a,b,c"
        )
    return tags


def _is_file(text):
    if "," not in text and (Path(text).suffix == ".txt" or "/" in text):
        return True
    try:
        return Path(text).is_file()
    except OSError:  # too long for a name
        return False


def _of_file(path):
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise PrepareError(BAD_INPUT, f"--tags {path}: cannot be read ({error.strerror}), check the path") from error
    except UnicodeDecodeError as error:
        raise PrepareError(BAD_INPUT, f"--tags {path}: not UTF-8, convert it with iconv") from error
