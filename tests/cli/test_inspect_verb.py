"""inspect of a run folder and of its checkpoints: what it says is what the run's own files say."""
import json
import re
import shutil

import pytest
from harness import Workspace, digest, execute, expect_refusal, flip
from reference import make_documents, metrics, write_dataset


@pytest.fixture(scope="module")
def trained(program, tmp_path_factory):
    space = Workspace.create(tmp_path_factory.mktemp("inspected"), program)
    write_dataset(space.folder / "validation.h5", make_documents(8, 4, 60, seed=1))
    space.write_config(data={**space.settings()["data"], "validation": str(space.folder / "validation.h5")},
                       evaluate={"every": "2 steps"})
    space.must_train(ranks=2)
    return space


@pytest.fixture
def space(trained, tmp_path):
    copy = Workspace(tmp_path, trained.program)
    shutil.copytree(trained.output, copy.output)
    return copy


def inspect(space, path):
    before = digest(space.folder)
    outcome = execute([space.program, "inspect", path])
    assert outcome.code == 0, outcome.stderr
    assert digest(space.folder) == before
    return outcome.stdout


def line_of(text, what):
    found = re.findall(rf"^{what} +(.*)$", text, re.MULTILINE)
    assert len(found) == 1, (what, text)
    return found[0]


def test_run_folder(space):
    text = inspect(space, space.output)
    lines = metrics(space.output)
    losses = [f"{line['loss']:.4f}" for line in lines if "loss" in line][-5:]
    assert line_of(text, "loss") == f"{', '.join(losses)} (the last 5)"
    assert line_of(text, "updates") == f"6, {lines[-1]['samples']} samples, epoch {lines[-1]['epoch']:.2f}, on 2 ranks"
    measured = {line["step"]: line["val_loss"] for line in lines if "val_loss" in line}
    best = min(measured, key=measured.get)
    assert line_of(text, "validation") == f"{measured[6]:.4f} after step 6, best {measured[best]:.4f} after step {best}"
    assert line_of(text, "status").startswith("done at step 6, exit code 0: done after 6 steps")
    assert line_of(text, "trained") == "LoRA rank 4, alpha 8, targets [all-linear]"
    assert line_of(text, "recipe").startswith("batch 6, adamw lr 0.003, schedule constant")
    for name in ("adapter", "best"):
        assert line_of(text, name) == f"{space.output / name}: LoRA rank 4 on 14 layers"
    assert "2 checkpoints in" in text and text.count("  intact") == 2


def test_checkpoints_folder(space):
    newest = space.checkpoints()[-1]
    for path in (space.output / "checkpoints", f"{space.output}/checkpoints/"):
        text = inspect(space, path)
        assert re.search(r"step-00000006 +36 samples +written by 2 ranks +intact\n  step-00000004 +24 samples", text)
    flip(newest / "tensors.safetensors", 3000)
    text = inspect(space, space.output)
    assert re.search(r"step-00000006  DAMAGED: .*tensors.safetensors", text)
    assert re.search(r"step-00000004 .* intact", text)


def test_damaged_and_missing_parts_leave_the_rest(space):
    (space.output / "status.json").write_text("{")
    (space.output / "adapter/adapter_model.safetensors").write_bytes(b"x")
    with (space.output / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # torn by a crash
    text = inspect(space, space.output)
    assert line_of(text, "status").startswith("DAMAGED: ")
    assert line_of(text, "results").startswith("DAMAGED: ")
    assert line_of(text, "updates").startswith("6, ")
    shutil.rmtree(space.output / "checkpoints")
    (space.output / "metrics.jsonl").unlink()
    text = inspect(space, space.output)
    assert line_of(text, "updates") == "none"
    assert "0 checkpoints in" in text


def test_failed_run_tells_its_cause_on_one_line(space):
    status = {"outcome": "failed", "exit_code": 78, "step": 3, "generation": 1, "message": "one\ntwo"}
    (space.output / "status.json").write_text(json.dumps(status))
    assert line_of(inspect(space, space.output), "status") == "failed at step 3, exit code 78: one; two"


def test_folder_named_checkpoints_may_be_empty(space):
    folder = space.folder / "checkpoints"
    folder.mkdir()
    assert inspect(space, folder) == f"0 checkpoints in {folder}\n"


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl", "config.yaml", "status.json", "log.txt"])
def test_files_of_a_run_that_are_not_explained_alone(space, name):
    expect_refusal(execute([space.program, "inspect", space.output / name]), 65, [name, "give the folder"])
