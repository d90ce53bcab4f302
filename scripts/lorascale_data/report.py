"""Progress while the data is prepared, and the summary that helps to choose a sequence length."""

import bisect
import collections
import json
import os
import random
import sys
import time

from .keys import Unused

BAD_EXAMPLES = 10
SHOWN_KEYS = 12  # unused keys that the summary names
SHOWN_NOTES = 12
SAMPLE = 65_536  # documents whose lengths stand for all
ROW_LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
LONGEST_SUGGESTION = (
    2048  # where documents are longer than rows anyway, longer rows only cost memory
)


class Bad:
    """What is bad of the input, where that is skipped: how much, and the first of it."""

    def __init__(self):
        self.bad, self.bad_examples = 0, []

    def note_bad(self, message):
        self.bad += 1
        if len(self.bad_examples) < BAD_EXAMPLES:
            self.bad_examples.append(message)


class Statistics(Bad):
    """What happened so far. Lengths are kept as a histogram and a fair sample (Vitter's algorithm
    R)."""

    def __init__(self):
        super().__init__()
        self.bytes_total = self.bytes_read = 0
        self.counts = collections.Counter()
        self.duplicates = 0
        self.differences = []  # (preset's, model's own) texts of first conversations
        self.unused = Unused()
        self.notes = []  # how inputs were read
        self.documents = self.tokens = self.longest = 0
        self.histogram = collections.Counter()  # bit length of (length - 1) -> documents
        self.sample = []
        self._random = random.Random(0)

    def add_lengths(self, lengths):
        for length in lengths.tolist():
            self.documents += 1
            self.tokens += length
            self.longest = max(self.longest, length)
            self.histogram[(length - 1).bit_length()] += 1
            if len(self.sample) < SAMPLE:
                self.sample.append(length)
            else:
                place = self._random.randrange(self.documents)
                if place < SAMPLE:
                    self.sample[place] = length

    @property
    def share(self):
        """What of the work is done."""
        return self.bytes_read / max(1, self.bytes_total)

    def progress(self, seconds):
        rate = self.bytes_read / max(seconds, 1e-9)
        return f"{self.documents:,} documents, {self.tokens:,} tokens, {rate / 1e6:.1f} MB/s"


class Progress:
    """One line on standard error, rewritten a few times a second; silent where that is no
    terminal, but for a program that asks for lines (LORASCALE_PROGRESS=lines): one in 5 seconds."""

    def __init__(self, stream=None, clock=time.monotonic):
        self._stream = stream or sys.stderr
        self._clock = clock
        self._begin = self._last = clock()
        self._shown = False
        self._lines = os.environ.get("LORASCALE_PROGRESS") == "lines"
        self._quiet = not self._lines and not self._stream.isatty()

    def update(self, statistics):
        now = self._clock()
        if self._quiet or now - self._last < (5 if self._lines else 0.25):
            return
        self._last, self._shown = now, not self._lines
        share, seconds = statistics.share, now - self._begin
        left = seconds * (1 - share) / share if share > 0 else 0
        bar = ("#" * int(24 * share)).ljust(24, ".")
        facts = f"{share:4.0%}  {statistics.progress(seconds)}, {clock_time(left)} left"
        self._stream.write(f"progress: {facts.lstrip()}\n" if self._lines else f"\r[{bar}] {facts}\033[K")
        self._stream.flush()

    def close(self):
        if self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
            self._shown = False


def clock_time(seconds):
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def packing_efficiency(lengths, row_length, open_rows=256):
    """Share of the rows that is filled when documents are packed as the trainer does it: cut into
    pieces of a row, each piece to the open row that it fills best."""
    rows, free = 0, []  # free: room in the open rows, ascending
    for length in lengths:
        while length > 0:
            piece = min(length, row_length)
            length -= piece
            place = bisect.bisect_left(free, piece)
            if place < len(free):
                room = free.pop(place) - piece
            else:
                rows, room = rows + 1, row_length - piece
            if room:
                bisect.insort(free, room)
            if len(free) > open_rows:
                free.pop(0)
    return sum(lengths) / (rows * row_length) if rows else 0.0


def padding_efficiency(lengths, row_length):
    """The same without packing: one document a row, cut or padded."""
    return sum(min(length, row_length) for length in lengths) / (row_length * max(1, len(lengths)))


def suggested_row_length(lengths):
    """The smallest row that holds 95 % of the documents whole, but no longer than is of use."""
    ordered = sorted(lengths)
    wanted = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return next(row for row in ROW_LENGTHS if row >= wanted or row == LONGEST_SUGGESTION)


def summary(statistics, writers, seconds):
    """The lines of the summary."""
    lines = []
    for name, writer in zip(("training", "validation"), writers, strict=False):
        share = 100 * writer.targets / writer.tokens
        lines.append(
            f"{name + ':':12}{writer.documents:,} documents, {writer.tokens:,} tokens, "
            f"{share:.4g} % of them targets -> {writer.path}"
        )
    dropped = {
        "duplicates": statistics.duplicates,
        "empty": statistics.counts["empty"],
        "bad": statistics.bad,
        "marked as not to be learnt": statistics.counts["unwanted"],
        "too short or cut too short to hold a target": statistics.counts["without_target"],
    }
    lines += left_out(dropped, statistics)
    lines += _unused_keys(statistics.unused.found)
    if statistics.counts["truncated"]:
        lines.append(
            f"{'cut:':12}{statistics.counts['truncated']:,} documents longer than --max-length"
        )
    lines += _lengths(statistics)
    rate = statistics.bytes_total / max(seconds, 1e-9) / 1e6
    lines.append(f"{'time:':12}{clock_time(seconds)} ({rate:.1f} MB/s of input)")
    return lines


def left_out(counts, bad):
    """The lines of what is not in the files: {name: count}, and examples of what was Bad."""
    found = [f"{count:,} {name}" for name, count in counts.items() if count]
    lines = [f"{'left out:':12}{', '.join(found) or 'nothing'}"]
    lines += [f"{'':12}  {example}" for example in bad.bad_examples]
    if bad.bad > len(bad.bad_examples):
        lines.append(f"{'':12}  and {bad.bad - len(bad.bad_examples):,} more")
    return lines


def _unused_keys(found):
    """What the records carry that no document holds."""
    lines = []
    for name, (count, example, place) in list(found.items())[:SHOWN_KEYS]:
        label = "" if lines else "not used:"
        lines.append(f"{label:12}{name} of {count:,} records, such as {example} at {place}")
    if len(found) > SHOWN_KEYS:
        lines.append(f"{'':12}and {len(found) - SHOWN_KEYS} more keys")
    return lines


def _lengths(statistics):
    row = suggested_row_length(statistics.sample)
    mean = statistics.tokens / statistics.documents
    lines = [f"{'lengths:':12}mean {mean:.1f}, longest {statistics.longest:,} tokens"]
    most = max(statistics.histogram.values())
    for bits in range(min(statistics.histogram), max(statistics.histogram) + 1):
        count = statistics.histogram[bits]
        bar = "#" * round(32 * count / most)
        lines.append(f"{'':12}  <= {1 << bits:>10,} {count:>12,}  {bar}".rstrip())
    packed, padded = (
        packing_efficiency(statistics.sample, row),
        padding_efficiency(statistics.sample, row),
    )
    lines.append(
        f"{'suggested:':12}sequence_length: {row} (about {packed:.0%} of it filled with packing: "
        f"true, "
        f"{padded:.0%} without)"
    )
    return lines


def _first_of(notes):
    """Not a line for each file of a large folder."""
    more = len(notes) - SHOWN_NOTES
    return notes[:SHOWN_NOTES] + [f"and {more:,} more files in this way"] * (more > 0)


def warnings(statistics, chosen, end_id=None, end_text="", model=None):
    """What the user should know about how the text became tokens; `chosen` is chat_options.Chosen,
    `end_id` and `end_text` the token that ends the answers of chats, `model` the folder whose
    tokenizer it is."""
    counts, lines = statistics.counts, _first_of(statistics.notes)
    if not chosen.is_found and not counts["chat"]:
        lines.append(
            f"no document used --chat-template {chosen.name}: they are plain text. Chats are JSON "
            f"Lines, CSV or Parquet with messages, or prompt and completion"
        )
    if chosen.is_found and chosen.template is not None and counts["answer"]:
        lines.append(
            f"{counts['answer']:,} questions and answers are plain text, without the model's chat template "
            f"and with nothing between them but what the data has; --chat-template own writes them as chats"
        )
    if counts["chat"] and hasattr(chosen.template, "notes"):
        lines += chosen.template.notes()
    if end_id is not None:
        lines += _unknown_end(end_id, end_text, model)
    if statistics.differences:
        lines.append(_difference(statistics, chosen.name))
    lines += [text.format(counts[key]) for key, text in _COUNTED.items() if counts[key]]
    if counts["joined"]:
        lines.append(
            f"in {counts['joined']:,} documents the tokenizer merges the end of a prompt with the "
            f"start "
            f"of its answer; the parts were tokenised separately. End prompts with no space, or "
            f"with a "
            f"line break, to avoid it"
        )
    if counts["specials"]:
        lines.append(
            f"{counts['specials']:,} documents spell a special token of the tokenizer in their "
            f"text; it "
            f"was read as that token"
        )
    return lines


_COUNTED = {
    "begun": "{:,} documents begin with the begin-of-text token by themselves and got no second one",
    "ended": "{:,} documents or answers end with the end token by themselves and got no second one",
    "merged": "in {:,} documents one token holds the end of a prompt and the start of its answer; it is "
    "learnt with the answer",
    "thoughts": "in {:,} conversations the model's template leaves out thoughts of earlier answers, "
    "as it does in use",
    "unasked": "{:,} conversations begin with an answer, which the model's template cannot ask for: it is "
    "no target",
    "earlier": "in {:,} conversations the model's template writes answers before the last one otherwise "
    "than the model does (without their thoughts), and so they are learnt; --turns apart makes a document "
    "of each answer instead, as the model writes it",
    "by_turn": "in {:,} conversations the model's template writes earlier turns otherwise once there "
    "are later ones: each answer became a document of its own, as the model meets it",
}


def _unknown_end(end_id, end_text, model):
    """Where servers would not stop at the end of an answer. They look into generation_config.json,
    and into config.json where that names no end."""
    for name in ("generation_config.json", "config.json"):
        try:
            contents = json.loads((model / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        named = contents.get("eos_token_id") if isinstance(contents, dict) else None
        named = named if isinstance(named, list) else [] if named is None else [named]
        if named:
            break
    else:
        return []  # no model's folder
    if end_id in named:
        return []
    return [
        f"answers end with {end_text} (token {end_id}), but {name} of {model} names "
        f"{', '.join(map(str, named))} as end: servers will not stop there; lorascale merge writes "
        f"a generation_config.json that does"
    ]


def _difference(statistics, name):
    preset, own = statistics.differences[0]
    common = len(os.path.commonprefix([preset, own]))
    first = max(0, common - 20)
    preset, own = (repr(text[first : common + 40]) for text in (preset, own))
    return (
        f"--chat-template {name} writes chats otherwise than the model's own template in "
        f"{len(statistics.differences)} of the first {statistics.counts['compared']}: "
        f"{preset}, the model's own {own}; --chat-template own takes that"
    )
