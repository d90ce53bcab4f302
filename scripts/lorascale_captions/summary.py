"""What became of the pictures, as lines for the user."""

import h5py
import numpy
from lorascale_data.files import some
from lorascale_data.report import clock_time, left_out


def lines_of(statistics, writers, sheet, seconds):
    lines = []
    for name, writer in zip(("training", "validation"), writers, strict=False):
        lines += _lines_of_file(name, writer.path)
    lines += left_out({"duplicates": statistics.duplicates, "bad": statistics.bad}, statistics)
    if statistics.enlarged:
        lines.append(f"{'enlarged:':12}{statistics.enlarged:,} pictures that are smaller than their buckets")
    if sheet is not None:
        lines.append(f"{'sheet:':12}{sheet.path}")
    rate = statistics.total / max(seconds, 1e-9)
    lines.append(f"{'time:':12}{clock_time(seconds)} ({rate:,.0f} pictures a second)")
    return lines


def _lines_of_file(name, path):
    with h5py.File(path) as file:
        repeats, is_regularisation = file["repeats"][:], file["regularisation"][:] == 1
        bucket, sizes = file["bucket"][:], zip(file["bucket_widths"][:], file["bucket_heights"][:], strict=True)
        ends, captions = file["tags"][:].astype(int), file["caption_tags"][:]
        lengths = ends[1:] - ends[:-1]
        tags = len(lengths) // 2  # each stands there with its comma, and without
        last = captions[1:][captions[1:] > captions[:-1]] - 1
        tokens = lengths[::2].sum() - lengths[2 * last].sum() + lengths[2 * last + 1].sum()
    counts = numpy.bincount(bucket)
    buckets = [f"{width} x {height}: {count:,}" for (width, height), count in zip(sizes, counts, strict=True)]
    kinds = f"{numpy.count_nonzero(~is_regularisation):,} pictures"
    if is_regularisation.any():
        kinds += f" and {numpy.count_nonzero(is_regularisation):,} for regularisation"
    epoch = f"{repeats[~is_regularisation].sum():,} samples an epoch"
    return [
        f"{name + ':':12}{kinds}, {epoch} -> {path}",
        f"{'':12}{tokens / len(bucket):.1f} tokens and {tags / len(bucket):.1f} tags a caption",
        f"{'':12}buckets: {some(buckets, 12)}",
    ]
