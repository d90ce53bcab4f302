"""Runs that an earlier build left half done go on where that build's own run went. Each folder of old_runs/ holds a model,
a data set, a run that was killed behind its checkpoint of step 10 (LoRA with dropout and packing, noise scale and a batch
that follows it, wsd, an average), and what the whole run came to. A build that cannot take one any more refuses it by name,
and says so here."""
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from harness import execute, mpirun
from reference import metrics

RUNS = sorted((Path(__file__).parent / "old_runs").iterdir(), key=lambda path: path.name)
SAVED = 10


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def run(request, tmp_path):
    return Path(shutil.copytree(request.param, tmp_path / "old", copy_function=shutil.copy))


@pytest.mark.parametrize("ranks", [1, 2])
def test_goes_on_where_it_went(program, run, ranks):
    expected = json.loads((run / "expected.json").read_text())
    outcome = execute(mpirun(ranks, [program, "train", "config.yaml"]), cwd=run, timeout=120)
    assert outcome.code == 0 and f"resumed at step {SAVED}" in outcome.stderr, outcome.stderr[-3000:]
    lines = [line for line in metrics(run / "run") if line["step"] > 0]
    assert len(lines) == len(expected["metrics"])
    # On the CPU that it was made on, what kernels that came since round otherwise (2e-8 of the loss, 1.2e-7 of the
    # norm); on others, what their products round to in 19 updates.
    same_cpu = expected["instructions"] in outcome.stderr
    near = {"loss": 1e-7 if same_cpu else 1e-4, "grad_norm": 1e-6 if same_cpu else 1e-3}
    for line, old in zip(lines, expected["metrics"], strict=True):
        # How many leaves a rank has is of the ranks; the rest is of the run.
        for key in old.keys() - ({"accumulation"} if ranks > 1 else set()):
            assert line[key] == (pytest.approx(old[key], rel=near[key]) if key in near else old[key]), (key, old)
    # Bits, as the build of 2026-11-30 left them, the first with these kernels.
    adapter = (run / "run/adapter/adapter_model.safetensors").read_bytes()
    assert not same_cpu or hashlib.sha256(adapter).hexdigest() == expected["adapter_sha256"]


def test_its_decisions_are_taken_again(program, run):
    outcome = execute([program, "inspect", "run", "--replay"], cwd=run)
    assert outcome.code == 0 and re.search(r"byte for byte", outcome.stdout), outcome.stderr + outcome.stdout


@pytest.mark.parametrize("change", [lambda log: log["advice"]["validations"].pop("above"),
                                    lambda log: log["advice"]["validations"].update(above=7)], ids=["lacking", "other"])
def test_another_state_is_refused(program, run, change):
    """What was not saved in those days may be missing, and nothing else."""
    checkpoint = next((run / "run/checkpoints").glob("step-*"))
    saved = json.loads((checkpoint / "state.json").read_text())
    state = json.loads(saved["coordinator"])
    change(state["log"])
    saved["coordinator"] = json.dumps(state)
    text = json.dumps(saved)
    (checkpoint / "state.json").write_text(text)
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    del manifest["manifest_sha256"]
    entry = next(file for file in manifest["files"] if file["name"] == "state.json")
    entry.update(bytes=len(text), sha256=hashlib.sha256(text.encode()).hexdigest())
    body = json.dumps(manifest, indent=2).removesuffix("\n}")
    digest = hashlib.sha256(body.encode()).hexdigest()
    (checkpoint / "MANIFEST.json").write_text(f'{body},\n  "manifest_sha256": "{digest}"\n}}\n')
    outcome = execute([program, "inspect", "run", "--replay"], cwd=run)
    assert outcome.code == 65 and "do not lead to the coordinator's state" in outcome.stderr, outcome.stderr
