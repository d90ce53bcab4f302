"""A disk that is full, or a limit on file sizes: the run never claims success, says which file could not be written
and why, and what was there before stays valid."""
import os
import re
import shutil
import subprocess

import pytest
from harness import Workspace, digest, environment, execute, expect_refusal, mpirun, verified
from reference import metrics

CANNOT_WRITE = 73


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    return Workspace.create(tmp_path_factory.mktemp("template"), program)


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of some KiB, for tests that run as root."""
    mounted = []

    def mount(kib):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], capture_output=True)
        if made.returncode != 0:
            pytest.skip("mounting a tmpfs is not allowed here")
        mounted.append(folder)
        return folder
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def limited(space, byte_count, ranks):
    """Trains where no file of the program grows beyond this; MPI's own files are not limited."""
    return execute(["mpirun", "--oversubscribe", "--bind-to", "none", "-n", ranks, "prlimit", f"--fsize={byte_count}",
                    *space.command("train")], env=environment(OMPI_MCA_btl="tcp,self"))


def fill(folder, leave):
    """Takes all space but `leave` bytes."""
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))


def test_disk_fills_up_at_a_checkpoint(space, small_disk):
    """The previous checkpoint stays byte for byte, and with space the run goes on from it."""
    disk = small_disk(4096)
    output = ["--set", f"run.output_dir={disk / 'run'}"]
    for ranks in (1, 3):
        shutil.rmtree(disk / "run", ignore_errors=True)
        (disk / "filler").unlink(missing_ok=True)
        space.must_train(*output, "--set", "budget=2 steps")
        fill(disk, leave=64 << 10)  # enough for the records, not for a checkpoint
        kept = disk / "run" / "checkpoints" / "step-00000002"
        before = digest(kept)
        outcome = space.train(*output, ranks=ranks)
        expect_refusal(outcome, CANNOT_WRITE, ["checkpoints", "No space left", "free space"])
        assert digest(kept) == before and verified(space.program, kept)
        assert [path.name for path in (disk / "run" / "checkpoints").glob("*step*")] == ["step-00000002"]
    (disk / "filler").unlink()
    space.must_train(*output)
    assert [line["step"] for line in metrics(disk / "run")] == [1, 2, 3, 4, 5, 6]


def test_disk_is_full_from_the_start(space, small_disk):
    disk = small_disk(64)
    fill(disk, leave=0)
    for ranks in (1, 3):
        outcome = space.train("--set", f"run.output_dir={disk / 'run'}", ranks=ranks)
        expect_refusal(outcome, CANNOT_WRITE, "No space left")


# Sizes at which one file after the other hits the limit, from the first record to the tensors of a checkpoint.
@pytest.mark.parametrize("limit", [0, 100, 1000, 3000, 8000, 30000])
def test_limit_on_file_sizes(space, limit):
    outcome = limited(space, limit, ranks=1)
    expect_refusal(outcome, CANNOT_WRITE, ["run", "ulimit -f"])
    for checkpoint in space.checkpoints():
        assert verified(space.program, checkpoint)


def test_limit_on_file_sizes_of_three_ranks(space):
    outcome = limited(space, 30000, ranks=3)
    expect_refusal(outcome, CANNOT_WRITE, ["checkpoints", "ulimit -f"])


@pytest.mark.parametrize("ranks", [1, 3])
def test_export_of_the_adapter_fails(space, ranks):
    """The folder for the result cannot be made: the checkpoint holds what was trained."""
    space.output.mkdir()
    (space.output / "adapter").write_text("mine")
    outcome = space.train(ranks=ranks)
    expect_refusal(outcome, CANNOT_WRITE, "adapter")
    assert (space.output / "adapter").read_text() == "mine"
    assert verified(space.program, space.output / "checkpoints" / "step-00000006")


def test_export_of_best_fails(space):
    space.output.mkdir()
    (space.output / "best").write_text("mine")
    outcome = space.train("--set", f"data.validation={space.data}", "--set", "evaluate.every=1 steps", ranks=3)
    expect_refusal(outcome, CANNOT_WRITE, "best")


def test_records_beside_a_full_disk(space, small_disk):
    """The disk of the records fills up while training: not a line may be lost without a word."""
    disk = small_disk(256)
    space.output.mkdir()
    for record in ("metrics.jsonl", "decisions.jsonl"):
        (disk / record).write_text("")
    fill(disk, leave=0)
    (disk / "metrics.jsonl").write_text("")
    outcome = space.train("--set", f"run.output_dir={disk}")
    assert outcome.code == CANNOT_WRITE, outcome.stderr[-2000:]


def test_tensorboard_is_not_worth_a_run(space):
    """Events that cannot be written are reported once; training goes on."""
    space.output.mkdir()
    (space.output / "tensorboard").write_text("mine")
    outcome = space.must_train()
    assert len(re.findall("TensorBoard values are being lost", outcome.stderr)) == 1


def test_full_standard_error(space):
    """Messages nobody can read do not end a run."""
    with open("/dev/full", "w") as full:
        run = subprocess.run(space.command("train"), stdout=full, stderr=full, env=environment(), timeout=60)
    assert run.returncode == 0
    assert verified(space.program, space.output / "checkpoints" / "step-00000006")


def test_plan_on_full_standard_output(space):
    with open("/dev/full", "w") as full:
        run = subprocess.run(space.command("plan"), stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=60)
    assert run.returncode == CANNOT_WRITE


def test_merge_on_a_full_disk(space, small_disk, template):
    from reference import add_adapter, make_model
    add_adapter(make_model("llama"), "all-linear").save_pretrained(space.folder / "adapter")
    disk = small_disk(100)
    outcome = execute([space.program, "merge", "--model", space.base, "--adapter", space.folder / "adapter", "--output",
                       disk / "merged"])
    expect_refusal(outcome, CANNOT_WRITE, ["merged", "No space left"])
    assert not list((disk / "merged").glob("*"))
