"""A run folder as data: its updates, validations, decisions, samples and settings. Reading changes nothing, and a folder
that a run is still writing to is read up to its last whole line."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import yaml

from lorascale_report.pictures import Pictures, read_pictures

BAD_INPUT = 65


class ReportError(Exception):
    """What is wrong, where, and the remedy, on one line."""


@dataclasses.dataclass(frozen=True)
class Validation:
    step: int
    loss: float
    accuracy: float | None = None  # share of right answers, where the run measures it
    quarters: tuple = ()  # losses of the quarters of a schedule of noise, from the least noise to the most


@dataclasses.dataclass(frozen=True)
class Sample:
    prompt: str
    continuation: str  # begins with a line end where it answers the prompt instead of continuing it


@dataclasses.dataclass
class Run:
    folder: Path
    updates: list  # one dict a line of metrics.jsonl, without step 0
    validations: list  # Validation, in order; step 0 is the base model as it came
    decisions: list  # one dict a line of decisions.jsonl
    before: list  # Sample
    after: list
    config: dict  # the resolved configuration
    status: dict  # of status.json; empty where there is none
    pictures: Pictures  # of models that make pictures

    @property
    def finished(self):
        return self.status.get("outcome") == "done"

    @property
    def left_out(self):
        """(pieces of documents that are in no row, of how many), or None."""
        for line in self.decisions:
            inputs = line.get("inputs") if line.get("kind") == "plan" else None
            recipe = inputs.get("recipe") if isinstance(inputs, dict) else None
            if isinstance(recipe, dict) and recipe.get("data.pieces_left_out"):
                return recipe["data.pieces_left_out"], recipe.get("data.pieces")
        return None

    @property
    def first_validation(self):
        return self.validations[0] if self.validations else None

    @property
    def last_validation(self):
        return self.validations[-1] if self.validations else None

    @property
    def best_validation(self):
        return min(self.validations, key=lambda v: v.loss, default=None)

    @property
    def is_lora(self):
        return self.setting("adapter", "type") != "full"

    @property
    def result_folder(self):
        """Where the trained adapter or model is, or None."""
        folder = self.folder / ("adapter" if self.is_lora else "model")
        return folder if folder.is_dir() else None

    @property
    def training_seconds(self):
        return sum(update.get("step_ms", 0.0) for update in self.updates) / 1000

    @property
    def measures_accuracy(self):
        return any(v.accuracy is not None for v in self.validations) or any(
            _number(update.get("accuracy")) is not None for update in self.updates
        )

    @property
    def of_images(self):
        return any("images" in update for update in self.updates)

    @property
    def units(self):
        """Tokens or images that were trained on."""
        return sum(update.get("images" if self.of_images else "tokens", 0) for update in self.updates)

    @property
    def of_noise(self):
        """What is learned is the noise in pictures: the loss is a mean of squares, and no probability of anything."""
        return any(v.quarters for v in self.validations) or any("loss_t1" in update for update in self.updates)

    @property
    def measure(self):
        """What the loss is, behind a number."""
        return "mean squared error" if self.of_noise else f"nats per {self.unit}"

    @functools.cached_property
    def unit(self):
        """What the loss is per: an image, or what a token is, where the data set says so."""
        if self.of_images:
            return "image"
        return "byte" if self._tokenizer() == "bytes" else "token"

    def setting(self, *keys):
        value = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _tokenizer(self):
        import h5py

        # The path is relative to where the run was started: most likely here, or in a folder above its own.
        path = self._token_file() or str(self.setting("data", "train") or "")
        for base in (Path(), *self.folder.resolve().parents):
            try:
                with h5py.File(base / path, "r") as file:
                    name = file.attrs.get("tokenizer_sha256", "")
                    return name.decode() if isinstance(name, bytes) else str(name)
            except OSError:  # moved or deleted since: the report does without
                continue
        return ""

    def _token_file(self):
        """The file that was trained on, where the run says; data.train may be what it was made of."""
        try:
            record = json.loads((self.folder / "data.json").read_text())
        except (OSError, ValueError):  # a run of an older version
            return ""
        return str(record.get("train") or "") if isinstance(record, dict) else ""


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}; check its permissions") from error


def _read_lines(path, required, torn_line_allowed=True):
    """The objects of a JSON Lines file. The last line may be torn: a run may be writing it or have died there."""
    objects = []
    lines = _read(path).split(b"\n")
    torn = lines.pop()
    if torn and not torn_line_allowed:
        lines.append(torn)
    for number, line in enumerate(lines, 1):
        where = f"{path} line {number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ReportError(
                f"{where} is not JSON; the file is damaged: run training again, or remove that line"
            ) from error
        if not isinstance(value, dict):
            raise ReportError(f"{where} is not a JSON object; it was not written by lorascale")
        for key in required:
            if isinstance(value.get(key), bool) or not isinstance(value.get(key), int):
                raise ReportError(f"{where} has no whole number '{key}'; it was not written by lorascale")
        objects.append(value)
    return objects


def _number(value):
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)


def _quarters(line):
    values = [_number(line.get(f"val_loss_t{quarter}")) for quarter in range(1, 5)]
    return tuple(values) if all(value is not None and math.isfinite(value) for value in values) else ()


def read_samples(path):
    """samples/*.txt: "> prompt", then the prompt with its continuation, then an empty line, for each prompt."""
    if not path.is_file():
        return []
    text = "\n" + _read(path).decode("utf-8", errors="replace")
    samples = []
    for block in text.split("\n> ")[1:]:
        # A prompt may have lines of its own: the block is "P\nPC" with the same P twice.
        prompt = next(
            (block[:cut] for cut in _line_ends(block) if cut and block.startswith(block[:cut], cut + 1)),
            None,
        )
        if prompt is None:  # a sample that has a line beginning with "> "
            if samples:
                last = samples[-1]
                samples[-1] = Sample(last.prompt, f"{last.continuation}\n> {block}".rstrip("\n"))
            continue
        continuation = block[2 * len(prompt) + 1 :]
        samples.append(Sample(prompt, continuation.rstrip("\n")))
    return samples


def _line_ends(text):
    at = text.find("\n")
    while at >= 0:
        yield at
        at = text.find("\n", at + 1)


def _read_yaml(path):
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(_read(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is not YAML; copy it from the run's source, or remove it") from error
    return value if isinstance(value, dict) else {}


def _read_status(path):
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise ReportError(f"{path} is not JSON; remove it: the next start writes it again") from error
    return value if isinstance(value, dict) else {}


def _check_order(updates, path):
    for before, after in zip(updates, updates[1:], strict=False):
        if after["step"] <= before["step"]:
            raise ReportError(
                f"{path}: step {after['step']} comes after step {before['step']}; two runs wrote into one folder"
            )


def read_run(folder):
    folder = Path(folder)
    if not folder.is_dir():
        raise ReportError(f"{folder} is not a folder; give the run.output_dir of a run")
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise ReportError(f"{folder} holds no metrics.jsonl; it is no run folder, or nothing was trained in it yet")
    lines = _read_lines(metrics, ("step", "samples"))
    updates = [line for line in lines if line["step"] > 0]
    _check_order(updates, metrics)
    validations = {
        line["step"]: Validation(line["step"], value, _number(line.get("val_accuracy")), _quarters(line))
        for line in lines
        if (value := _number(line.get("val_loss"))) is not None and math.isfinite(value)
    }
    for line in updates:
        line["loss"] = _number(line.get("loss"))
        if line["loss"] is not None and not math.isfinite(line["loss"]):
            line["loss"] = None
    if not updates:
        raise ReportError(f"{metrics} holds no update yet; try again when training has begun")
    decisions = folder / "decisions.jsonl"
    status = _read_status(folder / "status.json")
    return Run(
        folder=folder,
        updates=updates,
        validations=list(validations.values()),
        decisions=_read_lines(decisions, ("step",)) if decisions.is_file() else [],
        before=read_samples(folder / "samples" / "before.txt"),
        after=read_samples(folder / "samples" / "after.txt"),
        config=_read_yaml(folder / "config.yaml"),
        status=status,
        pictures=read_pictures(folder / "samples", updates[-1]["step"] if status.get("outcome") == "done" else None),
    )


def smoothed(values, share):
    """Means over `share` of the values around each, over fewer near the ends, so that they do not lag; None is passed
    over."""
    reach = int(share * len(values) / 2)
    sums, counts = [0.0], [0]
    for value in values:
        sums.append(sums[-1] + (value or 0.0))
        counts.append(counts[-1] + (value is not None))
    out = []
    for at in range(len(values)):
        near = min(reach, at, len(values) - 1 - at)
        begin, end = at - near, at + near + 1
        known = counts[end] - counts[begin]
        out.append((sums[end] - sums[begin]) / known if known else None)
    return out
