"""Parquet and Arrow files, row by row as JSON records. Batches of some hundred rows are in memory,
never the file."""

import json
import math

from . import stream as streams
from .errors import BAD_INPUT, PrepareError
from .keys import KNOWN, MAX_COLUMNS, Unused, repeated
from .signatures import ARROW_STREAM, EXPORT, PARQUET

BATCH_BYTES = 4 << 20  # about as much of a Parquet file is decoded at once
BATCH_ROWS = 1024
SLICE_ROWS = 128  # become Python objects at once


class Table:
    """One file; `position` is how many of its `size` bytes were consumed, by its rows; `unused`
    counts the columns that no record shape knows, by their values."""

    def __init__(self, path, size, kind, wanted=frozenset(), ignored=frozenset()):
        self.path, self.size, self.position = path, size, 0
        self.unused = Unused()
        self._kind = kind
        self._wanted, self._ignored = KNOWN | wanted, ignored
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.ipc
            import pyarrow.parquet
        except ImportError as error:
            raise self._refusal("needs pyarrow, which is not installed") from error
        self._arrow = pyarrow
        self._errors = (pyarrow.ArrowException, OSError, ValueError, MemoryError)
        try:
            self._open()
        except self._errors as error:
            raise self._damaged(error) from error

    def close(self):
        self._source.close()

    def records(self):
        """Yields (row number from 1, bytes)."""
        row = 0
        batches = self._batches()
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)  # offsets and UTF-8 of a file that nobody vouches for
                self._count_unused(batch, row)
                step = self._rows_of_a_slice(batch, row)
                for start in range(0, batch.num_rows, step):
                    part = batch.slice(start, step)
                    for number, record in enumerate(self._of_slice(part), row + start + 1):
                        if len(record) > streams.MAX_RECORD_BYTES:
                            raise self._too_long(number)
                        yield number, record
            except self._errors as error:
                raise self._damaged(error) from error
            row += batch.num_rows

    def place(self, row):
        return f"{self.path}: row {row}"

    def _open(self):
        if self._kind == PARQUET:
            schema = self._arrow.parquet.read_schema(self.path)
            # A value that is stored once for many rows stays one value in memory.
            once = [field.name for field in schema if self._is_text(field.type)]
            self._source = self._arrow.parquet.ParquetFile(
                self.path, read_dictionary=once, buffer_size=streams.READ_BYTES, pre_buffer=False
            )
            names = schema.names
        else:
            self._source = self._arrow.memory_map(str(self.path))
            ipc = self._arrow.ipc
            if self._kind == ARROW_STREAM:
                self._check_end()
                self._reader = ipc.open_stream(self._source)
            else:
                self._reader = ipc.open_file(self._source)
            names = self._reader.schema.names
        if len(names) > MAX_COLUMNS:
            raise self._refusal(f"has over {MAX_COLUMNS:,} columns")
        twice = repeated(names)
        if twice is not None:
            raise self._refusal(f"has two columns named {twice[:40]!r}")
        self._names = names

    def _check_end(self):
        """A stream ends with a length of 0; without that it is cut short."""
        self._source.seek(max(0, self.size - 4))
        if self._source.read(4) != b"\0\0\0\0":
            raise ValueError("it does not end")
        self._source.seek(0)

    def _batches(self):
        if self._kind == PARQUET:
            return self._parquet_batches()
        if self._kind == ARROW_STREAM:
            return self._stream_batches()
        return self._file_batches()

    def _parquet_batches(self):
        metadata = self._source.metadata
        read = [name for name in self._names if name not in self._ignored]
        groups = range(metadata.num_row_groups)
        held = sum(metadata.row_group(i).total_byte_size for i in groups)
        rows = BATCH_BYTES / max(1.0, held / max(1, metadata.num_rows))
        for name in set(self._names) - set(read):
            self.unused.add(name, "(not read)", 1, metadata.num_rows)
        done = 0
        for batch in self._source.iter_batches(
            batch_size=max(1, min(BATCH_ROWS, math.ceil(rows))), columns=read, use_threads=False
        ):
            yield batch
            done += batch.num_rows
            self.position = self.size * done // max(1, metadata.num_rows)

    def _stream_batches(self):
        for batch in self._reader:
            yield batch
            self.position = self._source.tell()

    def _file_batches(self):
        count = self._reader.num_record_batches
        for i in range(count):
            yield self._reader.get_batch(i)
            self.position = self.size * (i + 1) // count

    def _is_read(self, name):
        return name in self._wanted and name not in self._ignored

    def _count_unused(self, batch, rows_before):
        for name in batch.schema.names:
            if self._is_read(name):
                continue
            column = batch.column(name)
            count = len(column) - column.null_count
            if count:
                first = column.is_valid().index(True).as_py()
                self.unused.add(name, self._example(column[first]), rows_before + first + 1, count)

    def _example(self, scalar):
        try:
            return _plain(scalar.as_py())
        except self._errors:  # nanoseconds without pandas, say
            return f"({scalar.type})"

    def _rows_of_a_slice(self, batch, rows_before):
        """So few that a long text that many rows share is not copied often."""
        longest = 1
        for name in batch.schema.names:
            column = batch.column(name)
            values = column.dictionary if self._arrow.types.is_dictionary(column.type) else column
            if self._is_read(name) and self._is_text(values.type) and len(values):
                lengths = self._arrow.compute.binary_length(values)
                longest = max(longest, self._arrow.compute.max(lengths).as_py() or 0)
        if longest > streams.MAX_RECORD_BYTES:
            raise self._too_long(rows_before + 1, " or one that follows")
        return max(1, min(SLICE_ROWS, BATCH_BYTES // longest))

    def _is_text(self, type_):
        types = self._arrow.types
        return any(
            check(type_)
            for check in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        )

    def _of_slice(self, part):
        names = [name for name in part.schema.names if self._is_read(name)]
        columns = [part.column(name).to_pylist(maps_as_pydicts="lossy") for name in names]
        for values in zip(*columns, strict=True) if names else [()] * part.num_rows:
            record = {name: _present(value) for name, value in zip(names, values, strict=True)}
            yield json.dumps(record, ensure_ascii=False, default=_plain).encode()

    def _too_long(self, row, more=""):
        limit = streams.MAX_RECORD_BYTES >> 20
        return PrepareError(
            BAD_INPUT, f"{self.place(row)}{more}: one record has over {limit} MiB; cut it up"
        )

    def _refusal(self, message):
        name = "a Parquet file" if self._kind == PARQUET else "an Arrow file"
        export = EXPORT[self._kind].replace("IN", str(self.path), 1)
        return PrepareError(BAD_INPUT, f"{self.path}: is {name} and {message}; {export}")

    def _damaged(self, error):
        if isinstance(error, PrepareError):
            return error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        return self._refusal(f"cannot be read ({reason}): damaged or cut short? Fetch it again")


def _present(value):
    """Without what is null in objects: a table fills up the fields that a record does not have."""
    if isinstance(value, dict):
        return {key: _present(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_present(each) for each in value]
    return value


def _plain(value):
    """What JSON has no form for: text in bytes as text, other bytes as their number."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"bytes": len(value)}
    return value if isinstance(value, str | int | float | list | dict | None) else str(value)
