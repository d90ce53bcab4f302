"""Pictures and captions to captioned image files, in the order of the listing. The result does not depend on the
number of workers."""

import dataclasses
import functools
import math

import numpy
from lorascale_data.errors import BAD_INPUT, PrepareError
from lorascale_data.files import some
from lorascale_data.report import BAD_EXAMPLES
from lorascale_data.workers import in_order
from lorascale_images import choosing, making

from . import texts
from .pixels import Preparer, Rules
from .store import Store

BATCH = 16  # pictures that a process prepares at once, but no more than
BATCH_BYTES = 8 << 20  # of pixels


class Statistics(making.Statistics):
    """What happened so far. Bad pictures are named together, unless they are many."""

    def __init__(self, skip_bad):
        super().__init__(skip_bad=True)
        self._is_fatal = not skip_bad

    def note_bad(self, place, message):
        super().note_bad(place, message)
        if self.bad == BAD_EXAMPLES:
            self.refuse_bad()

    def refuse_bad(self):
        if self.bad and self._is_fatal:
            start = "" if self.bad == 1 else f"{self.bad} bad pictures{' or more' * (self.bad == BAD_EXAMPLES)}: "
            raise PrepareError(BAD_INPUT, f"{start}{'; '.join(self.bad_examples)} (--skip-bad leaves bad pictures out)")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked for, beside the pictures."""

    rules: Rules
    attributes: dict  # of the file
    deduplicate: bool = True


class Maker:
    """Makes the files of `entries`, whose `captions` are tokenised; `sheet`: a SheetWriter or None."""

    def __init__(self, entries, captions, plan, statistics, sheet=None):
        self._entries, self._captions, self._plan, self._statistics = entries, captions, plan, statistics
        self._sheet, self._without_profile = sheet, []
        statistics.total = len(entries)

    def run(self, writers, splitter, workers, progress):
        """Writes one or two files, which do not have their names yet."""
        store = Store(writers[0].path.parent, self._plan.rules.channels)
        try:
            self._prepare(store, workers, progress)
            side = self._sides(store, splitter)
            sides = [numpy.flatnonzero(side == value) for value in range(len(writers))]
            for name, rows in zip(("training", "validation"), sides, strict=False):
                self._check_side(name, store, rows)
            for writer, rows in zip(writers, sides, strict=True):
                self._write(writer, store, rows)
            if self._sheet is not None:
                self._sheet.write(store, sides[0], [self._captions.texts[i] for i in store.sources[sides[0]]])
            self._note(store, numpy.concatenate(sides))
        finally:
            store.close()

    def _prepare(self, store, workers, progress):
        numbered = [(i, entry.path) for i, entry in enumerate(self._entries)]
        size = math.prod(self._plan.rules.buckets.resolution) * store.channels
        count = min(BATCH, max(1, BATCH_BYTES // size))
        batches = (numbered[first : first + count] for first in range(0, len(numbered), count))
        for batch, results in in_order(batches, functools.partial(Preparer, self._plan.rules), workers):
            for (source, path), result in zip(batch, results, strict=True):
                if isinstance(result, str):
                    self._statistics.note_bad(path, result)
                    continue
                self._statistics.enlarged += result.is_enlarged
                if result.is_without_profile:
                    self._without_profile.append(self._entries[source].name)
                store.append(result, source)
            self._statistics.done += len(batch)
            progress.update(self._statistics)
        self._statistics.refuse_bad()
        if not len(store):
            raise PrepareError(BAD_INPUT, f"no picture is good, the first of them: {self._statistics.bad_examples[0]}")

    def _sides(self, store, splitter):
        """As choosing.sides; pictures of regularisation are all for training."""
        side = choosing.sides(store, splitter, self._plan.deduplicate)
        is_regularisation = numpy.array([self._entries[i].is_regularisation for i in store.sources])
        side[is_regularisation & (side == choosing.VALIDATION)] = choosing.TRAINING
        self._statistics.duplicates = int(numpy.count_nonzero(side == choosing.DUPLICATE))
        if self._statistics.duplicates:
            self._note_duplicates(store)
        return side

    def _note_duplicates(self, store):
        order, starts = choosing.groups_of(store.digests)
        otherwise, sources = [], store.sources
        for group in numpy.split(order, starts[1:]):
            kept, *others = (sources[row] for row in group)
            texts_of = self._captions.texts
            otherwise += [self._entries[i].name for i in others if texts_of[i] != texts_of[kept]]
        if otherwise:
            self._statistics.notes.append(
                f"{len(otherwise):,} pictures are left out as duplicates, whose captions are others than that of the "
                f"one kept (--no-deduplicate keeps them): {some(sorted(otherwise))}"
            )

    def _check_side(self, name, store, rows):
        if all(self._entries[i].is_regularisation for i in store.sources[rows]):
            raise PrepareError(
                BAD_INPUT,
                f"no picture fell to {name}: change --validation-fraction or --seed, or give more pictures",
            )

    def _write(self, writer, store, rows):
        sources, sizes, originals = store.sources[rows], store.sizes[rows], store.originals[rows]
        buckets, bucket = numpy.unique(store.buckets[rows], axis=0, return_inverse=True)
        entries = [self._entries[i] for i in sources]
        columns = {
            "heights": sizes[:, 0],
            "widths": sizes[:, 1],
            "original_heights": originals[:, 0],
            "original_widths": originals[:, 1],
            "bucket_heights": buckets[:, 0],
            "bucket_widths": buckets[:, 1],
            "bucket": bucket.ravel(),
            "repeats": numpy.array([entry.repeats for entry in entries]),
        }
        columns = {name: values.astype("<u4") for name, values in columns.items()}
        columns["digests"] = store.digests[rows].ravel()
        columns["regularisation"] = numpy.array([entry.is_regularisation for entry in entries], numpy.uint8)
        columns |= self._captions.columns(sources)
        tables = {
            "captions": [self._captions.texts[i].encode() for i in sources],
            "names": [entry.name.encode("utf-8", "backslashreplace") for entry in entries],
        }
        writer.write(self._plan.attributes, store, rows, columns, tables)

    def _note(self, store, rows):
        """What the user should know of the pictures that are kept."""
        kept = set(store.sources[rows].tolist())
        odd = [i for i, text in enumerate(self._captions.texts) if texts.is_odd(text)]
        for indexes, message in (
            (odd, "captions have curly quotes or HTML entities (&amp;), which the tokenizer takes as they stand; "
             "plain quotes and characters are what the model knows"),
            (self._captions.long, "captions have over 75 tokens, which takes several windows or cuts them"),
        ):  # fmt: skip
            names = [self._entries[i].name for i in indexes if i in kept]
            if names:
                self._statistics.notes.append(f"{len(names):,} {message}: {some(names)}")
        if self._without_profile:
            self._statistics.notes.append(
                f"{len(self._without_profile):,} colour profiles are damaged or of another kind of colours and not "
                f"applied: {some(self._without_profile)}"
            )
