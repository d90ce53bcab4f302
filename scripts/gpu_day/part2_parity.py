"""The device against the CPU's results in fp32 (loss, gradients, five updates), then bf16 within its bounds."""
import json

from . import cases, tensors

# fp32 on a GPU sums in another order; TF32 or a wrong kernel would be at 1e-3 and beyond.
BOUNDS = {"fp32": {"loss": 1e-5, "gradient": 1e-4, "curve": 1e-4},
          "bf16": {"loss": 2e-2, "cosine": 0.98, "curve": 3e-2}}


def golden(day, name, kind):
    return day.material / "golden" / cases.key_of(name, kind)


def start_of(day, settings):
    """The weights before the first update, by the names that the result has."""
    folder = settings["adapter"].get("init_from") or settings["model"]["path"]
    return tensors.load_folder(type(day.material)(folder))


def losses_off(outcome, lines):
    """The largest relative difference of a loss; infinite where updates are missing."""
    losses, expected = outcome.losses(), [line["loss"] for line in lines]
    if len(losses) != len(expected) or None in losses:
        return float("inf")
    return max(abs(a / b - 1) for a, b in zip(losses, expected))


def check(day, part, name, dtype):
    bounds = BOUNDS[dtype]
    label = f"{name}, {dtype}"
    change = cases.merged(cases.PARITY[name], {"model": {"dtype": dtype}})
    settings = cases.base(day.material, change, cases.GRADIENT)
    one = day.train(f"parity-{dtype}-{cases.key_of(name, 'gradient')}", settings, seconds=50)
    if one.code:
        part.fail(f"{label}: one update", one.tail())
        return
    lines = json.loads((golden(day, name, "gradient") / "lines.json").read_text())
    part.at_most(f"{label}: loss, relative", losses_off(one, lines), bounds["loss"])
    before = start_of(day, settings)
    actual = tensors.differences(tensors.load_folder(cases.result_of(one.folder, settings)), before)
    expected = tensors.differences(tensors.load_folder(golden(day, name, "gradient")), before)
    if "gradient" in bounds:
        part.at_most(f"{label}: gradient, worst tensor, relative", tensors.worst_relative(actual, expected),
                     bounds["gradient"])
    elif settings["adapter"].get("type") != "full":  # whose weights are saved in bf16: too coarse for a difference
        part.at_least(f"{label}: gradient, worst tensor, cosine", tensors.worst_cosine(actual, expected),
                      bounds["cosine"])
    else:
        norm = one.lines()[0]["grad_norm"]
        part.at_most(f"{label}: norm of the gradient, relative", abs(norm / lines[0]["grad_norm"] - 1), 3e-2)
    five = day.train(f"parity-{dtype}-{cases.key_of(name, 'curve')}", cases.base(day.material, change), seconds=50)
    lines = json.loads((golden(day, name, "curve") / "lines.json").read_text())
    part.at_most(f"{label}: losses of {cases.UPDATES} updates, relative", losses_off(five, lines), bounds["curve"],
                 five.tail() if five.code else "")


def run(day, part):
    wanted = [(name, dtype) for dtype in ("fp32", "bf16") for name in cases.PARITY]
    if day.stand_in:  # one of each way through `check`
        wanted = [("packed rows", "fp32"), ("full training", "fp32"), ("packed rows", "bf16"), ("full training", "bf16"),
                  ("a leaf without targets", "fp32")]
    jobs = {each: lambda each=each: check(day, part, *each) for each in wanted}
    for (name, dtype), problem in day.all(jobs).items():
        if isinstance(problem, BaseException):
            part.fail(f"{name}, {dtype}", f"{type(problem).__name__}: {problem}")
