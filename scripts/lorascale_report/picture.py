"""The run as one PNG: loss with validation, learning rate, and global batch with ranks."""

import contextlib
import io
import os
import tempfile

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


def render(run):
    with _place_of_fonts():
        return _rendered(run)


def _rendered(run):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        heights = (4, 2.5, 1.2, 1.2) if run.measures_accuracy else (4, 1.2, 1.2)
        figure, (loss, *accuracy, lr, batch) = pyplot.subplots(
            len(heights), 1, sharex=True, figsize=(8, sum(heights) + 0.1), height_ratios=heights, layout="constrained"
        )
        # A folder's name may hold anything: $ would begin a formula.
        figure.suptitle(words.harmless(f"{run.folder}: {facts.headline(run)}").replace("$", r"\$"), fontsize=10)
        steps = [update["step"] for update in run.updates]
        _draw(loss, steps, [update["loss"] for update in run.updates], [(v.step, v.loss) for v in run.validations])
        loss.set_ylabel(f"nats per {run.unit}")
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
