"""Bit for bit: the same run twice, and once more over a SIGKILL and a resume."""
from . import cases, tensors

KINDS = {
    "lora, fp32, dropout": {"adapter": {"dropout": 0.1}},
    "lora, bf16, dropout": {"adapter": {"dropout": 0.1}, "model": {"dtype": "bf16"}},
    "full training, fp32": {"adapter": {"type": "full"}},
    "full training, bf16": {"adapter": {"type": "full"}, "model": {"dtype": "bf16"}},
    "window, smoothing, fp32": {"model": {"path": "mistral"}, "loss": {"label_smoothing": 0.1}},
    "q and k norms, bf16": {"model": {"path": "qwen3", "dtype": "bf16"}, "adapter": {"dropout": 0.05}},
}
LONG = {"run": {"reduction": "exact"}, "checkpoint": {"every": "3 steps", "keep": 2}, "budget": "8 steps",
        "data": {"shuffle": True}}


def check(day, part, kind):
    settings = cases.base(day.material, LONG, KINDS[kind])
    name = f"exact-{kind.replace(', ', '-').replace(' ', '-')}"
    first, again = (day.train(f"{name}-{i}", settings) for i in (1, 2))
    if first.code or again.code:  # an operation without a repeatable form is named here
        part.fail(kind, (first if first.code else again).tail())
        return
    digest = tensors.digest(cases.result_of(first.folder, settings))
    part.equal(f"{kind}: losses of a second run", again.losses() == first.losses(), True)
    part.equal(f"{kind}: digest of a second run", tensors.digest(cases.result_of(again.folder, settings))[:16],
               digest[:16])
    killed = day.train(f"{name}-killed", cases.merged(settings, {"faults": ["kill step=5 phase=backward"]}))
    part.equal(f"{kind}: killed in update 5", killed.code, 137, killed.tail() if killed.code != 137 else "")
    resumed = day.train(f"{name}-killed", settings)
    if resumed.code:
        part.fail(f"{kind}: resumed", resumed.tail())
        return
    part.equal(f"{kind}: losses over the resume", resumed.losses() == first.losses(), True)
    part.equal(f"{kind}: digest over the resume", tensors.digest(cases.result_of(resumed.folder, settings))[:16],
               digest[:16])
    replay = day.command([day.program, "inspect", resumed.folder, "--replay"], title=f"{name}-replay")
    part.equal(f"{kind}: inspect --replay", replay.code, 0, replay.tail() if replay.code else "")


def run(day, part):
    kinds = list(KINDS)[:3:2] if day.stand_in else list(KINDS)  # an adapter and a whole model
    for kind, problem in day.all({kind: lambda kind=kind: check(day, part, kind) for kind in kinds}).items():
        if isinstance(problem, BaseException):
            part.fail(kind, f"{type(problem).__name__}: {problem}")
    fast = [day.train(f"fast-{i}", cases.base(day.material, LONG, {"run": {"reduction": "fast"}})) for i in (1, 2)]
    part.seen("fast, which promises nothing: a second run has the same losses", fast[0].losses() == fast[1].losses())
