"""A run folder that was damaged, belongs to another run or is in use: older checkpoints are fallen back to, nothing of
another run is touched, and no damaged state is ever trained on."""
import os
import re
import shutil
import signal
import socket
import time

import pytest
from harness import Workspace, digest, execute, expect_refusal, expect_replay, flip, mpirun, verified, wait_until
from reference import make_documents, make_model, metrics, write_dataset

BAD_INPUT, BAD_CONFIG, CANNOT_WRITE, STOPPED = 65, 78, 73, 75


@pytest.fixture(scope="module")
def trained(program, tmp_path_factory):
    """A finished run of 6 steps with checkpoints at 4 and 6, and how it goes on to step 8."""
    space = Workspace.create(tmp_path_factory.mktemp("trained"), program)
    space.write_config()
    space.must_train()
    assert [path.name for path in space.checkpoints()] == ["step-00000004", "step-00000006"]
    return space


@pytest.fixture
def space(trained, tmp_path):
    return trained.copy(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_link(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "flip": lambda path: flip(path, path.stat().st_size // 2),
    "cut": cut,
    "extend": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "empty": lambda path: path.write_bytes(b""),
    "delete": lambda path: path.unlink(),
    "folder": replace_by_folder,
    "link": replace_by_link,
    "fifo": replace_by_fifo,
}
FILES = ["MANIFEST.json", "state.json", "tensors.safetensors"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_falls_back(trained, space, damage):
    """Each file of the newest checkpoint in turn: the run goes on from the older one and ends as before."""
    for file in FILES:
        shutil.rmtree(space.output)
        shutil.copytree(trained.output, space.output)
        DAMAGES[damage](space.checkpoints()[-1] / file)
        outcome = space.must_train()
        assert re.search(r"step-00000006 is skipped: .*" + re.escape(file), outcome.stderr), outcome.stderr
        assert "resumed at step 4" in outcome.stderr
        assert [line["step"] for line in metrics(space.output)] == [1, 2, 3, 4, 5, 6]
        assert [line["loss"] for line in metrics(space.output)] == [line["loss"] for line in metrics(trained.output)]
        assert verified(space.program, space.checkpoints()[-1])


@pytest.mark.parametrize("ranks", [1, 3])
def test_no_intact_checkpoint_is_left(space, ranks):
    for number, checkpoint in enumerate(space.checkpoints()):
        DAMAGES[["flip", "delete"][number]](checkpoint / "tensors.safetensors")
    before = digest(space.output / "checkpoints")
    outcome = space.train(ranks=ranks)
    expect_refusal(outcome, BAD_INPUT, ["every checkpoint is damaged", "run.output_dir"])
    assert digest(space.output / "checkpoints") == before


@pytest.mark.parametrize("hint", ["step-00000002\n", "../../../etc\n", "\0\xff", ""])
def test_hint_is_only_a_hint(space, hint):
    (space.output / "checkpoints" / "LATEST").write_text(hint)
    assert "resumed at step 6" in space.must_train().stderr


@pytest.mark.parametrize("name", ["step-00000009", "step-9", "step-99999999999999999999", "step-00000009.bak"])
def test_foreign_folder_is_no_checkpoint(space, name):
    (space.output / "checkpoints" / name).mkdir()
    assert "resumed at step 6" in space.must_train().stderr


def test_renamed_checkpoint_is_not_trusted(space):
    space.checkpoints()[-1].rename(space.output / "checkpoints" / "step-00000099")
    outcome = space.must_train()
    assert "step-00000099 is skipped" in outcome.stderr and "resumed at step 4" in outcome.stderr


def other_weights(space):
    model = make_model("llama")
    for parameter in model.parameters():
        parameter.data.mul_(1.25)
    model.save_pretrained(space.base)


def other_family_settings(space):
    path = space.base / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e-06'))


def other_tokens(space):
    documents = make_documents(40, 4, 60)
    documents[7] = documents[7][::-1]
    write_dataset(space.data, documents)


OTHER_RUNS = {
    "rate": (lambda space: space.write_config(optimizer__lr=1e-4), "optimizer.lr"),
    "rank-of-adapter": (lambda space: space.write_config(adapter__rank=8), "adapter.rank"),
    "targets": (lambda space: space.write_config(adapter__targets=["q_proj"]), "adapter.targets"),
    "optimizer": (lambda space: space.write_config(optimizer__name="sgd"), "optimizer.name"),
    "batch": (lambda space: space.write_config(batch__global=12), "batch.global"),
    "seed": (lambda space: space.write_config(run__seed=5), "run.seed"),
    "model": (other_weights, "base model"),
    "model-config": (other_family_settings, "base model"),
    "longer-data-set": (lambda space: write_dataset(space.data, make_documents(41, 4, 60)), "training set"),
    "other-tokens": (other_tokens, "training set"),
}


@pytest.mark.parametrize("change, word", [pytest.param(*value, id=name) for name, value in OTHER_RUNS.items()])
def test_another_run_is_refused_by_name(space, change, word):
    change(space)
    expect_refusal(space.train(), BAD_CONFIG, ["belongs to another run", word])


@pytest.mark.parametrize("change", [pytest.param(value[0], id=name) for name, value in OTHER_RUNS.items()])
def test_another_run_is_refused(space, change):
    """Nothing of the run that owns the folder changes, and it goes on as if nothing had been."""
    kept = ("checkpoints", "adapter", "config.yaml", "metrics.jsonl", "decisions.jsonl")
    change(space)
    before = {name: entry for name, entry in digest(space.output).items() if name.split("/")[0] in kept}
    expect_refusal(space.train(), BAD_CONFIG, "belongs to another run")
    after = digest(space.output)
    assert {name: after.get(name) for name in before} == before


def test_another_run_is_refused_by_all_ranks(space):
    space.write_config(optimizer__lr=1e-4)
    expect_refusal(space.train(ranks=3), BAD_CONFIG, "belongs to another run")


def test_resume_never_refuses_old_checkpoints(space):
    before = digest(space.output / "checkpoints")
    for ranks in (1, 3):
        expect_refusal(space.train("--set", "run.resume=never", ranks=ranks), BAD_CONFIG, ["run.resume", "output_dir"])
    assert digest(space.output / "checkpoints") == before


def test_free_settings_may_change(space):
    """Speed, cadence, length and place of a run are no part of its recipe."""
    moved = space.folder / "moved"
    space.output.rename(moved)
    outcome = space.must_train(*[word for setting in (
        f"run.output_dir={moved}", "run.threads=2", "run.deadline_seconds=9", "model.recompute=true", "batch.micro=3",
        "checkpoint.every=1 steps", "checkpoint.keep=5", "budget=9 steps") for word in ("--set", setting)])
    assert "resumed at step 6" in outcome.stderr
    assert [line["step"] for line in metrics(moved)] == list(range(1, 10))


def test_finished_run_stays_as_it_is(space):
    before = digest(space.output)
    space.must_train()
    after = digest(space.output)
    for name in before:
        if name.startswith(("checkpoints", "adapter/adapter_model", "metrics")):
            assert after[name] == before[name], name


def test_second_job_is_sent_away(space):
    """The second ends at once and names the owner; the first is not disturbed."""
    shutil.rmtree(space.output)
    first = space.start("--set", "budget=100000 steps", ranks=2)
    try:
        wait_until(lambda: space.lines() >= 3, first)
        second = space.train("--set", "budget=100000 steps", ranks=2)
        owner = int((space.output / ".lock").read_text().split()[1])
        expect_refusal(second, CANNOT_WRITE, ["in use", f"process {owner}", socket.gethostname(), "run.output_dir"])
        assert first.poll() is None  # the second did not wait for its end
        seen = space.lines()
        wait_until(lambda: space.lines() > seen + 2, first)
        first.send_signal(signal.SIGUSR1)
        assert first.wait(timeout=30) == STOPPED
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
    steps = [line["step"] for line in metrics(space.output)]
    assert steps == list(range(1, len(steps) + 1))
    assert verified(space.program, space.checkpoints()[-1])


def test_job_left_by_a_dead_process_is_taken_over(space):
    """The lock goes with its owner; what it wrote about itself does not keep anybody out."""
    first = space.start("--set", "budget=100000 steps")
    wait_until(lambda: space.lines() >= 9, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(timeout=10)
    second = space.start("--set", "budget=100000 steps")
    seen = space.lines()
    wait_until(lambda: space.lines() > seen + 2, second)
    second.send_signal(signal.SIGUSR1)
    assert second.wait(timeout=30) == STOPPED


def test_data_set_that_shrinks_during_the_run(space):
    shutil.rmtree(space.output)
    write_dataset(space.data, make_documents(4000, 40, 60))
    run = space.start("--set", "budget=100000 steps")
    try:
        wait_until(lambda: space.lines() >= 4, run)
        os.truncate(space.data, 4096)
        _, stderr = run.communicate(timeout=30)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == BAD_INPUT, stderr
    assert "became shorter" in stderr and "train.h5" in stderr
    assert verified(space.program, space.checkpoints()[-1])


def test_diverging_run_keeps_the_last_finite_state(space):
    """71, and neither the checkpoints nor best/ ever hold a value that is not finite."""
    shutil.rmtree(space.output)
    space.write_config(optimizer={"lr": 1e30, "clip_norm": 0}, schedule={"name": "constant", "warmup": "3 steps"},
                       budget="60 steps", data__validation=str(space.data), evaluate={"every": "1 steps"},
                       checkpoint={"every": "1 steps", "keep": 3})
    for ranks in (1, 3):
        shutil.rmtree(space.output, ignore_errors=True)
        outcome = space.train(ranks=ranks)
        assert outcome.code == 71, outcome.stderr[-2000:]
        assert "diverged" in outcome.stderr or "not finite" in outcome.stderr
        for checkpoint in space.checkpoints():
            assert verified(space.program, checkpoint)
            assert_finite(checkpoint / "tensors.safetensors")
        if (space.output / "best").exists():
            assert_finite(space.output / "best" / "adapter_model.safetensors")
        assert not (space.output / "adapter").exists(), "a diverged adapter was exported"


def assert_finite(path):
    import numpy as np
    from safetensors.numpy import load_file
    for name, tensor in load_file(path).items():
        assert np.isfinite(tensor).all(), f"{path}: {name}"


def test_a_config_of_ones_own_in_the_folder_is_not_replaced(space, tmp_path):
    """config.yaml is the name under which a run keeps its settings, and a natural one for the user's own file."""
    own = tmp_path / "project/config.yaml"
    own.parent.mkdir()
    own.write_text("# my notes\n" + space.config.read_text())
    command = [space.program, "train", str(own), "--set", f"run.output_dir={own.parent}"]
    expect_refusal(execute(mpirun(2, command)), BAD_CONFIG, [f"{own} was not written by a run", "run.output_dir"])
    assert own.read_text().startswith("# my notes\n") and not (own.parent / "metrics.jsonl").exists()


def test_results_without_checkpoints_are_not_given_to_another_run(space):
    shutil.rmtree(space.output / "checkpoints")
    before = digest(space.output / "adapter")
    status = (space.output / "status.json").read_text()
    expect_refusal(space.train("--set", "optimizer.lr=0.1"), BAD_CONFIG, ["results of another run", "optimizer.lr"])
    expect_refusal(space.train("--set", "run.resume=never"), BAD_CONFIG, ["results of an earlier run", "run.resume"])
    (space.output / "config.yaml").rename(space.folder / "config.kept")
    expect_refusal(space.train(), BAD_CONFIG, ["unknown origin", "run.output_dir"])
    (space.folder / "config.kept").rename(space.output / "config.yaml")
    assert digest(space.output / "adapter") == before
    assert (space.output / "status.json").read_text() == status  # of the run that is in it
    outcome = space.must_train()  # the same run again makes the same
    assert "no checkpoint: it starts again from nothing" in outcome.stderr
    weights = "adapter_model.safetensors"  # the other file names the base model's folder
    assert digest(space.output / "adapter")[weights] == before[weights]


def test_a_run_that_died_early_leaves_its_folder_to_the_next(space):
    for name in ("checkpoints", "adapter", "best"):
        shutil.rmtree(space.output / name, ignore_errors=True)
    space.must_train("--set", "optimizer.lr=0.1")


def test_events_that_lost_their_end(space):
    """The last line feed is no loss; a line is, and what is left is set aside."""
    events = space.output / "events.jsonl"
    cut(events)
    space.must_train("--set", "budget=8 steps")
    expect_replay(space)
    events.write_bytes(events.read_bytes()[:-40])
    outcome = space.must_train("--set", "budget=10 steps")
    assert "cannot be replayed" in outcome.stderr and "events.jsonl.damaged" in outcome.stderr
    assert not events.exists() and (space.output / "events.jsonl.damaged").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "decisions.jsonl"])
def test_lost_records_are_named(space, name):
    (space.output / name).unlink()
    assert f"{name} is not there" in space.must_train("--set", "budget=8 steps").stderr


def test_early_stopping_saves_its_end(space):
    shutil.rmtree(space.output)
    space.write_config(data={"train": str(space.data), "validation": str(space.data), "packing": False, "sequence_length": 64},
                       evaluate={"every": "2 steps", "early_stop": {"patience": 2, "min_delta": 5.0}}, budget="30 steps",
                       checkpoint={"every": "100 steps"})
    space.must_train()
    last = metrics(space.output)[-1]["step"]
    assert last < 30 and [path.name for path in space.checkpoints()] == [f"step-{last:08d}"]
    before = digest(space.output / "adapter")
    space.must_train()  # nothing is left to do
    assert metrics(space.output)[-1]["step"] == last and digest(space.output / "adapter") == before
