"""launch/mpirun.sh: real runs of two ranks, stop requests, exit codes, the command it builds."""
import os
import shutil
import signal
import subprocess
import time

import pytest

from conftest_launch import ROOT, environment, launch, start, wait_until

STEPS = 40


def alive(pattern: str) -> list:
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in found]


def started(process, bench, name, updates):
    wait_until(lambda: bench.updates(name) >= updates or process.poll() is not None, what=f"{updates} updates")
    assert process.poll() is None, process.stderr.read()


@pytest.fixture(scope="module")
def whole(bench):
    """The run nobody interrupts."""
    result = launch(bench.program, "-n", 2, "train", bench.config("whole", STEPS))
    assert result.returncode == 0, result.stderr
    return bench.metrics("whole")


def test_two_ranks_train(bench, whole):
    assert [line["step"] for line in whole] == list(range(1, STEPS + 1))
    assert {line["world_size"] for line in whole} == {2}
    assert (bench.folder / "whole/adapter/adapter_model.safetensors").exists()


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1"])
def test_stop_request_saves_and_the_next_start_goes_on(bench, whole, name):
    run = f"stopped-{name}"
    process = start(bench.program, "-n", 2, "train", bench.config(run, STEPS))
    started(process, bench, run, 4)
    process.send_signal(getattr(signal, f"SIG{name}"))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors
    assert f"SIG{name}: finishing the update, then saving" in errors
    assert "exit 75: stopped on request" in errors
    steps = bench.metrics(run)[-1]["step"]
    assert (bench.folder / run / "checkpoints" / f"step-{steps:08d}").is_dir()
    assert steps < STEPS
    result = launch(bench.program, "-n", 2, "train", bench.config(run, STEPS))
    assert result.returncode == 0, result.stderr
    assert [line["loss"] for line in bench.metrics(run)] == [line["loss"] for line in whole]


@pytest.mark.parametrize("names", [["USR1"] * 3, ["HUP", "HUP"], ["HUP", "TERM"]])  # a log-out sends the latter two
def test_repeated_user_signal_is_still_one_request(bench, names):
    run = "-".join(names)
    process = start(bench.program, "-n", 2, "train", bench.config(run, STEPS))
    started(process, bench, run, 3)
    for name in names:
        process.send_signal(getattr(signal, f"SIG{name}"))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors


def test_terminal_that_is_gone_costs_no_update(bench):
    terminal, end = os.openpty()
    process = subprocess.Popen([ROOT / "launch/mpirun.sh", "-n", "2", "train", bench.config("hung-up", STEPS)],
                               env=environment(bench.program), stdout=end, stderr=end)
    os.close(end)
    wait_until(lambda: bench.updates("hung-up") >= 3, what="3 updates")
    os.close(terminal)  # from here on every message fails
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 75
    saved = bench.metrics("hung-up")[-1]["step"]
    assert saved < STEPS and (bench.folder / "hung-up/checkpoints" / f"step-{saved:08d}").is_dir()


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8])
def test_request_during_start_up_is_75_and_loses_nothing(bench, delay):
    process = start(bench.program, "-n", 2, "train", bench.config("early", 100000))
    wait_until(lambda: alive(f"mpirun.* {bench.program} train .*early.yaml"), what="mpirun")
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors


@pytest.fixture
def deaf(tmp_path):
    """A program that saves for ever: it takes no notice of any request."""
    script = tmp_path / "deaf.sh"
    script.write_text("#!/bin/sh\ntrap '' USR1 TERM\ntouch " + str(tmp_path / "up") + "\n"
                      "while :; do sleep 0.1; done\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("name, code", [("TERM", 143), ("INT", 130)])
def test_second_request_ends_at_once(deaf, tmp_path, name, code):
    process = start(deaf, "-n", 2, "train", "x.yaml")
    wait_until((tmp_path / "up").exists)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: "finishing" in process.stderr.readline())
    process.send_signal(getattr(signal, f"SIG{name}"))
    _, errors = process.communicate(timeout=15)
    assert process.returncode == code
    assert f"second SIG{name}: ending now" in errors
    wait_until(lambda: not alive(str(deaf)), 10, "the end of all ranks")


def test_ranks_end_with_a_killed_mpirun(deaf, tmp_path):
    process = start(deaf, "-n", 2, "train", "x.yaml")
    wait_until((tmp_path / "up").exists)
    for pid in alive(f"^mpirun .*{deaf}"):
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 1
    while time.monotonic() < end:  # an impatient user's Ctrl-C reaches all that the launcher runs
        subprocess.run(["pkill", "-INT", "-x", "-P", str(process.pid), "sleep"])
    _, errors = process.communicate(timeout=15)
    assert "exit 137" in errors
    assert not alive(str(deaf))  # before the launcher ends: another start may follow at once


def test_ranks_end_with_a_killed_launcher(deaf, tmp_path):
    process = start(deaf, "-n", 2, "train", "x.yaml")
    wait_until((tmp_path / "up").exists)
    process.kill()
    process.wait(timeout=5)
    wait_until(lambda: not alive(str(deaf)), 10, "the end of all ranks")


def test_one_line_errors_stand_alone(bench):
    result = launch(bench.program, "-n", 2, "train", "missing.yaml")
    assert result.returncode == 65
    lines = result.stderr.splitlines()
    assert lines and all(line.startswith(("lorascale: ", "mpirun.sh: ")) for line in lines), result.stderr
    assert lines[-1] == "mpirun.sh: exit 65: bad input file"


@pytest.mark.parametrize("arguments, words", [
    (["train", "x.yaml"], "-n, the number of ranks, is missing"),
    (["-n"], "-n needs a value"),
    (["-n", "2"], "a verb and its configuration are missing"),
    (["-n", "0", "train", "x"], "whole number from 1"),
    (["-n", "two", "train", "x"], "-n is 'two'"),
    (["-n", "1", "--retries", "-1", "train", "x"], "--retries is '-1'"),
    (["-n", "1", "--threads", "1.5", "train", "x"], "--threads is '1.5'"),
    (["-n", "1", "--bind", "socket", "train", "x"], "takes none or cores"),
    (["-n", "1", "--bind", "cores", "--threads", "4000", "train", "x"], "need more than the"),
    (["-n", "1", "--gpus", "2", "train", "x"], "unknown option '--gpus'"),
])
def test_wrong_command_line(bench, arguments, words):
    result = launch(bench.program, *arguments)
    assert result.returncode == 64 and words in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_program_is_named():
    result = launch("/nowhere/lorascale", "-n", 1, "train", "x.yaml")
    assert result.returncode == 64 and "/nowhere/lorascale" in result.stderr


def test_help():
    result = launch("/bin/true", "--help")
    assert result.returncode == 0
    for word in ("--hostfile", "--profile", "--retries", "75", "SIGTERM"):
        assert word in result.stdout


def built(*arguments, **more):
    result = launch("/bin/true", *arguments, "train", "x.yaml", "--set", "run.seed=1", **more)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def hosts(tmp_path, text):
    path = tmp_path / "hosts"
    path.write_text(text)
    return path


def test_command_of_one_machine():
    command = built("--dry-run", "-n", 1)
    assert command[0] == "mpirun" and command[-5:] == [os.path.realpath("/bin/true"), "train", "x.yaml", "--set",
                                                       "run.seed=1"]
    assert ("--allow-run-as-root" in command) == (os.geteuid() == 0)
    assert command[command.index("--bind-to") + 1] == "none" and "--oversubscribe" not in command
    assert "--hostfile" not in command and "oob_tcp_keepalive_time" not in command
    assert "--oversubscribe" in built("--dry-run", "-n", 4096)


def test_command_of_several_machines(tmp_path):
    path = hosts(tmp_path, "# two\nalpha slots=4\nbeta slots=2 max_slots=8  # smaller\n\n")
    command = built("--dry-run", "--hostfile", path, NCCL_DEBUG="INFO", UNRELATED="1")
    assert command[command.index("-n") + 1] == "6"
    forwarded = [command[i + 1] for i, word in enumerate(command) if word == "-x"]
    assert {"NCCL_DEBUG", "OMP_NUM_THREADS", "PATH"} <= set(forwarded) and "UNRELATED" not in forwarded
    assert command[command.index("oob_tcp_keepalive_time") + 1] == "5"  # a cut link is seen after 5 + 3 * 1 s


@pytest.mark.parametrize("text, code, words", [
    ("", 65, "names no machine"),
    ("alpha slots=two\n", 65, "hosts:1: not NAME slots=RANKS"),
    ("alpha slots=1\nbeta; reboot\n", 65, "hosts:2: not NAME slots=RANKS"),
    ("alpha slots=1\n", 64, "has 1 slots"),
])
def test_wrong_hostfile(bench, tmp_path, text, code, words):
    result = launch(bench.program, "-n", 2, "--hostfile", hosts(tmp_path, text), "train", "x")
    assert result.returncode == code and words in result.stderr, result.stderr


def test_hostfile_run(bench, tmp_path):
    path = hosts(tmp_path, "localhost slots=2\n")
    profile = ROOT / "cluster/ethernet.env"
    result = launch(bench.program, "--hostfile", path, "--profile", profile, "train", bench.config("hosts", 2))
    assert result.returncode == 0, result.stderr
    assert bench.metrics("hosts")[-1]["world_size"] == 2


def test_bound_ranks_keep_their_threads(bench):
    result = launch(bench.program, "-n", 1, "--bind", "cores", "--threads", 1, "train", bench.config("bound", 2))
    assert result.returncode == 0, result.stderr
    command = built("--dry-run", "-n", 1, "--bind", "cores", "--threads", 1)
    assert "ppr:1:node:PE=1" in command and command[-1] == "run.threads=1"


def test_threads_are_the_cores_over_the_ranks(tmp_path):
    script = tmp_path / "show.sh"
    script.write_text("#!/bin/sh\necho threads=$OMP_NUM_THREADS\n")
    script.chmod(0o755)
    variables = environment(script)
    del variables["OMP_NUM_THREADS"]
    cores = len({tuple(line.split(",")) for line in subprocess.run(
        ["lscpu", "-p=CORE,SOCKET"], capture_output=True, text=True).stdout.splitlines() if line[:1] != "#"})
    for arguments, expected in ((["-n", "1"], cores), (["-n", "2"], max(1, cores // 2)),
                                (["-n", "1", "--threads", "3"], 3)):
        result = subprocess.run([ROOT / "launch/mpirun.sh", *arguments, "train", "x"], env=variables,
                                capture_output=True, text=True, timeout=30)
        assert set(result.stdout.split()) == {f"threads={expected}"}, result.stderr


def test_scripts_pass_shellcheck():
    scripts = [*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch"), *ROOT.glob("cluster/*.sh"),
               ROOT / "scripts/bundle.sh"]
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    result = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("given, policy", [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_waiting_threads_sleep_unless_told_otherwise(tmp_path, given, policy):
    script = tmp_path / "says.sh"
    script.write_text('#!/bin/sh\necho "policy $OMP_WAIT_POLICY"\n')
    script.chmod(0o755)
    result = launch(script, "-n", 2, "train", "x.yaml", **given)
    assert result.returncode == 0 and result.stdout.split("\n")[:2] == [f"policy {policy}"] * 2, result.stderr
    # To other machines as well.
    command = built("--dry-run", "-n", 2, "--hostfile", hosts(tmp_path, "localhost slots=2\n"), **given)
    assert command[command.index("OMP_WAIT_POLICY") - 1] == "-x"


def test_a_profile_may_say_how_threads_wait(tmp_path):
    profile = tmp_path / "busy.env"
    profile.write_text("OMP_WAIT_POLICY=active\n")
    script = tmp_path / "says.sh"
    script.write_text('#!/bin/sh\necho "policy $OMP_WAIT_POLICY"\n')
    script.chmod(0o755)
    assert launch(script, "-n", 1, "--profile", profile, "train", "x.yaml").stdout == "policy active\n"
