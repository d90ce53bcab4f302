"""divergence.action: recover. A run that diverges is back at its newest checkpoint with half the rate, says so, does it no
more often than it may, and remembers it over kills."""
import json
import shutil

import pytest
from harness import Workspace, expect_replay, metrics_steps, verified, wait_until
from reference import metrics

NAN = [f"nan step={step}" for step in range(9, 19)]  # ten in a row: a divergence
SKIPPED = 10


@pytest.fixture(scope="module")
def template(tmp_path_factory, program):
    return Workspace.create(tmp_path_factory.mktemp("recovery"), program)


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


RECOVER = {"action": "recover", "max_recoveries": 2, "warmup": "4 steps"}


def write(space, **changes):
    settings = {"divergence": RECOVER, "budget": "30 steps", "checkpoint": {"every": "4 steps", "keep": 3},
                "run__reduction": "exact", **changes}
    space.write_config(**settings)


def decisions(space, *kinds):
    lines = [json.loads(line) for line in (space.output / "decisions.jsonl").read_text().splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    return [line for line in lines if not kinds or line["kind"] in kinds]


def rates(space):
    return {line["step"]: line["lr"] for line in metrics(space.output)}


@pytest.mark.parametrize("ranks", [1, 2])
def test_goes_back_and_on_at_half_the_rate(space, ranks):
    write(space, faults=NAN)
    outcome = space.must_train(ranks=ranks)
    assert "back to step 8" in outcome.stderr
    # Every update has one line, those that were undone have none.
    assert metrics_steps(space) == list(range(1, 31))
    assert all(line["applied"] for line in metrics(space.output))
    # The log keeps what was undone, and the recovery with its numbers.
    assert len(decisions(space, "skip")) == SKIPPED
    assert [line["kind"] for line in decisions(space, "diverged", "recover")] == ["diverged", "recover"]
    assert decisions(space, "recover")[0]["inputs"] == {
        "diverged_step": 18, "diverged_samples": 104, "recovery": 1, "max_recoveries": 2, "lr_factor": 0.5,
        "warmup_samples": 24}
    lr = rates(space)
    assert all(lr[step] == 3e-3 for step in (1, 2, 3, 4, 5, 6, 8))
    full = 1.5e-3
    assert [lr[step] / full for step in (9, 10, 11, 12, 13)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert json.loads((space.output / "status.json").read_text())["outcome"] == "done"


def test_same_bits_on_any_number_of_ranks(space, template, tmp_path_factory):
    losses = []
    for ranks in (1, 2, 3):
        space = template.copy(tmp_path_factory.mktemp("ranks"))
        write(space, faults=NAN)
        space.must_train(ranks=ranks)
        losses.append([line["loss"] for line in metrics(space.output)])
    assert losses[0] == losses[1] == losses[2]


def test_the_undone_part_leaves_no_trace(space, template, tmp_path_factory):
    """Parameters, moments and the order of samples are those of the checkpoint: up to it the run is the one without the
    trouble, and after it one that begins there with the lower rates."""
    write(space, faults=NAN)
    space.must_train()
    straight = template.copy(tmp_path_factory.mktemp("straight"))
    write(straight)
    straight.must_train()
    with_trouble, without = metrics(space.output), metrics(straight.output)
    assert [line["loss"] for line in with_trouble[:9]] == [line["loss"] for line in without[:9]]
    assert with_trouble[10]["loss"] != without[10]["loss"]
    for key in ("samples", "tokens", "targets"):
        assert [line[key] for line in with_trouble] == [line[key] for line in without], key


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_limit(space, ranks):
    write(space, faults=[f"{fault} times=99" for fault in NAN])
    outcome = space.train(ranks=ranks)
    assert outcome.code == 71, outcome.stderr[-2000:]
    assert "after 2 recoveries; lower optimizer.lr" in outcome.stderr
    assert [line["inputs"]["lr_factor"] for line in decisions(space, "recover")] == [0.5, 0.25]
    assert len(decisions(space, "diverged")) == 3
    status = json.loads((space.output / "status.json").read_text())
    assert (status["outcome"], status["exit_code"]) == ("failed", 71)
    # The recoveries are spent for good: started again, it ends again. Allowed more, it goes on.
    assert space.train(ranks=ranks).code == 71
    assert len(decisions(space, "recover")) == 2
    outcome = space.train("--set", "divergence.max_recoveries=3", "--set", "faults=[]", ranks=ranks)
    assert outcome.code == 0 and metrics_steps(space) == list(range(1, 31))
    assert rates(space)[30] == pytest.approx(3e-3 / 4)
    expect_replay(space)


def test_stop_is_the_default_and_can_be_changed_afterwards(space):
    """The newest checkpoint is one before the trouble, so that from there another course is possible."""
    write(space, faults=NAN, divergence=None, checkpoint={"every": "3 steps", "keep": 3})
    outcome = space.train()
    assert outcome.code == 71 and "training diverged at step 18; lower optimizer.lr" in outcome.stderr
    assert not decisions(space, "recover") and len(decisions(space, "diverged")) == 1
    assert [folder.name for folder in space.checkpoints()] == ["step-00000003", "step-00000006"]
    space.must_train("--set", "divergence.action=recover")
    assert len(decisions(space, "recover")) == 1
    assert metrics_steps(space) == list(range(1, 31))
    expect_replay(space)


def test_without_a_checkpoint_it_begins_anew(space):
    write(space, faults=NAN, checkpoint={"every": "1000 steps"})
    space.must_train()
    assert decisions(space, "recover")[0]["step"] == 0
    assert metrics_steps(space) == list(range(1, 31))
    assert rates(space)[30] == pytest.approx(1.5e-3)


def test_replayed_over_a_batch_that_followed_the_ranks(space):
    """Saved by 2 ranks, resumed on 3 with a batch half as large again, and back to before that."""
    more = {"checkpoint": {"every": "8 steps"}, "budget": "8 steps", "schedule": {"name": "constant", "warmup": "0 samples"},
            "batch": {"global": 6, "micro": 2}}  # 9 is no multiple of the leaf
    write(space, **more)
    space.must_train(ranks=2)
    write(space, **{**more, "budget": "30 steps"}, faults=NAN, batch__on_resize="rescale")
    space.must_train(ranks=3)
    assert [line["step"] for line in decisions(space, "recover")] == [8]
    assert {line["global_batch"] for line in metrics(space.output) if line["step"] in (20, 21)} == {9}
    expect_replay(space)


def test_out_of_memory_in_the_middle_of_it(space):
    write(space, faults=[*NAN, "oom step=18 phase=recovery rank=1 times=2"])
    space.must_train(ranks=2)
    assert [line["inputs"] for line in decisions(space, "memory")] == [
        {"task": "recovery", "ranks": 1, "rank": 1, "leaf_size": 0}] * 2
    assert len(decisions(space, "recover")) == 1 and metrics_steps(space) == list(range(1, 31))
    expect_replay(space)


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_before_the_recovery_is_saved(space, ranks):
    """Nothing of it was promised yet: the run goes on from the checkpoint as if it had not diverged."""
    write(space, faults=[*NAN, "kill step=18 phase=recovery"])
    assert space.train(ranks=ranks).code != 0
    assert all(verified(space.program, folder) for folder in space.checkpoints())
    outcome = space.train("--set", f"faults={json.dumps(NAN)}", ranks=ranks)
    assert outcome.code == 0, outcome.stderr[-2000:]
    assert len(decisions(space, "recover")) == 1 and len(decisions(space, "diverged")) == 1
    assert metrics_steps(space) == list(range(1, 31))
    expect_replay(space)


@pytest.mark.parametrize("ranks, then", [(1, 1), (2, 1), (1, 2)])
def test_killed_after_the_recovery_is_saved(space, template, tmp_path_factory, ranks, then):
    """Killed on the way after a recovery whose checkpoint is the newest: bit for bit the run without the kill."""
    never = {"every": "1000 steps"}
    write(space, faults=[*NAN, "kill step=20 phase=forward"], checkpoint=never)
    assert space.train(ranks=ranks).code != 0
    space.must_train("--set", "faults=[]", ranks=then)
    whole = template.copy(tmp_path_factory.mktemp("whole"))
    write(whole, faults=NAN, checkpoint=never)
    whole.must_train()
    for key in ("step", "loss", "lr", "samples"):
        assert [line[key] for line in metrics(space.output)] == [line[key] for line in metrics(whole.output)], key
    assert len(decisions(space, "recover")) == 1
    kept = [{key: line[key] for key in ("kind", "step", "reason", "inputs")}
            for run in (space, whole) for line in decisions(run, "diverged", "recover")]
    assert kept[:2] == kept[2:] and len(kept) == 4
    expect_replay(space)


def test_goes_one_checkpoint_further_where_the_newest_was_in_vain(space):
    """What diverges may be in the newest checkpoint already: the trouble of steps 13 to 22 comes back after it."""
    twice = [f"nan step={step} times=2" for step in range(13, 23)]
    write(space, faults=twice, batch={"global": 6, "micro": 6})  # one leaf: a fault comes once in an update
    outcome = space.must_train()
    assert "step 12 was gone back to in vain" in outcome.stderr
    assert [(line["step"], line["inputs"]["lr_factor"]) for line in decisions(space, "recover")] == [(12, 0.5), (8, 0.25)]
    assert metrics_steps(space) == list(range(1, 31))
    assert rates(space)[30] == pytest.approx(3e-3 / 4)
    assert all(verified(space.program, folder) for folder in space.checkpoints())


def test_a_rate_that_diverges(space):
    """Not by a fault: SGD on all weights with a rate far beyond what they bear."""
    write(space, adapter={"type": "full"}, optimizer={"name": "sgd", "lr": 1000.0, "momentum": 0.9, "clip_norm": 0},
          schedule={"name": "constant", "warmup": "100 steps"}, budget="120 steps", checkpoint={"every": "5 steps"},
          divergence={**RECOVER, "max_recoveries": 12})
    outcome = space.train()
    found = decisions(space, "diverged", "recover")
    recoveries = len(decisions(space, "recover"))
    assert recoveries >= 1, outcome.stderr[-2000:]
    assert [line["kind"] for line in found] == (["diverged", "recover"] * 13)[:len(found)]
    assert outcome.code == (0 if len(found) == 2 * recoveries else 71), outcome.stderr[-2000:]
    for diverged, recover in zip(found[::2], found[1::2]):
        # No checkpoint was taken in trouble: it goes back to before the first of the updates that count against it.
        in_a_row = diverged["inputs"].get("outliers_in_row", SKIPPED)
        assert recover["step"] <= diverged["step"] - in_a_row
    lines = metrics(space.output)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["lr"] <= 1000 / 2 ** recoveries


def test_checkpoints_that_somebody_removed(space):
    write(space, faults=[*NAN, "slow step=18 phase=forward seconds=3"], checkpoint={"every": "1000 steps"})
    process = space.start()
    wait_until(lambda: space.lines() >= 17, process)
    shutil.rmtree(space.output / "checkpoints")
    assert process.wait(timeout=30) == 65
    assert "no checkpoint to go back to" in process.stderr.read()
