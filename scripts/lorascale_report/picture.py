"""The run as one PNG: loss with validation, learning rate, and global batch with ranks."""

import contextlib
import io
import os
import tempfile
import textwrap
import warnings

from lorascale_report import facts, words
from lorascale_report.run_folder import smoothed

TRAIN, SMOOTH, VALIDATION, OTHER = "#9db7d5", "#2f6db3", "#c8511b", "#3d7f5f"


def _draw(axis, steps, values, measured):
    """Values of updates, which may be None, and their means; [(step, value)] of validations."""
    means = smoothed(values, 0.04)
    for each, color, width, label in ((values, TRAIN, 0.8, "each update"), (means, SMOOTH, 1.6, "smoothed")):
        axis.plot(steps, [float("nan") if v is None else v for v in each], color=color, lw=width, label=label)
    if measured:
        axis.plot(*zip(*measured, strict=True), color=VALIDATION, marker="o", ms=4, lw=1.2, label="validation")


@contextlib.contextmanager
def _place_of_fonts():
    """matplotlib wants a folder for its font list; a home that cannot be written would make it warn."""
    if "MPLCONFIGDIR" in os.environ or os.access(os.path.expanduser("~"), os.W_OK):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="lorascale-matplotlib-") as os.environ["MPLCONFIGDIR"]:
        try:
            yield
        finally:
            del os.environ["MPLCONFIGDIR"]


def _pairs(run, most=3):
    """(prompt, picture before, picture of now, its name) of the first prompts that have both."""
    pairs = []
    for row in run.pictures.rows:
        if len(pairs) == most:
            break
        if row.before and row.latest:
            before, latest = (run.pictures.small(picture, 512) for picture in (row.before, row.latest))
            if before and latest:
                pairs.append((row.first.prompt, before, latest, words.moment(row.latest)))
    return pairs


def _height(pairs, across=8, most=5):
    """In inches; a pair has as much width as any other."""
    tall = (across / len(pairs) * max(a.height, b.height) / (a.width + b.width) for _, a, b, _ in pairs)
    return min(most, max(tall)) + 0.7 if pairs else 0


def _draw_pairs(figure, pairs):
    grid = figure.subplots(1, 2 * len(pairs), squeeze=False)[0]
    for (prompt, *pictures, now), left, right in zip(pairs, grid[::2], grid[1::2], strict=True):
        for axis, image, name in zip((left, right), pictures, ("before training", now), strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(name, fontsize=8)
            axis.set_axis_off()
        text = textwrap.shorten(words.harmless(prompt), 120 // len(pairs), placeholder="...").replace("$", r"\$")
        left.text(0, -0.04, text, transform=left.transAxes, va="top", fontsize=8).set_in_layout(False)


def render(run):
    with _place_of_fonts(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a script that matplotlib's font has not
        return _rendered(run)


def _rendered(run):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        heights = (4, 2.5, 1.2, 1.2) if run.measures_accuracy else (4, 1.2, 1.2)
        pairs = _pairs(run)
        total, below = sum(heights) + 0.1, _height(pairs)
        figure = pyplot.figure(figsize=(8, total + below), layout="constrained")
        curves = figure
        if pairs:
            curves, bottom = figure.subfigures(2, 1, height_ratios=(total, below))
            _draw_pairs(bottom, pairs)
        loss, *accuracy, lr, batch = curves.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        # A folder's name may hold anything: $ would begin a formula.
        figure.suptitle(words.harmless(f"{run.folder}: {facts.headline(run)}").replace("$", r"\$"), fontsize=10)
        steps = [update["step"] for update in run.updates]
        _draw(loss, steps, [update["loss"] for update in run.updates], [(v.step, v.loss) for v in run.validations])
        loss.set_ylabel("mean squared error" if run.of_noise else f"nats per {run.unit}")
        loss.legend(frameon=False)
        for axis in accuracy:
            _draw(axis, steps, [share for _, share in facts.accuracies(run)], facts.validation_accuracies(run))
            axis.set_ylabel("right answers, %")
        nan = float("nan")
        lr.plot(steps, [update.get("lr", nan) for update in run.updates], color=OTHER)
        lr.set_ylabel("learning rate")
        lr.set_ylim(bottom=0)
        for key, label, color in (("global_batch", "global batch", SMOOTH), ("world_size", "ranks", VALIDATION)):
            batch.step(steps, [u.get(key, nan) for u in run.updates], where="post", color=color, label=label)
        batch.set_ylim(bottom=0)
        batch.yaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
        batch.legend(frameon=False, ncols=2, loc="center left")
        batch.set_xlabel("update")
        for axis in (loss, *accuracy, lr, batch):
            axis.grid(alpha=0.25, lw=0.6)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
        pyplot.close(figure)
    return out.getvalue()
