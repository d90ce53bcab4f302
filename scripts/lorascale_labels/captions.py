"""The captions of a folder: metadata.csv, and beside it the hidden memory of which of them this program wrote. What
somebody wrote or edited is not in the memory, and is never changed."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path

from lorascale_data.errors import BAD_INPUT, CANNOT_WRITE, PrepareError
from lorascale_data.token_file import give_name, sync, temporary_name

from .table import Table

TABLE = "metadata.csv"
MEMORY = ".auto_label.json"
FORMAT = "lorascale-auto-label"
VERSION = 1


def digest(value):
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


class Captions:
    """`replace_own`: captions that are in the memory, and were made otherwise than now, are made anew."""

    def __init__(self, folder, replace_own=False):
        self.path = Path(os.path.realpath(folder / TABLE))
        self._memory_path = folder / MEMORY
        self._replace_own = replace_own
        self._read_table()
        made = _read_memory(self._memory_path)  # {digest of name and text: digest of how it was made}
        pairs = {self._pair(row) for key in self._table for row in self._table.rows_of(key)}
        self._made = {pair: how for pair, how in made.items() if pair in pairs}

    def wants(self, name, how):
        """Whether a picture is to be captioned; `how`: the digest of all that decides on its caption."""
        rows = self._table.rows_of(name)
        return not rows or any(self._made.get(self._pair(row), how) != how for row in self._replaceable(rows))

    def has(self, name):
        return bool(self._table.rows_of(name))

    def is_empty(self, name):
        rows = self._table.rows_of(name)
        return bool(rows) and not any(self._table.text(row).strip() for row in rows)

    def unknown(self, keys):
        """What the table has captions of that is not among `keys`."""
        return [key for key in self._table if key not in keys]

    def save(self, made):
        """Writes {name: (text, how)}, all of them or none; how many."""
        if self._signature() != self._read:  # somebody has edited it meanwhile
            self._read_table()
        written = sum(self._put(name, text, how) for name, (text, how) in made.items())
        memory = {"format": FORMAT, "version": VERSION, "captions": self._made}
        # The memory first: were it to lack a caption of the table, that would count as somebody's for ever.
        _write(self._memory_path, json.dumps(memory, indent=0).encode())
        _write(self.path, self._table.contents())
        self._read = self._signature()
        return written

    def _put(self, name, text, how):
        rows = self._table.rows_of(name)
        own = self._replaceable(rows)
        for row in own:
            self._table.replace(row, text)
        if not rows:
            self._table.append(name, text)
            own = self._table.rows_of(name)
        self._made.update((self._pair(row), how) for row in own)
        return bool(own)

    def _replaceable(self, rows):
        return [row for row in rows if self._replace_own and self._pair(row) in self._made]

    def _pair(self, row):
        return digest([self._table.name(row), self._table.text(row)])

    def _read_table(self):
        self._read = self._signature()
        try:
            self._table = Table(self.path, self.path.read_bytes() if self._read else b"")
        except OSError as error:
            raise PrepareError(
                BAD_INPUT, f"{self.path}: cannot be read ({error.strerror}), remove or move it"
            ) from error

    def _signature(self):
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _read_memory(path):
    try:
        contents = json.loads(path.read_bytes())
        if contents["format"] == FORMAT and contents["version"] == VERSION:
            return dict(contents["captions"])
        reason = "of another version"
    except FileNotFoundError:
        return {}
    except OSError as error:
        reason = error.strerror
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = "damaged"
    raise PrepareError(
        BAD_INPUT, f"{path}: cannot be read ({reason}); remove it, the captions there are then count as edited by you"
    )


def _write(path, contents):
    """A reader sees the old file or the whole new one."""
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(contents)
        if path.exists():
            shutil.copymode(path, temporary)
        sync(temporary)
        give_name(temporary, path, replace=True)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone_in(folder):
    """Two runs would undo each other's rows. The folder itself is locked, so that nothing is left behind."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PrepareError(CANNOT_WRITE, f"{folder}: cannot be written to, change its permissions or copy it")
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise PrepareError(CANNOT_WRITE, f"{folder}: another auto_label.py works on it, wait for its end") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)
