"""Pictures to captions, batch by batch, saved after each."""

from lorascale_data.command_line import one_line
from lorascale_data.errors import BAD_INPUT, PrepareError
from lorascale_data.report import Bad, clock_time, left_out
from lorascale_images.decoding import PictureError

from . import models, pictures
from .texts import flat

SHOWN = 3  # captions, in the summary


class Statistics(Bad):
    """What happened so far."""

    def __init__(self, skip_bad):
        super().__init__()
        self._skip_bad = skip_bad
        self.total = self.done = self.written = self.empty = self.kept = self.beside = 0
        self.examples = []
        self.notes = []

    @property
    def share(self):
        return self.done / max(1, self.total)

    def progress(self, seconds):
        return f"{self.done:,} of {self.total:,} pictures, {self.done / max(seconds, 1e-9):.1f} a second"

    def note_bad(self, place, message):
        if not self._skip_bad:
            raise PrepareError(BAD_INPUT, f"{place}: {message} (--skip-bad leaves bad pictures out)")
        super().note_bad(f"{place}: {message}")


class Labeller:
    """Captions the pictures of a folder. `how` gives the digest of what decides on a picture's caption."""

    def __init__(self, folder, captions, how, statistics):
        self._folder, self._captions, self._how, self._statistics = folder, captions, how, statistics

    def plan(self):
        """The names of the pictures that are to be captioned."""
        found, statistics = pictures.find(self._folder), self._statistics
        if (other := self._folder / "metadata.jsonl").exists():
            raise PrepareError(
                BAD_INPUT, f"{other}: has captions, too; turn it into metadata.csv (file_name,text), or move it away"
            )
        beside = {name for name in found if self._has_caption_file(name)}
        todo = [name for name in found if name not in beside and self._captions.wants(name, self._how(name))]
        statistics.total, statistics.beside = len(todo), len(beside)
        statistics.kept = len(found) - len(todo) - len(beside)
        self._note(found, beside)
        return todo

    def run(self, todo, captioner, prefix, size, progress):
        """`captioner`: a Captioner; `size`: pictures at once."""
        for batch in self._batches(todo, captioner, size):
            texts = captioner.captions([prepared for _, prepared in batch])
            made = {}
            for (name, _), text in zip(batch, texts, strict=True):
                if caption := ", ".join(filter(None, (prefix, flat(text)))):
                    made[name] = (caption, self._how(name))
            self._save(made)
            self._statistics.empty += len(batch) - len(made)
            self._statistics.done += len(batch)
            progress.update(self._statistics)
        if todo and self._statistics.bad == len(todo) and not self._statistics.kept:
            raise PrepareError(
                BAD_INPUT,
                f"{self._folder}: no picture is good, the first of them: {self._statistics.bad_examples[0]}",
            )

    def _has_caption_file(self, name):
        """A row of the table is nearer to what the user wants than a file beside."""
        return not self._captions.has(name) and pictures.has_caption_file(self._folder, name)

    def _note(self, found, beside):
        notes, table = self._statistics.notes, self._captions.path
        empty = sum(map(self._captions.is_empty, found))
        if empty:
            notes.append(f"{table}: {empty:,} pictures have an empty text, which stays; remove the rows to fill them")
        if beside:
            notes.append(
                f"{self._folder}: {len(beside):,} pictures have captions in files beside them, such as {min(beside)}, "
                f"and get none; prepare_images.py reads no such files beside {table.name}: put the captions into it"
            )
        unknown = self._captions.unknown({pictures.key_of(name) for name in found})
        if unknown:
            notes.append(
                f"{table}: {len(unknown):,} rows name no picture of the folder, such as {unknown[0]}; they stay"
            )

    def _batches(self, todo, captioner, size):
        """Of (name, what the model takes). Bad pictures take no place in them: what else is in a batch, and so its
        last bits, does not depend on where an earlier run ended."""
        batch = []
        for name in todo:
            try:
                batch.append((name, captioner.prepare(pictures.load(self._folder, name))))
            except PictureError as error:
                self._statistics.note_bad(self._folder / name, str(error))
                self._statistics.done += 1
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _save(self, made):
        if made:
            self._statistics.written += self._captions.save(made)
            room = SHOWN - len(self._statistics.examples)
            self._statistics.examples += [f"{name}: {text}" for name, (text, _) in list(made.items())[:room]]


class Guarded:
    """A Captioner whose errors are lines for the user."""

    def __init__(self, captioner, folder, device, batch):
        self._captioner, self._facts = captioner, (folder, device, batch)

    def prepare(self, image):
        return self._guarded(self._captioner.prepare, image)

    def captions(self, batch):
        return self._guarded(self._captioner.captions, batch)

    def _guarded(self, work, argument):
        try:
            return work(argument)
        except (MemoryError, RuntimeError, ValueError, IndexError) as error:
            raise models.refusal(error, *self._facts) from error


def summary(statistics, path, seconds):
    lines = [f"{'captions:':12}{statistics.written:,} written, {statistics.kept:,} there already -> {path}"]
    lines += [f"{'':12}  {example}" for example in statistics.examples]
    dropped = {
        "bad": statistics.bad,
        "for which the model has no words": statistics.empty,
        "with a caption file beside them (.txt, .caption)": statistics.beside,
    }
    lines += left_out(dropped, statistics)
    rate = statistics.done / max(seconds, 1e-9)
    lines.append(f"{'time:':12}{clock_time(seconds)} ({rate:,.1f} pictures a second)")
    return list(map(one_line, lines))
