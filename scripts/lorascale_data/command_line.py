"""What the commands that prepare data share: the parser, the checks of their outputs, and how they end."""

import argparse
import contextlib
import ctypes
import errno
import os
import re
import signal
import sys

from .errors import CANNOT_WRITE, USAGE, PrepareError
from .workers import PR_SET_PDEATHSIG

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMPLETE = "the files are complete"


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise PrepareError(USAGE, f"{message} (see --help)")


def number(kind, low, high):
    """A number within [low, high]; argparse words the message."""

    def convert(text):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    convert.__name__ = "number"
    return convert


def names(text):
    """A list of names, parted by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def columns_of(text, meanings):
    """((meaning, key), ...) of --columns."""
    pairs = []
    for item in names(text or ""):
        meaning, equals, key = item.partition("=")
        if not equals or not key or meaning not in meanings:
            raise PrepareError(
                USAGE,
                f"--columns {item}: give MEANING=KEY, the meaning one of {', '.join(meanings)}",
            )
        pairs.append((meaning, key))
    if len({meaning for meaning, _ in pairs}) < len(pairs):
        raise PrepareError(USAGE, "--columns gives one meaning two keys, keep one")
    return tuple(pairs)


def check_outputs(options, inputs):
    """The output files, checked before hours of work."""
    if options.validation is None and options.validation_fraction is not None:
        raise PrepareError(USAGE, "--validation-fraction needs --validation FILE.h5")
    outputs = [path for path in (options.output, options.validation) if path is not None]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise PrepareError(USAGE, "--output and --validation are one file, give two")
    inputs = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in inputs:
            raise PrepareError(USAGE, f"{path}: is an input too, choose another name")
        if path.is_dir():
            raise PrepareError(CANNOT_WRITE, f"{path}: is a folder, give the name of a file")
        if path.exists() and not options.force:
            raise PrepareError(CANNOT_WRITE, f"{path}: exists, --force replaces it")
        path.parent.mkdir(parents=True, exist_ok=True)
    return outputs


def cannot_write(error, output):
    """What an OSError is to the user. The HDF5 library's own has all in its text."""
    text = str(error)
    named = re.search(r"filename = '(.*?)(?:\.\d+\.tmp)?'", text)
    reason = re.search(r"error message = '(.*?)'", text)
    where = error.filename or (named[1] if named else output)
    what = error.strerror or (reason[1] if reason else text)
    return PrepareError(CANNOT_WRITE, f"{where}: {one_line(what)}, free some space or choose another place")


def one_line(text):
    """`text` without what would break a line or speak to the terminal: names of files and classes may hold anything."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: repr(match[0])[1:-1], text)


@contextlib.contextmanager
def all_or_none(writers, replace):
    """Gives the files of `writers` their names at the end: all of them, or none, and older files stay as they were.
    Without `replace` a file that has appeared meanwhile is older, too, and none is given."""
    try:
        yield
        _commit(writers, replace)
    except FileExistsError as error:
        where = error.filename2 or error.filename
        raise PrepareError(CANNOT_WRITE, f"{where}: appeared while this ran, --force replaces it") from error
    finally:
        for writer in writers:
            writer.discard()


def _commit(writers, replace):
    replaced = []  # (path, where its old file is meanwhile, whether there was one)
    complete = False
    try:
        for writer in writers:
            path, existed = writer.path, os.path.lexists(writer.path)
            old = path.with_name(f"{path.name}.{os.getpid()}.old.tmp")
            if existed and not replace:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            replaced.append((path, old, existed))
            if existed:
                _keep(path, old)
            try:
                writer.commit(replace)
            except FileExistsError:
                replaced.pop()  # it is another's
                raise
        complete = True
    finally:  # after an interrupt, too
        with _interrupts_wait(complete):
            for path, old, existed in reversed(replaced):
                if complete:
                    old.unlink(missing_ok=True)
                else:
                    _restore(path, old, existed)


@contextlib.contextmanager
def _interrupts_wait(complete):
    """What interrupts comes at the end; it says whether the files were complete then."""
    seen = []
    handlers = {number: signal.getsignal(number) for number in INTERRUPTS}
    ours = [number for number, handler in handlers.items() if callable(handler)]
    for number in ours:
        signal.signal(number, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, handlers[number])
    if seen:
        interrupt = KeyboardInterrupt(seen[0])
        interrupt.complete = complete
        raise interrupt


def _keep(path, old):
    try:
        os.link(path, old, follow_symlinks=False)  # so that a reader finds one of the two at any time
    except OSError:  # a file system without links
        path.rename(old)


def _restore(path, old, existed):
    if not existed:
        path.unlink(missing_ok=True)
    elif os.path.lexists(old):  # else it is still in its place
        os.replace(old, path)
        old.unlink(missing_ok=True)  # a rename between two links to one file does nothing


def end_with_parent():
    """Started by the trainer, which may be killed: Linux then interrupts this process, too."""
    parent = os.environ.get("LORASCALE_PARENT")
    if str(os.getppid()) == parent:  # else a wrapper stands between
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if str(os.getppid()) != parent:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interrupted_by_signals():
    """What would end the process at once interrupts it as Ctrl-C does, so that it cleans up; if it is not ignored."""

    def interrupt(number, _):
        raise KeyboardInterrupt(number)

    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def run(name, command):
    """The exit code of `command()`, which writes files and gives what reports them; errors are one line that begins
    with `name`."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need be no text
    with interrupted_by_signals():
        return _run(name, command)


def _run(name, command):
    outcome = "nothing was written"
    try:
        end_with_parent()
        report = command()
        outcome = COMPLETE
        report()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough; the files are complete
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except PrepareError as error:
        print(f"{name}: {one_line(str(error))}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt as error:
        if getattr(error, "complete", False):  # it came while names were given
            outcome = COMPLETE
        print(f"{name}: interrupted, {outcome}", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    return 0
