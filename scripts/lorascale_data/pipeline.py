"""Inputs to token files: reading in this process, parsing and tokenising in worker processes,
writing here.

Batches of about a MiB go out, results come back in order, and no more than a few are under way, so
memory does not grow with the input. What grows are 22 to 64 bytes for each document whose
duplicates are dropped. The result does not depend on the number of workers.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools

import numpy

from . import records, tokenizing
from .digest_set import DigestSet
from .errors import PrepareError, RecordError, ShapeError
from .keys import Unused
from .sources import Source
from .tables import Broken
from .workers import in_order

BATCH_BYTES = 1 << 20
BATCH_RECORDS = 8192
COMPARED = 20  # conversations in which a preset and the model's own template are compared
DIGEST_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the workers need to know."""

    tokenizer: tokenizing.TokenizerOptions
    rules: records.Rules = records.Rules()
    max_length: int | None = None
    skip_bad: bool = False
    max_records: int | None = None  # of each file the first ones


@dataclasses.dataclass
class Batch:
    """Raw records of one file."""

    number: int  # 0, 1, ...
    source: int
    is_text: bool
    records: list  # of (line, bytes)
    position: int  # bytes read from all the files, for the progress bar


@dataclasses.dataclass
class Result:
    """The documents of a batch."""

    tokens: numpy.ndarray
    lengths: numpy.ndarray  # [documents]
    mask: numpy.ndarray | None
    digests: bytes  # 16 a document
    record_digests: bytes  # 16 a document: that of the first document of its record
    counts: collections.Counter  # empty, unwanted, truncated, joined, specials, without_target, chat
    # Of (line, message, whether it is of no known kind); the first ends the run unless they are
    # skipped.
    bad: list
    unused: Unused  # keys of records that nothing used
    differences: list  # of the first conversations: (preset's, model's own) texts


class Worker:
    """Turns batches into results. One in each process."""

    def __init__(self, settings):
        self._settings = settings
        self._tokenizer = tokenizing.load(settings.tokenizer)

    def process(self, batch):
        counts, bad, unused = collections.Counter(), [], Unused()
        documents, firsts = [], []  # the first document of each one's record
        template = self._settings.rules.template
        if template is not None:
            template.compared[:] = [COMPARED if batch.number == 0 else 0]
        for line, raw in batch.records:
            try:
                found = self._parse(batch, line, raw, unused)
            except RecordError as error:
                bad.append((line, str(error), isinstance(error, ShapeError)))
                if not self._settings.skip_bad:
                    break
                continue
            if found is None:
                counts["unwanted"] += 1
                continue
            counts["empty"] += not found
            for kind in ("chat", "answer"):
                counts[kind] += any(document.kind == kind for document in found)
            for document in found:
                counts.update(document.notes)
            documents += found
            firsts += [len(documents) - len(found)] * len(found)
        if template is not None and batch.number == 0:
            counts["compared"] = COMPARED - template.compared[0]
        encoded = self._tokenizer.encode(documents) if documents else []
        cut = [self._cut(each, counts) for each in encoded]
        kept = [(i, each) for i, each in enumerate(cut) if each is not None]
        digests = [digest_of(document) for document in documents]
        masked = any(each.mask is not None for _, each in kept)
        return Result(
            tokens=self._joined([each.ids for _, each in kept], self._tokenizer.dtype),
            lengths=numpy.array([len(each.ids) for _, each in kept], numpy.int64),
            mask=self._joined([mask_of(each) for _, each in kept], numpy.uint8) if masked else None,
            digests=b"".join(digests[i] for i, _ in kept),
            record_digests=b"".join(digests[firsts[i]] for i, _ in kept),
            counts=counts,
            bad=bad,
            unused=unused,
            differences=template.compared[1:] if template is not None else [],
        )

    def _parse(self, batch, line, raw, unused):
        if isinstance(raw, Broken):
            raise RecordError(raw)
        if batch.is_text:
            return records.parse_text(raw)
        documents, left = records.parse_json(raw, self._settings.rules)
        for name, value in left:
            unused.add(name, value, line)
        return documents

    def _cut(self, encoded, counts):
        """The document as it is stored, cut to the longest length; None where nothing is to be
        learnt."""
        longest = self._settings.max_length
        counts["joined"] += encoded.joined
        counts["specials"] += encoded.specials
        counts["merged"] += encoded.merged
        counts["begun"] += encoded.begun
        counts["ended"] += encoded.ended
        if longest is not None and len(encoded.ids) > longest:
            counts["truncated"] += 1
            encoded.ids = encoded.ids[:longest]
            if encoded.mask is not None:
                encoded.mask = encoded.mask[:longest]
        # A document's first token is nobody's target.
        if len(encoded.ids) < 2 or (encoded.mask is not None and not encoded.mask[1:].any()):
            counts["without_target"] += 1
            return None
        return encoded

    @staticmethod
    def _joined(arrays, dtype):
        return (
            numpy.concatenate(arrays, dtype=dtype, casting="unsafe")
            if arrays
            else numpy.empty(0, dtype)
        )


def mask_of(encoded):
    return numpy.ones(len(encoded.ids), numpy.uint8) if encoded.mask is None else encoded.mask


def digest_of(document):
    """Equal for equal documents: kind, texts and what of them is target."""
    digest = hashlib.blake2b(document.kind.encode(), digest_size=DIGEST_BYTES)
    for segment in document.segments:
        text = segment.text.encode()
        digest.update(b"%d:%d:" % (segment.target, len(text)))
        digest.update(text)
    return digest.digest()


class Pipeline:
    """Runs everything. `writers` is (training, validation or None); `statistics` counts what
    happens."""

    def __init__(self, paths, requested_format, split, settings, statistics, quotes=True):
        self._settings = settings
        self._statistics = statistics
        columns = frozenset(key for _, key in settings.rules.columns)
        self._sources = [
            Source(path, requested_format, split, columns, settings.rules.ignored, quotes)
            for path in paths
        ]
        for source in self._sources:
            statistics.notes += source.notes
        statistics.bytes_total = sum(source.size for source in self._sources)

    def run(self, writers, splitter, deduplicate, workers, progress):
        seen = DigestSet() if deduplicate else None
        self._load_template()
        make_worker = functools.partial(Worker, self._settings)
        for batch, result in in_order(self._batches(), make_worker, workers):
            self._note_bad(batch, result.bad)
            self._statistics.counts += result.counts
            self._statistics.differences += result.differences
            self._statistics.unused.update(result.unused, self._sources[batch.source].place)
            self._write(result, writers, splitter, seen)
            self._statistics.bytes_read = batch.position
            progress.update(self._statistics)
        for source in self._sources:
            if source.unused is not None:
                self._statistics.unused.update(source.unused, source.place)

    def _write(self, result, writers, splitter, seen):
        count = len(result.lengths)
        side = numpy.zeros(count, numpy.int8)  # 0 training, 1 validation, -1 duplicate
        for i in range(count):
            digest = result.digests[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES]
            if seen is not None and not seen.add(digest):
                side[i] = -1
            elif splitter is not None:
                record = result.record_digests[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES]
                side[i] = splitter.is_validation(record)
        self._statistics.duplicates += int(numpy.count_nonzero(side < 0))
        for value, writer in enumerate(writers):
            chosen = side == value
            lengths = result.lengths[chosen]
            if not len(lengths):
                continue
            everything = len(lengths) == count
            rows = slice(None) if everything else numpy.repeat(chosen, result.lengths)
            mask = None if result.mask is None else result.mask[rows]
            writer.append(result.tokens[rows], lengths, mask)
            self._statistics.add_lengths(lengths)

    def _note_bad(self, batch, bad):
        source = self._sources[batch.source]
        for line, message, is_unknown in bad:
            if not self._settings.skip_bad:
                hint = f"; {source.hint}" if is_unknown and source.hint else ""
                raise source.fail(line, f"{message} (--skip-bad leaves bad records out{hint})")
            self._statistics.note_bad(f"{source.place(line)}: {message}")

    def _batches(self):
        done, number = 0, 0
        for index, source in enumerate(self._sources):
            waiting, size = [], 0
            is_text = source.container == "text"
            for line, raw in itertools.islice(source.records(), self._settings.max_records):
                waiting.append((line, raw))
                size += len(raw)
                if size >= BATCH_BYTES or len(waiting) >= BATCH_RECORDS:
                    yield Batch(number, index, is_text, waiting, done + source.position)
                    waiting, size, number = [], 0, number + 1
            done += source.size
            source.close()
            if waiting:
                yield Batch(number, index, is_text, waiting, done)
                number += 1

    def _load_template(self):
        """Here once, so that workers need not: they are forks of this process."""
        renderer = self._settings.rules.template
        for template in (renderer.template, renderer.own) if renderer is not None else ():
            if hasattr(template, "load") and any(source.container != "text" for source in self._sources):
                try:
                    template.load()
                except PrepareError:
                    pass  # it is said if a conversation needs it
