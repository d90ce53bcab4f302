"""What a run amounts to, in a few lines of words: the terminal and the page show the same."""

import dataclasses
import itertools

from lorascale_report import words


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the trace of a run."""

    step: int
    samples: int
    loss: float | None  # of this very update, as in metrics.jsonl
    validation: float | None  # measured after this very update
    accuracy: float | None  # of that validation
    lr: float | None
    batch: int | None
    ranks: int | None


def headline(run):
    first, last = run.first_validation, run.last_validation
    if first is None:
        losses = [update["loss"] for update in run.updates if update["loss"] is not None]
        if not losses:
            return "no finite loss was measured"
        return f"training loss {losses[0]:.4f} -> {losses[-1]:.4f}; no validation set was given"
    right = "" if last.accuracy is None else f", {words.share(last.accuracy)} right"
    if first.step == last.step:
        return f"validation loss {last.loss:.4f}{right} after step {last.step}; measured once"
    return f"validation loss {first.loss:.4f} -> {last.loss:.4f} ({words.change(first.loss, last.loss)}){right}"


def state(run):
    if run.finished:
        return "finished"
    outcome = run.status.get("outcome")
    message = words.harmless(run.status.get("message", ""))
    return f"{outcome}: {message}" if outcome else "not finished"


def facts(run):
    """(name, value) pairs."""
    last = run.updates[-1]
    setting = run.setting
    pairs = []
    first, final, best = run.first_validation, run.last_validation, run.best_validation
    if first is not None and first.step != final.step:
        pairs.append(("validation", f"{first.loss:.4f} -> {final.loss:.4f} {run.measure}"))
        if first.quarters and final.quarters:
            changes = (f"{a:.4f} -> {b:.4f}" for a, b in zip(first.quarters, final.quarters, strict=True))
            pairs.append(("by noise", "little: {}; more: {}; {}; most: {}".format(*changes)))
        if meaning := quality(run):
            name, before, after, of = meaning
            pairs.append((name, f"{before} -> {after} {of}"))
        if best.step != final.step:
            pairs.append(("best", f"{best.loss:.4f} {_where_best(run)}"))
    if setting("model", "path"):
        pairs.append(("model", f"{setting('model', 'path')}"))
    elif setting("model", "architecture"):
        pairs.append(("model", _architecture(run)))
    if run.is_lora and setting("adapter", "rank"):
        pairs.append(("adapter", f"LoRA, rank {setting('adapter', 'rank')}, alpha {setting('adapter', 'alpha'):g}"))
    if setting("data", "train"):
        pairs.append(("data", str(setting("data", "train"))))
    if run.left_out:
        pairs.append(("left out", "{} of {} pieces of its documents, which have no target".format(*run.left_out)))
    pairs.append(
        (
            "trained",
            f"{words.count(last['step'])} updates, {words.count(last['samples'])} samples, "
            + ("" if run.of_images else f"{words.count(run.units)} {run.unit}s, ")
            + f"{last.get('epoch', 0):.2f} epochs",
        )
    )
    pairs.append(
        ("took", f"{words.duration(run.training_seconds)} of updates on {words.ranks_of(run.updates)} rank(s), {words.speed(run)}")
    )
    skipped = sum(update.get("applied") is False for update in run.updates)
    if skipped:
        pairs.append(("skipped", f"{skipped} updates were not finite or had no target, and left the parameters as they were"))
    if run.result_folder is not None:
        pairs.append(("adapter in" if run.is_lora else "model in", str(run.result_folder)))
    pairs += _pictures(run.pictures)
    pairs.append(("state", state(run)))
    return [(name, words.harmless(value)) for name, value in pairs]


def _pictures(pictures, most=5):
    if pictures.rows:
        count, prompts = pictures.count, len(pictures.rows)
        of = f"{prompts} prompt" if prompts == 1 else f"{prompts} prompts"
        yield "samples", f"{count} picture{'' if count == 1 else 's'} of {of} in {pictures.folder}"
    for name, what in sorted(pictures.damaged.items())[:most]:
        yield ("not shown", f"{pictures.folder / name} {what}")
    if len(pictures.damaged) > most:
        yield ("not shown", f"{len(pictures.damaged) - most} more files of that folder")


def quality(run):
    """(name, before, after, of what): the validations' meaning to people, where their loss has one."""
    first, last = run.first_validation, run.last_validation
    if run.of_noise:
        return None
    if first.accuracy is not None and last.accuracy is not None:
        return "accuracy", words.share(first.accuracy), words.share(last.accuracy), "of validation"
    return "perplexity", words.perplexity(first.loss), words.perplexity(last.loss), f"per {run.unit}"


def noise_curves(run):
    """(name, [(update, validation loss in % of the first)]) of each quarter of the schedule of noise."""
    measured = [v for v in run.validations if v.quarters]
    names = ("little noise", "2nd quarter", "3rd quarter", "most noise")
    return [
        (name, [(v.step, 100 * v.quarters[i] / measured[0].quarters[i]) for v in measured])
        for i, name in enumerate(names)
        if len(measured) > 1 and measured[0].quarters[i] > 0
    ]


def accuracies(run):
    """(update, share of right answers in %, or None) of training."""
    values = ((update["step"], update.get("accuracy")) for update in run.updates)
    return [(step, None if value is None else 100 * value) for step, value in values]


def validation_accuracies(run):
    """(update, share of right answers in %) of the validations that measured it."""
    return [(v.step, 100 * v.accuracy) for v in run.validations if v.accuracy is not None]


def _architecture(run):
    name = run.setting("model", "architecture")
    parts = run.setting("model", name) or {}
    chosen = [f"{key} {parts[key]}" for key in ("block", "layers", "width", "norm") if key in parts]
    return f"{name}, untrained at first: {', '.join(chosen)}"


def _where_best(run):
    best = run.best_validation
    if best.step == 0:
        return "before the first update: nothing that was trained is better than the start"
    kept = run.folder / "best"
    return f"after step {best.step}" + (f" (kept in {kept})" if kept.is_dir() else "")


def trace(run, rows=8):
    """The run in about `rows` updates, evenly spread; the first and the last are among them. Where there are validations,
    the others are updates that were validated."""
    updates = run.updates
    measured = {v.step: v for v in run.validations}
    validated = [i for i, update in enumerate(updates) if update["step"] in measured]
    among = validated if len(validated) > 1 else range(len(updates))
    spread = (among[round(i * (len(among) - 1) / max(1, rows - 1))] for i in range(rows))
    return [
        Row(
            update["step"],
            update["samples"],
            update["loss"],
            measured[update["step"]].loss if update["step"] in measured else None,
            measured[update["step"]].accuracy if update["step"] in measured else None,
            update.get("lr"),
            update.get("global_batch"),
            update.get("world_size"),
        )
        for update in (updates[i] for i in sorted({0, *spread, len(updates) - 1}))
    ]


def sample_pairs(run):
    """(prompt, continuation before or None, continuation after or None) for each prompt."""
    before, after = run.before, run.after
    if before and after and [s.prompt for s in before] != [s.prompt for s in after]:
        later = {sample.prompt: sample.continuation for sample in after}  # prompts changed on the way
        return [(s.prompt, s.continuation, later.get(s.prompt)) for s in before]
    pairs = itertools.zip_longest(before, after)
    return [
        ((b or a).prompt, b.continuation if b else None, a.continuation if a else None) for b, a in pairs
    ]
