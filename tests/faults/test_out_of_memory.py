"""A rank that runs out of memory, by a fault of the configuration or by a real budget: all ranks do the update again in
smaller leaves; batch, samples and rates stay, the optimizer moves once, nothing hangs."""
import json
import pathlib

import pytest
from harness import Workspace, edit_dataset, expect_refusal, expect_replay, give_text, verified
from reference import make_documents, metrics, write_dataset

BAD_CONFIG = 78
STEPS = 6
SECONDS = 10  # that a run may take beyond an undisturbed one before it counts as a hang


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    return Workspace.create(tmp_path_factory.mktemp("template"), program)


@pytest.fixture
def space(template, tmp_path):
    space = template.copy(tmp_path)
    space.write_config(**CONFIG)
    return space


CONFIG = {"batch": {"global": 12, "micro": 4}, "evaluate": {"every": "2 steps"}}


def course(space):
    """What must not change but in the last digits."""
    return metrics(space.output)


def expect_same_course(seen, expected):
    assert [line["step"] for line in seen] == [line["step"] for line in expected]
    for line, other in zip(seen, expected):
        for key in ("samples", "global_batch", "lr", "targets", "tokens", "applied"):
            assert line.get(key) == other.get(key), (key, line["step"])
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def decisions(space, kind):
    lines = (space.output / "decisions.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


@pytest.fixture(scope="module")
def undisturbed(template, tmp_path_factory):
    space = template.copy(tmp_path_factory.mktemp("undisturbed"))
    space.write_config(**CONFIG)
    space.must_train()
    return course(space)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
@pytest.mark.parametrize("where", ["one rank", "all ranks", "again and again"])
def test_update_is_done_again_in_smaller_leaves(space, undisturbed, phase, ranks, where):
    fault = f"oom step=3 phase={phase}"
    if where == "one rank":
        fault += f" rank={ranks - 1}"
    faults = [fault, f"oom step=5 phase={phase} rank=0"] if where == "again and again" else [fault]
    space.write_config(**CONFIG, faults=faults)
    outcome = space.train(ranks=ranks, timeout=30 + SECONDS)
    assert outcome.code == 0, outcome.stderr[-3000:]
    expect_same_course(course(space), undisturbed)
    taken = decisions(space, "memory")
    assert len(taken) == len(faults)
    assert "leaf 4 -> 2" in taken[0]["reason"] and taken[0]["step"] == 3
    assert [line["micro_batch"] for line in course(space)] == [4, 4, 2, 2, *([1, 1] if len(faults) == 2 else [2, 2])]


def test_leaves_of_one_sample_have_a_second_try(space, undisturbed):
    space.write_config(**{**CONFIG, "batch": {"global": 12, "micro": 1}}, faults=["oom step=3 phase=optimizer rank=1"])
    space.must_train(ranks=2)
    expect_same_course(course(space), undisturbed)
    assert [line["inputs"]["leaf_size"] for line in decisions(space, "memory")] == [[1, 1]]
    expect_replay(space)


def test_gives_up_at_one_sample_with_advice_and_a_checkpoint(space):
    space.write_config(**CONFIG, faults=["oom step=3 phase=forward rank=1 times=100"])
    outcome = space.train(ranks=2, timeout=30 + SECONDS)
    expect_refusal(outcome, BAD_CONFIG, ["update 3", "rank 1", "leaves of one sample", "model.recompute", "checkpoints"])
    assert verified(space.program, space.output / "checkpoints" / "step-00000002")
    space.write_config(**CONFIG)
    space.must_train()
    assert [line["step"] for line in course(space)] == list(range(1, STEPS + 1))


def test_validation(space, template, tmp_path):
    validation = {"data": {"train": str(space.data), "validation": str(space.data), "packing": False,
                           "sequence_length": 64}}
    space.write_config(**CONFIG, **validation)
    space.must_train(ranks=2)
    expected = [line["val_loss"] for line in course(space) if line.get("val_loss")]
    other = template.copy(tmp_path / "other")
    other.write_config(**CONFIG, **validation, faults=["oom step=2 phase=evaluation rank=1"])
    outcome = other.must_train(ranks=2)
    assert "validation after step 2 ran out of memory on 1 rank (the first is rank 1)" in outcome.stderr
    assert [line["inputs"] for line in decisions(other, "memory")] == [
        {"task": "validation", "ranks": 1, "rank": 1, "leaf_size": 2}]
    expect_replay(other)
    assert [line["val_loss"] for line in course(other) if line.get("val_loss")] == pytest.approx(expected, rel=1e-6)


def test_validation_that_does_not_fit_at_all_saves_first(space):
    space.write_config(**CONFIG, data={"train": str(space.data), "validation": str(space.data), "packing": False,
                                       "sequence_length": 64},
                       faults=["oom step=4 phase=evaluation rank=1 times=50"], average={"name": "ema", "half_life": "20 samples"})
    outcome = space.train(ranks=2)
    expect_refusal(outcome, BAD_CONFIG, ["validation after step 4", "leaves of one sample", "model.recompute", "checkpoints"])
    assert verified(space.program, space.output / "checkpoints" / "step-00000004")
    space.must_train("--set", "faults=[]")
    assert metrics(space.output)[-1]["step"] == STEPS
    expect_replay(space)


def test_weights_that_do_not_fit(space):
    demo = pathlib.Path(__file__).parents[2] / "scripts/demo/base-model"  # 7.6 MiB in fp32
    space.write_config(**CONFIG, model__path=str(demo), memory={"budget_mib": 5})
    expect_refusal(space.train(), BAD_CONFIG, ["the weights of", "do not fit", "model.dtype", "memory.budget_mib (now 5 MiB)"])


def test_sampling(space):
    edit_dataset(space.data, give_text)
    space.write_config(**CONFIG, sample={"prompts": ["ab"], "every": "2 steps", "max_tokens": 4},
                       faults=["oom step=4 phase=sample"])
    space.must_train(ranks=2)
    assert [line["inputs"] for line in decisions(space, "memory")] == [
        {"task": "sampling", "ranks": 1, "rank": 0, "leaf_size": 0}]
    assert sorted(file.stem for file in (space.output / "samples").iterdir()) == ["after", "before", "step-00000002"]
    expect_replay(space)


def test_a_fault_that_never_comes_is_named(space):
    missed = ["oom step=2 phase=forward rank=2", "slow step=9 phase=forward seconds=1", "oom step=3 phase=recovery"]
    space.write_config(**CONFIG, faults=[*missed, "oom step=3 phase=forward"])
    outcome = space.must_train(ranks=2)
    assert [line.split("faults: '")[1].split("'")[0] for line in outcome.stderr.splitlines() if "never came" in line] == missed


def test_not_a_number_is_skipped(space, undisturbed):
    space.write_config(**CONFIG, faults=["nan step=3 phase=backward rank=1"])
    space.must_train(ranks=3)
    assert [line["applied"] for line in course(space)] == [True, True, False, True, True, True]
    assert [line["lr"] for line in course(space)] == [line["lr"] for line in undisturbed]


def test_a_real_budget(space, template, tmp_path):
    """No fault: tensors of a rank may take so many MiB. The leaf shrinks until it fits; the curve stays."""
    write_dataset(space.data, make_documents(40, 250, 256))
    wide = {"data": {"train": str(space.data), "packing": False, "sequence_length": 256},
            "batch": {"global": 16, "micro": 16}, "evaluate": {"every": 0}}
    space.write_config(**wide)
    space.must_train()
    expected = course(space)
    budget = None
    for mib in (2, 4, 8, 12, 16, 24, 32, 48):
        other = template.copy(tmp_path / f"mib{mib}")
        other.write_config(**{**wide, "data": {**wide["data"], "train": str(space.data)}}, memory={"budget_mib": mib})
        outcome = other.train(ranks=2)
        if outcome.code == 0 and decisions(other, "memory"):
            budget = mib
            expect_same_course(course(other), expected)
            assert course(other)[-1]["micro_batch"] < 16
        else:
            assert outcome.code in (0, BAD_CONFIG), outcome.stderr[-3000:]
    assert budget is not None, "no budget made the leaf smaller"


@pytest.mark.parametrize("fault, word", [("oom", "phase="), ("oops step=1 phase=forward", "oops"),
                                         ("oom step=x phase=forward", "x"), ("oom step=1 phase=nowhere", "nowhere"),
                                         ("oom step=1 phase=forward rank=-1", "-1"), ("slow phase=sample blue", "blue"),
                                         ("nan step=1 phase=optimizer", "nan spoils a gradient")])
def test_faults_that_make_no_sense(space, fault, word):
    space.write_config(**CONFIG, faults=[fault])
    expect_refusal(space.train(), BAD_CONFIG, ["faults", word, "phase=forward"])
