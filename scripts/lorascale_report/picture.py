"""The run as one PNG: loss with validation, learning rate, and global batch with ranks."""

import io
import os
import tempfile

from lorascale_report import facts, words
from lorascale_report.run_folder import smoothed

TRAIN, SMOOTH, VALIDATION, OTHER = "#9db7d5", "#2f6db3", "#c8511b", "#3d7f5f"


def _draw_accuracy(axis, run):
    steps, shares = zip(*facts.accuracies(run), strict=True)
    nan = float("nan")
    axis.plot(steps, [nan if v is None else v for v in shares], color=TRAIN, lw=0.8)
    axis.plot(steps, [nan if v is None else v for v in smoothed(shares, 0.04)], color=SMOOTH, lw=1.6)
    measured = [(v.step, 100 * v.accuracy) for v in run.validations if v.accuracy is not None]
    if measured:
        axis.plot(*zip(*measured, strict=True), color=VALIDATION, marker="o", ms=4, lw=1.2)
    axis.set_ylabel("right answers, %")


def render(run):
    # matplotlib wants a folder for its font list; a home that cannot be written would make it warn.
    if not os.access(os.path.expanduser("~"), os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", tempfile.mkdtemp(prefix="lorascale-matplotlib-"))
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
        losses = [update["loss"] for update in run.updates]
        nan = float("nan")
        loss.plot(steps, [nan if v is None else v for v in losses], color=TRAIN, lw=0.8, label="loss of each update")
        means = smoothed(losses, 0.04)
        loss.plot(steps, [nan if v is None else v for v in means], color=SMOOTH, lw=1.6, label="smoothed")
        if run.validations:
            loss.plot(
                [v.step for v in run.validations],
                [v.loss for v in run.validations],
                color=VALIDATION,
                marker="o",
                ms=4,
                lw=1.2,
                label="validation",
            )
        loss.set_ylabel(f"nats per {run.unit}")
        loss.legend(frameon=False)
        for axis in accuracy:
            _draw_accuracy(axis, run)
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
