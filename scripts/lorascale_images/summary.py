"""What became of the pictures, as lines for the user."""

import h5py
import numpy
from lorascale_data.report import clock_time

_SHOWN = 12


def lines_of(statistics, maker, writers, seconds):
    lines = []
    for name, writer in zip(("training", "validation"), writers, strict=False):
        lines.append(f"{name + ':':12}{writer.pictures:,} pictures of {len(maker.classes):,} classes -> {writer.path}")
    lines += _contents(writers, maker.classes)
    dropped = {
        "duplicates": statistics.duplicates,
        "equal to one of another class": statistics.contradicted,
        "bad": statistics.bad,
    }
    found = [f"{count:,} {name}" for name, count in dropped.items() if count]
    lines.append(f"{'left out:':12}{', '.join(found) or 'nothing'}")
    lines += [f"{'':12}  {example}" for example in statistics.bad_examples]
    if statistics.bad > len(statistics.bad_examples):
        lines.append(f"{'':12}  and {statistics.bad - len(statistics.bad_examples):,} more")
    if statistics.enlarged:
        lines.append(f"{'enlarged:':12}{statistics.enlarged:,} pictures that are smaller than --size")
    rate = statistics.total / max(seconds, 1e-9)
    lines.append(f"{'time:':12}{clock_time(seconds)} ({rate:,.0f} pictures a second)")
    return lines


def _contents(writers, classes):
    """Size, classes and values: of the files as they are, so that they were read once."""
    total = numpy.zeros(len(classes), numpy.int64)
    for writer in writers:
        with h5py.File(writer.path) as file:
            total += numpy.bincount(file["labels"][:], minlength=len(classes))
    with h5py.File(writers[0].path) as file:
        channels, height, width = (int(file.attrs[name]) for name in ("channels", "height", "width"))
        values = writers[0].pictures * height * width
        means = file["channel_sums"][:] / values
        deviations = numpy.sqrt(numpy.maximum(file["channel_squares"][:] / values - means**2, 0))
    lines = [f"{'size:':12}{width} x {height}, {channels} channel{'s' * (channels > 1)}"]
    numbers = ", ".join(f"{mean:.1f} +- {deviation:.1f}" for mean, deviation in zip(means, deviations, strict=True))
    lines.append(f"{'values:':12}{numbers} of 255 (mean and standard deviation by channel, training)")
    shown = [f"{name} {count:,}" for name, count in list(zip(classes, total, strict=True))[:_SHOWN]]
    more = [f"and {len(classes) - _SHOWN:,} more"] * (len(classes) > _SHOWN)
    lines.append(f"{'classes:':12}{', '.join(shown + more)}")
    return lines
