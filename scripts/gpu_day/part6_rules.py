"""Optimizers, averages of the weights, a skipped update, validation, generation, export: against the CPU and peft."""
import json

from . import cases, tensors
from .part2_parity import losses_off


def check(day, part, name):
    settings = cases.base(day.material, cases.VALIDATED, cases.RULES[name])
    outcome = day.train(cases.key_of(name, "rule"), settings)
    folder = day.material / "golden" / cases.key_of(name, "rule")
    if outcome.code:
        part.fail(name, outcome.tail())
        return
    lines = json.loads((folder / "lines.json").read_text())
    if name == "a skipped update":
        part.equal(f"{name}: applied", [line["applied"] for line in outcome.lines()],
                   [line["applied"] for line in lines])
        part.equal(f"{name}: its gradient is null", [line["grad_norm"] is None for line in outcome.lines()],
                   [line["grad_norm"] is None for line in lines])
    part.at_most(f"{name}: losses, relative", losses_off(outcome, lines), 1e-4)
    pairs = [(mine["val_loss"], theirs["val_loss"]) for mine, theirs in zip(outcome.lines(), lines)
             if theirs.get("val_loss") is not None]
    part.true(f"{name}: validated", len(pairs) > 0)
    part.at_most(f"{name}: validation losses, relative", max((abs(a / b - 1) for a, b in pairs), default=0.0), 1e-4)
    # Adam divides a gradient by itself: where it is rounding alone, the update has any sign.
    part.at_most(f"{name}: weights after {cases.UPDATES} updates, worst tensor, relative",
                 tensors.worst_relative(tensors.load_folder(outcome.folder / "adapter"), tensors.load_folder(folder)),
                 1e-2)


def generation_and_export(day, part):
    """With the adapter that `adamw` left."""
    expected = json.loads((day.material / "golden/generated.json").read_text())
    path = day.work / f"{cases.key_of('adamw', 'rule')}.yaml"
    said = day.command([day.program, "generate", path, "--ids", " ".join(map(str, cases.PROMPT)), "--max-tokens", "24"],
                       title="generate")
    ids = [int(word) for word in said.out.split()] if not said.code else said.tail()
    part.equal("greedy text, token ids as the CPU's", ids, expected)
    run = day.work / cases.key_of("adamw", "rule")
    merged = day.work / "merged"
    done = day.command([day.program, "merge", "--model", day.material / "llama", "--adapter", run / "adapter", "--output",
                        merged], title="merge")
    part.equal("merge", done.code, 0, done.tail() if done.code else "")
    peer = day.python("peer_export", day.material / "llama", run / "adapter", merged, day.device, seconds=60)
    if peer.code:
        part.fail("peft and transformers load the export", peer.tail())
        return
    found = json.loads(peer.out.splitlines()[-1])
    part.equal("greedy text of the adapter in peft", found["adapter"], expected)
    part.equal("greedy text of the merged model in transformers", found["merged"], expected)


def run(day, part):
    jobs = {name: lambda name=name: check(day, part, name) for name in cases.RULES}
    for name, problem in day.all(jobs).items():
        if isinstance(problem, BaseException):
            part.fail(name, f"{type(problem).__name__}: {problem}")
    generation_and_export(day, part)
