"""User errors: one line that says what is wrong, where, and the remedy, and the exit code of its
cause."""

USAGE = 64
BAD_INPUT = 65
INTERNAL = 70
CANNOT_WRITE = 73


class PrepareError(Exception):
    """Ends the program with `code` and one line on standard error."""

    def __init__(self, code, message):
        super().__init__(code, message)  # both, so that it survives the trip from a worker process
        self.code = code
        self.message = message

    def __str__(self):
        return self.message


class RecordError(Exception):
    """What is wrong with one record and the remedy; whoever catches it knows file and line."""


class ShapeError(RecordError):
    """The record is of no known kind: perhaps the file was taken for what it is not."""
