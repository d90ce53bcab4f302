"""Pictures to image files: listed here, decoded in worker processes, chosen and written here. The result
does not depend on the number of workers."""

import dataclasses
import functools
import math

import numpy
from lorascale_data.errors import BAD_INPUT, PrepareError
from lorascale_data.files import some
from lorascale_data.report import Bad
from lorascale_data.workers import in_order

from . import choosing, decoding, listing
from .scratch import Scratch

BATCH = 32  # pictures that a process decodes at once, but no more than
BATCH_BYTES = 8 << 20  # of pixels: several batches are in memory at a time, whatever the pictures' size


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is asked for."""

    shape: decoding.Shape
    known_classes: list[str] | None = None  # their names and order, if they are given
    deduplicate: bool = True
    skip_bad: bool = False


class Statistics(Bad):
    """What happened so far."""

    def __init__(self, skip_bad):
        super().__init__()
        self._skip_bad = skip_bad
        self.total = self.done = self.enlarged = self.duplicates = self.contradicted = 0
        self.notes = []

    @property
    def share(self):
        return self.done / max(1, self.total)

    def progress(self, seconds):
        return f"{self.done:,} pictures, {self.done / max(seconds, 1e-9):,.0f} a second"

    def note_bad(self, place, message):
        if not self._skip_bad:
            raise PrepareError(BAD_INPUT, f"{place}: {message} (--skip-bad leaves bad pictures out)")
        super().note_bad(f"{place}: {message}")


class Decoder:
    """What works in the other processes."""

    def __init__(self, shape):
        self._shape = shape

    def process(self, batch):
        """For each (index, path) what `decode` gives, or what is wrong with it."""
        results = []
        for _, path in batch:
            try:
                results.append(decoding.decode(path, self._shape))
            except decoding.PictureError as error:
                results.append(str(error))
        return results


class Maker:
    """Makes the files of a listing. `statistics` counts what happens."""

    def __init__(self, found, rules, statistics):
        self._listing, self._rules, self._statistics = found, rules, statistics
        self.classes = rules.known_classes or found.classes
        statistics.notes += found.notes
        statistics.total = len(found.pictures)
        self._check_classes()

    def run(self, writers, splitter, workers, progress):
        """Writes one or two files, which do not have their names yet."""
        scratch = Scratch(writers[0].path.parent)
        try:
            self._decode(scratch, workers, progress)
            side = self._sides(scratch, splitter)
            labels = self._labels(scratch, side)
            sides = [numpy.flatnonzero(side == value) for value in range(len(writers))]
            for name, rows in zip(("training", "validation"), sides, strict=False):
                self._check_side(name, labels[rows])
            for writer, rows in zip(writers, sides, strict=True):
                pictures = (self._listing.pictures[i] for i in scratch.sources[rows])
                names = [picture.name.encode("utf-8", "backslashreplace") for picture in pictures]
                classes = [name.encode() for name in self.classes]
                writer.write(scratch.shape, scratch.pixels(), rows, labels[rows], classes, names)
        finally:
            scratch.close()

    def _check_classes(self):
        """What is wrong with the classes, as far as it is known before a picture was opened."""
        source, known = self._listing.source, self._rules.known_classes
        if len(self._listing.classes) > listing.MAX_CLASSES:
            raise PrepareError(BAD_INPUT, f"{source}: has over {listing.MAX_CLASSES:,} classes, merge some")
        if known is not None:
            strange = listing.sorted_classes(set(self._listing.classes) - set(known))
            if strange:
                raise PrepareError(
                    BAD_INPUT,
                    f"{source}: has classes that --classes-from does not know: {some(strange)}; it knows "
                    f"{some(known)}",
                )
            return
        filled = {picture.label for picture in self._listing.pictures}
        empty = [name for name in self.classes if name not in filled]
        if empty and filled and not self._rules.skip_bad:
            raise PrepareError(
                BAD_INPUT,
                f"{source}: classes without a picture: {some(empty)}; remove their folders "
                f"(--skip-bad leaves them out)",
            )
        self._check_two(sorted(filled))

    def _check_two(self, classes):
        source = self._listing.source
        if not classes and self._statistics.contradicted:
            raise PrepareError(
                BAD_INPUT,
                f"{source}: no picture is left: each that is good is equal to one of another class; give equal "
                f"pictures one class",
            )
        if not classes and self._statistics.bad == 0:
            raise PrepareError(BAD_INPUT, f"{source}: holds no picture, check the path and the names of the files")
        if not classes:
            raise PrepareError(
                BAD_INPUT, f"{source}: no picture is good, the first of them: {self._statistics.bad_examples[0]}"
            )
        if len(classes) == 1:
            raise PrepareError(
                BAD_INPUT, f"{source}: all pictures are of class {classes[0]}; to learn classes takes two or more"
            )

    def _batches(self, scratch):
        """Of (index, path). Where pictures stay as large as they are, one at a time until the first tells the size."""
        numbered = [(i, picture.path) for i, picture in enumerate(self._listing.pictures)]
        wanted = self._rules.shape
        first = 0
        while first < len(numbered):
            shape = (wanted.channels, *wanted.size) if wanted.size else scratch.shape
            count = min(BATCH, max(1, BATCH_BYTES // math.prod(shape))) if shape else 1
            yield numbered[first : first + count]
            first += count

    def _decode(self, scratch, workers, progress):
        pictures, indexes = self._listing.pictures, {name: i for i, name in enumerate(self.classes)}
        make_decoder = functools.partial(Decoder, self._rules.shape)
        for batch, results in in_order(self._batches(scratch), make_decoder, workers):
            for (source, _), result in zip(batch, results, strict=True):
                result = self._checked(result, scratch)
                if isinstance(result, str):
                    self._statistics.note_bad(self._listing.place(pictures[source]), result)
                    continue
                pixels, enlarged = result
                self._statistics.enlarged += enlarged
                scratch.append(pixels, indexes[pictures[source].label], source)
            self._statistics.done += len(batch)
            progress.update(self._statistics)
        if not len(scratch):
            self._check_two([])

    def _checked(self, result, scratch):
        """The result, or what is wrong with it where pictures must be of one size as they are."""
        if isinstance(result, str) or scratch.shape is None or result[0].shape == scratch.shape:
            return result
        (_, height, width), (_, first_height, first_width) = result[0].shape, scratch.shape
        return f"is {width} x {height}, where the first picture is {first_width} x {first_height}; give --size"

    def _sides(self, scratch, splitter):
        if self._rules.deduplicate and not self._rules.skip_bad:
            pair = choosing.contradiction(scratch.labels, *choosing.groups_of(scratch.digests))
            if pair is not None:
                self._refuse(*(self._listing.pictures[scratch.sources[i]] for i in pair))
        side = choosing.sides(scratch, splitter, self._rules.deduplicate)
        self._statistics.duplicates = int(numpy.count_nonzero(side == choosing.DUPLICATE))
        self._statistics.contradicted = int(numpy.count_nonzero(side == choosing.CONTRADICTED))
        if not (side >= 0).any():
            self._check_two([])
        return side

    def _refuse(self, one, other):
        raise PrepareError(
            BAD_INPUT,
            f"{self._listing.place(one)} is of class {one.label}, and the same pixels at "
            f"{self._listing.place(other)} of class {other.label}; remove the wrong one (--skip-bad leaves both out)",
        )

    def _labels(self, scratch, side):
        """u16 [pictures]: the classes that are left, from which those without a picture are gone."""
        labels = scratch.labels
        counts = numpy.bincount(labels[side >= 0], minlength=len(self.classes))
        empty = [name for name, count in zip(self.classes, counts, strict=True) if not count]
        if self._rules.known_classes is not None:
            if empty:
                self._statistics.notes.append(f"{len(empty):,} classes have no picture: {some(empty)}")
            return labels
        if empty:
            self._statistics.notes.append(f"{len(empty):,} classes without a picture are left out: {some(empty)}")
        self.classes = [name for name, count in zip(self.classes, counts, strict=True) if count]
        self._check_two(self.classes)
        return (numpy.cumsum(counts > 0) - 1).astype(numpy.uint16)[labels]

    def _check_side(self, name, labels):
        if not len(labels):
            raise PrepareError(
                BAD_INPUT,
                f"no picture fell to {name}: change --validation-fraction or --seed, or give more pictures",
            )
        if self._rules.known_classes is not None:
            return  # said already
        missing = sorted(set(range(len(self.classes))) - set(labels.tolist()))
        if missing:
            self._statistics.notes.append(
                f"{len(missing):,} classes have no picture in {name}: {some([self.classes[i] for i in missing])}"
            )
