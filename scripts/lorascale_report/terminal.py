"""The report as plain text, for a terminal of any width and encoding."""

import shutil
import sys
import textwrap

from lorascale_report import facts, words
from lorascale_report.run_folder import smoothed

BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
PLAIN_BARS = "_.-~=+*#"


def can_print(text, stream):
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sparkline(values, width, bars=BARS):
    """`values` (None is passed over) as one line of bars, the highest the tallest."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    columns = []
    width = min(width, len(values))
    for column in range(width):
        part = values[column * len(values) // width : (column + 1) * len(values) // width]
        part = [value for value in part if value is not None]
        columns.append(sum(part) / len(part) if part else None)
    shown = [value for value in columns if value is not None]
    low, span = min(shown), max(shown) - min(shown)
    scale = (len(bars) - 1) / span if span > 0 else 0.0
    return "".join(" " if value is None else bars[round((value - low) * scale)] for value in columns)


def _number(value, form):
    return "" if value is None else format(value, form)


def _trace(run):
    accuracy = run.measures_accuracy
    lines = [f"    step    samples      loss   validation{'  accuracy' if accuracy else ''}        lr   batch  ranks"]
    for row in facts.trace(run):
        right = f"{'' if row.accuracy is None else words.share(row.accuracy):>10}" if accuracy else ""
        lines.append(
            f"{row.step:8}{row.samples:11,}{_number(row.loss, '10.4f'):>10}{_number(row.validation, '13.4f'):>13}{right}"
            f"{_number(row.lr, '10.3g'):>10}{_number(row.batch, '8'):>8}{_number(row.ranks, '7'):>7}"
        )
    return lines


def _sample(label, text, width):
    lines = []
    for paragraph in words.harmless(text).lstrip("\n").split("\n"):
        lines += textwrap.wrap(paragraph, width - 12) or [""]
    while lines and not lines[-1]:
        lines.pop()
    return [f"  {label if i == 0 else '':8}{line}" for i, line in enumerate(lines or ["(nothing)"])]


def _samples(run, width):
    for prompt, before, after in facts.sample_pairs(run):
        yield ""
        yield f'  prompt  "{words.harmless(prompt)}"'
        for label, text in (("before", before), ("after", after)):
            if text is not None:
                yield from _sample(label, text, width)


def report_lines(run, commands, files=(), width=100, bars=BARS):
    losses = smoothed([update["loss"] for update in run.updates], 0.04)
    yield f"{run.folder}: {facts.headline(run)}"
    yield ""
    for name, value in facts.facts(run):
        yield f"  {name:<12}{value}"
    yield ""
    yield f"  loss    {sparkline(losses, width - 12, bars)}"
    yield f"  lr      {sparkline([u.get('lr') for u in run.updates], width - 12, bars)}"
    yield ""
    yield from _trace(run)
    yield from _samples(run, width)
    yield ""
    yield "  next"
    for command in commands:
        yield f"    # {command.what}"
        yield f"    {command.line}"
    for what, path in files:
        yield f"  {what:<8}{path}"


def print_report(run, commands, files=(), stream=None):
    stream = stream or sys.stdout
    width = max(60, min(110, shutil.get_terminal_size((100, 24)).columns))
    bars = BARS if can_print(BARS, stream) else PLAIN_BARS
    encoding = getattr(stream, "encoding", None) or "ascii"
    for line in report_lines(run, commands, files, width, bars):
        print(line.encode(encoding, errors="replace").decode(encoding), file=stream)
