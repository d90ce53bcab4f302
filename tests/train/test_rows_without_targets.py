"""Rows without a target are in no update: a run on a data set that has such rows is, bit for bit, the run on the set
without them, on any number of ranks. And an update that has no target all the same changes nothing."""
import hashlib
import json

import numpy as np
import pytest
from harness import Workspace, digest, execute, expect_refusal, expect_replay
from reference import adapter_tensors, make_documents, metrics, write_dataset

BAD_INPUT, BAD_CONFIG = 65, 78
LENGTH = 64  # data.sequence_length of the workspace


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    return Workspace.create(tmp_path_factory.mktemp("targets"), program)


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


def masked_documents():
    """Documents of which some have their targets beyond a row, some none at all; and the others alone."""
    documents, masks, kept = make_documents(40, 4, 100), [], []
    for number, document in enumerate(documents):
        mask = np.zeros(len(document))
        if number % 4 == 1:
            mask[LENGTH:] = 1  # beyond the row, or nowhere
        elif number % 4 != 2:
            mask[len(document) // 2 : LENGTH] = 1
        masks.append(mask)
        kept.append(mask[1:LENGTH].any())
    return documents, masks, kept


def only(kept, values):
    return [value for value, keep in zip(values, kept) if keep]


@pytest.mark.parametrize("packing, ranks", [(False, 1), (False, 3), (True, 2)])
def test_a_set_with_them_trains_as_the_set_without_them(space, packing, ranks):
    documents, masks, kept = masked_documents()
    if packing:  # pieces are left out, and here each document is one
        documents, masks = [d[:LENGTH] for d in documents], [m[:LENGTH] for m in masks]
    write_dataset(space.data, documents, masks)
    write_dataset(space.folder / "clean.h5", only(kept, documents), only(kept, masks))
    space.write_config(data__packing=packing, data__validation=str(space.data), budget="3 epochs", adapter__dropout=0.1,
                       run__reduction="exact")
    outcome = space.must_train(ranks=ranks)
    clean = space.folder / "clean"
    space.must_train("--set", f"data.train={space.folder}/clean.h5", "--set", f"data.validation={space.folder}/clean.h5",
                     "--set", f"run.output_dir={clean}")
    ours, theirs = metrics(space.output), metrics(clean)
    assert losses_and_validations(ours) == losses_and_validations(theirs)
    assert digest(space.output / "adapter")["adapter_model.safetensors"] == digest(clean / "adapter")["adapter_model.safetensors"]
    left, word = 40 - sum(kept), "pieces" if packing else "rows"
    assert f"{left} of 40 {word} of {space.data} have no target" in outcome.stderr
    decisions = [json.loads(line) for line in (space.output / "decisions.jsonl").read_text().splitlines()]
    plan = next(line for line in decisions if line["kind"] == "plan")
    assert f"{left} of 40 pieces of documents left out" in plan["reason"]
    expect_replay(space)


def losses_and_validations(lines):
    return [(line["step"], line["samples"], line.get("loss"), line.get("targets"), line.get("val_loss")) for line in lines]


def test_the_plan_says_how_many_and_why(space):
    documents = make_documents(20, 70, 90)
    masks = [np.arange(len(d)) >= (10 if number < 2 else LENGTH) for number, d in enumerate(documents)]
    write_dataset(space.data, documents, masks)
    outcome = execute(space.command("plan"))
    assert outcome.code == 0, outcome.stderr
    longest = max(len(d) for d in documents[2:])
    assert f"18 of 20 rows of {space.data} have no target; in 18 of them data.sequence_length 64 cuts off every target: " \
           f"{longest} keeps them all; left out" in outcome.stdout
    space.must_train("--set", f"data.sequence_length={longest}", "--set", "budget=1 steps")
    decisions = (space.output / "decisions.jsonl").read_text()
    assert "left out" not in decisions


@pytest.mark.parametrize("what", ["train", "validation"])
def test_a_set_of_nothing_else_is_refused_with_the_remedy(space, what):
    documents = make_documents(10, 70, 90)
    path = space.folder / "none.h5"
    write_dataset(path, documents, [np.arange(len(d)) >= LENGTH for d in documents])
    space.write_config(**{f"data__{what}": str(path)})
    expect_refusal(space.train(ranks=2), BAD_INPUT, ["nothing to train", str(path), "10 of 10 rows", "raise data.sequence_length"])
    assert not space.output.exists()


def test_a_run_of_a_version_that_took_such_rows_is_refused_at_its_resume(space):
    documents, masks, _ = masked_documents()
    write_dataset(space.data, documents, masks)
    space.must_train("--set", "budget=4 steps")
    for checkpoint in space.checkpoints():
        change_fingerprint(checkpoint)
    expect_refusal(space.train(), BAD_CONFIG, ["rows without a target", "of 40 rows", "begin anew in another run.output_dir"])


def change_fingerprint(checkpoint):
    """As an earlier version wrote it: that of the data set alone."""
    manifest = checkpoint / "MANIFEST.json"
    text = manifest.read_text()
    for path in checkpoint.iterdir():
        if path != manifest and b"+rows-with-targets" in path.read_bytes():
            before = path.read_bytes()
            after = before.replace(b"+rows-with-targets", b"")
            path.write_bytes(after)
            text = text.replace(hashlib.sha256(before).hexdigest(), hashlib.sha256(after).hexdigest())
            text = text.replace(str(len(before)), str(len(after)))
    body = text[:text.index(',\n  "manifest_sha256"')]
    manifest.write_text(body + f',\n  "manifest_sha256": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n')


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "sgd"])
def test_an_update_without_a_target_changes_nothing(space, optimizer):
    """As one that is not finite: the same bits of weights, moments, clock and average. But it is no sign of divergence."""
    more = {"optimizer": {"name": optimizer, "lr": 3e-3}, "average": {"name": "ema", "half_life": "20 samples"},
            "noise": {"horizon": "50 samples"}, "budget": "5 steps"}
    space.write_config(**more, faults=["mask step=3 times=99"])
    outcome = space.must_train(ranks=2)
    spoilt = space.folder / "spoilt"
    space.write_config(**more, faults=["nan step=3"], run__output_dir=str(spoilt))
    space.must_train(ranks=2)
    line = metrics(space.output)[2]
    assert (line["loss"], line["grad_norm"], line["applied"], line["targets"]) == (None, None, False, 0)
    assert "update 3 has no target: nothing is applied" in outcome.stderr and "not finite" not in outcome.stderr
    for name in ("adapter", "adapter-last"):
        assert digest(space.output / name) == digest(spoilt / name)
    ours, theirs = (sorted((folder / "checkpoints").iterdir())[-1] for folder in (space.output, spoilt))
    assert (ours / "tensors.safetensors").read_bytes() == (theirs / "tensors.safetensors").read_bytes()
    assert [line["loss"] for line in metrics(space.output)[3:]] == [line["loss"] for line in metrics(spoilt)[3:]]
    expect_replay(space)


def test_many_updates_without_a_target_are_no_divergence(space):
    space.write_config(budget="14 steps", checkpoint={"every": "14 steps"},
                       faults=[f"mask step={step} times=99" for step in range(2, 14)])
    outcome = space.must_train()
    assert [line["applied"] for line in metrics(space.output)] == [True] + 12 * [False] + [True]
    assert "diverged" not in outcome.stderr
    assert not [line for line in outcome.stderr.splitlines() if "advice" in line and "loss" in line]
    assert all(np.isfinite(tensor.numpy()).all() for tensor in adapter_tensors(space.output / "adapter").values())
