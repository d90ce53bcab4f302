"""What became of the pictures, as lines for the user."""

import h5py
import numpy
from lorascale_data.files import some
from lorascale_data.report import clock_time, left_out


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
    lines += left_out(dropped, statistics)
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
    counted = [f"{name} {count:,}" for name, count in zip(classes, total, strict=True)]
    lines.append(f"{'classes:':12}{some(counted, 12)}")
    return lines
