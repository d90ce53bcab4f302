"""SIGUSR1 at awkward moments: during start-up, twice, in the last step; Ctrl-C and a closed terminal on a run without a
launcher. The code is 75 or 0, never a crash, and the folder always holds a run that can go on."""
import json
import os
import random
import signal
import subprocess
import time

import pytest
from harness import Workspace, environment, metrics_steps, verified, wait_until

DONE, STOPPED, KILLED_BY_USR1 = 0, 75, 138
STEPS = 12


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    return Workspace.create(tmp_path_factory.mktemp("template"), program)


@pytest.fixture
def space(template, tmp_path):
    space = template.copy(tmp_path)
    space.write_config(budget=f"{STEPS} steps")
    return space


def finish(run, seconds=30):
    try:
        _, stderr = run.communicate(timeout=seconds)
        return run.returncode, stderr
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)


def expect_sound(space):
    """Whatever was saved verifies, and the next start ends the run with every step recorded once."""
    for checkpoint in space.checkpoints():
        assert verified(space.program, checkpoint), checkpoint
    space.must_train()
    assert metrics_steps(space) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("ranks", [1, 2])
def test_during_the_last_step(template, tmp_path, ranks):
    for attempt in range(3):
        space = template.copy(tmp_path / str(attempt))
        space.write_config(budget=f"{STEPS} steps")
        run = space.start(ranks=ranks)
        wait_until(lambda: space.lines() >= STEPS - 1 or run.poll() is not None)
        run.send_signal(signal.SIGUSR1)
        code, stderr = finish(run)
        assert code in (DONE, STOPPED), (code, stderr[-2000:])
        expect_sound(space)


@pytest.mark.parametrize("signals", [[signal.SIGUSR1] * 2, [signal.SIGTERM] * 2, [signal.SIGUSR1, signal.SIGTERM]])
def test_twice(space, signals):
    """The second request changes nothing: one checkpoint, 75."""
    run = space.start("--set", "budget=100000 steps")
    wait_until(lambda: space.lines() >= 3, run)
    for number in signals:
        run.send_signal(number)
        time.sleep(0.002)
    code, stderr = finish(run)
    assert code == STOPPED, (code, stderr[-2000:])
    steps = metrics_steps(space)
    assert steps == list(range(1, len(steps) + 1))
    assert space.checkpoints()[-1].name == f"step-{steps[-1]:08d}"
    assert all(verified(space.program, checkpoint) for checkpoint in space.checkpoints())


def test_to_one_rank_only(space):
    """The ranks agree: a signal that reaches one of them stops all."""
    run = space.start("--set", "budget=100000 steps", ranks=3)
    wait_until(lambda: space.lines() >= 3, run)
    os.kill(children_of(run.pid)[2], signal.SIGUSR1)
    code, stderr = finish(run)
    assert code == STOPPED, (code, stderr[-2000:])
    assert space.checkpoints()[-1].name == f"step-{metrics_steps(space)[-1]:08d}"


def stopped_and_saved(space):
    """The last update is in the newest checkpoint, and status.json says so."""
    last = metrics_steps(space)[-1]
    assert space.checkpoints()[-1].name == f"step-{last:08d}"
    status = json.loads((space.output / "status.json").read_text())
    assert (status["outcome"], status["exit_code"], status["step"]) == ("stopped", STOPPED, last)


@pytest.mark.parametrize("signals", [["SIGINT"], ["SIGHUP"], ["SIGHUP", "SIGHUP"], ["SIGTERM", "SIGHUP"]])
def test_a_terminals_signals_save(space, signals):
    """Ctrl-C sends SIGINT; a terminal that is closed or a log-out SIGHUP, perhaps more than once."""
    run = space.start("--set", "budget=100000 steps")
    wait_until(lambda: space.lines() >= 3, run)
    for name in signals:
        run.send_signal(getattr(signal, name))
    code, stderr = finish(run)
    assert code == STOPPED, (code, stderr[-2000:])
    assert stderr.count("finishing the update, then stopping") == 1
    stopped_and_saved(space)
    saved = metrics_steps(space)[-1]
    again = space.start("--set", "budget=100000 steps")  # goes on from there
    wait_until(lambda: f"resumed at step {saved} " in again.stderr.readline(), seconds=20)
    again.kill()
    again.communicate()


def test_terminal_that_is_closed(space):
    """The run has a terminal of its own, which the kernel hangs up; from then on no message can be written."""
    terminal, end = os.openpty()
    command = ["setsid", "--ctty", *space.command("train", "--set", "budget=100000 steps")]
    run = subprocess.Popen(command, env=environment(), stdin=end, stdout=end, stderr=end)
    os.close(end)
    wait_until(lambda: space.lines() >= 3)
    os.close(terminal)
    assert run.wait(timeout=30) == STOPPED
    stopped_and_saved(space)


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_interrupt_ends_at_once(space, first):
    """An update that takes its time: who has waited long enough does not wait for it."""
    run = space.start("--set", "budget=1000 steps", "--set", "checkpoint.every=1000 steps", "--set",
                      "faults=[slow step=2 phase=forward seconds=3]")
    wait_until(lambda: space.lines() >= 1, run)
    run.send_signal(getattr(signal, first))
    wait_until(lambda: "finishing the update" in run.stderr.readline())
    run.send_signal(signal.SIGINT)
    begin = time.monotonic()
    code, stderr = finish(run)
    assert code == -signal.SIGINT and "ending now" in stderr and time.monotonic() - begin < 2
    assert not space.checkpoints() and not (space.output / "status.json").exists()
    space.must_train("--set", "budget=2 steps")  # nothing of it is in the way


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_signals_that_were_ignored_stay_ignored(space, name):
    """nohup ignores SIGHUP, and a script's background jobs ignore SIGINT: those runs go on."""
    run = space.start(preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_IGN))
    wait_until(lambda: space.lines() >= 2, run)
    run.send_signal(getattr(signal, name))
    assert finish(run)[0] == DONE
    assert metrics_steps(space) == list(range(1, STEPS + 1))


def test_a_rank_of_several_leaves_the_end_to_its_launcher(space):
    """mpirun answers Ctrl-C with SIGTERM to its ranks, which may get the Ctrl-C as well: one request."""
    run = space.start("--set", "budget=100000 steps", ranks=2)
    wait_until(lambda: space.lines() >= 3, run)
    rank = children_of(run.pid)[-1]
    for name in ("SIGINT", "SIGTERM", "SIGINT"):
        os.kill(rank, getattr(signal, name))
    code, stderr = finish(run)
    assert code == STOPPED, (code, stderr[-2000:])
    assert "finishing the update" not in stderr
    stopped_and_saved(space)


def children_of(pid):
    path = f"/proc/{pid}/task/{pid}/children"
    with open(path) as file:
        return [int(word) for word in file.read().split()]


def moments():
    chooser = random.Random(11)
    return sorted(chooser.uniform(0, 0.6) for _ in range(8))


def test_during_start_up(space):
    """Before the handlers are in place a signal may end the program, but it leaves nothing half done."""
    codes = []
    for delay in moments():
        run = space.start()
        time.sleep(delay)
        run.send_signal(signal.SIGUSR1)
        codes.append(finish(run)[0])
        for checkpoint in space.checkpoints():
            assert verified(space.program, checkpoint)
    assert set(codes) <= {DONE, STOPPED, -signal.SIGUSR1}, codes
    expect_sound(space)


def test_during_start_up_is_a_request_like_any_other(space):
    """Before MPI_Init nothing can be promised, but from the first lock on it must be 75 or 0."""
    run = space.start("--set", "budget=100000 steps")
    wait_until(lambda: maps_mpi(run.pid), run)
    run.send_signal(signal.SIGUSR1)
    assert finish(run)[0] == STOPPED


def maps_mpi(pid):
    """Whether the program is past main()'s first line: MPI has loaded its parts."""
    try:
        with open(f"/proc/{pid}/maps") as file:
            return "mca_" in file.read()
    except OSError:
        return False
