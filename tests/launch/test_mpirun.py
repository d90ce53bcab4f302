"""launch/mpirun.sh: real runs of two ranks, stop requests, exit codes, the command it builds."""
import os
import pathlib
import re
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


def test_messages_of_mpirun_are_passed_on(bench):
    """What is wrong with MPI itself, only mpirun can say."""
    result = launch(bench.program, "-n", 1, "train", bench.config("no-mpi", 2), OMPI_MCA_rmaps="nonsense")  # said by mpirun, not passed on from a rank
    assert result.returncode == 1 and "Component: nonsense" in result.stderr, result.stderr
    assert result.stderr.splitlines()[-1].startswith("mpirun.sh: exit 1: see the messages above; nothing is saved yet")


def script_of(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


RULE = "-" * 74


@pytest.mark.parametrize("said, seen", [
    ("one\ntwo\n", "one\ntwo\n"),
    ("no end", "no end\n"),  # then mpirun's banner, on the same line
    (f"{RULE}\na table\n{RULE}\nafter it\n", f"{RULE}\na table\n{RULE}\nafter it\n"),
    (f"{RULE}\na rule alone\n", f"{RULE}\na rule alone\n"),
    (f"{RULE}\n" + "long\n" * 150, f"{RULE}\n" + "long\n" * 150),
    ("back\\slash %s \ttab\n\n", "back\\slash %s \ttab\n\n"),
])
def test_messages_of_ranks_are_passed_on_whole(tmp_path, said, seen):
    (tmp_path / "said").write_text(said)
    program = script_of(tmp_path / "says.sh", f"cat {tmp_path}/said >&2\nexit 3\n")
    result = launch(program, "-n", 1, "train", "x.yaml")
    assert result.returncode == 3
    assert result.stderr == seen + "mpirun.sh: exit 3: see the messages above\n"


def test_message_comes_when_it_is_said(tmp_path):
    program = script_of(tmp_path / "waits.sh", f"echo '{RULE}' >&2\necho now >&2\nsleep 5\n")
    process = start(program, "-n", 1, "train", "x.yaml")
    begin = time.monotonic()
    wait_until(lambda: "now" in process.stderr.readline())
    assert process.poll() is None and time.monotonic() - begin < 4.5
    process.communicate(timeout=20)


def test_killed_rank_is_named_and_what_is_saved_is_said(bench):
    run = "killed-rank"
    process = start(bench.program, "-n", 2, "train", bench.config(run, 100000))
    started(process, bench, run, 4)
    (rank, *_) = [pid for pid in alive(f"^{bench.program} train .*{run}.yaml")]
    os.kill(rank, signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 137, errors
    saved = sorted((bench.folder / run / "checkpoints").glob("step-*"))[-1].name.removeprefix("step-").lstrip("0")
    assert re.search(r"^mpirun.sh: rank [01] on \S+ was ended by signal 9 \(Killed\)$", errors, re.M), errors
    assert errors.splitlines()[-1] == (
        f"mpirun.sh: exit 137: a rank was killed (out of memory? see dmesg); update {saved} is saved in "
        f"{bench.folder / run}/checkpoints, run again to go on from there")


HERE = os.uname().nodename


def in_slurm(nodes, tasks, **more):
    return {"SLURM_JOB_ID": "77", "SLURM_JOBID": "77", "SLURM_NODELIST": nodes, "SLURM_TASKS_PER_NODE": tasks, **more}


@pytest.mark.parametrize("variables", [in_slurm(HERE, "1"), in_slurm("n7", "1", SLURMD_NODENAME="n7"),
                                       in_slurm(HERE, "1", SLURM_JOB_NODELIST=HERE)])
def test_shell_of_one_task_starts_its_ranks(bench, variables):
    """A shell of `srun --gres=gpu:2 --pty bash` has one task, and SLURM gives Open MPI one slot."""
    result = launch(bench.program, "-n", 3, "--threads", 1, "train", bench.config("slurm-shell", 2), **variables)
    assert result.returncode == 0, result.stderr
    assert bench.metrics("slurm-shell")[-1]["world_size"] == 3
    shutil.rmtree(bench.folder / "slurm-shell")


@pytest.mark.parametrize("variables, ranks, words", [
    (in_slurm("node7", "1"), 2, ["has 1 task(s) on node7", "--ntasks-per-node=2,"]),
    (in_slurm("node[01-02]", "1(x2)"), 3, ["has 2 task(s) on node[01-02]", "--ntasks-per-node=2,"]),
    (in_slurm("a1,b[3-4]", "4(x2),3"), 12, ["has 11 task(s)", "--ntasks-per-node=4,"]),
    (in_slurm("node[01-02]", "many"), 2, ["SLURM_TASKS_PER_NODE is 'many'"]),
])
def test_shell_with_too_few_tasks_is_told_what_to_ask_for(bench, variables, ranks, words):
    result = launch(bench.program, "-n", ranks, "train", "x.yaml", **variables)
    assert result.returncode == 64 and result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_machines_of_a_slurm_job_are_left_to_open_mpi(tmp_path):
    script_of(tmp_path / "srun", "exit 0\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    command = built("--dry-run", "-n", 4, PATH=path, NCCL_DEBUG="INFO", **in_slurm("node[01-02]", "2(x2)"))
    assert "--oversubscribe" not in command and "^slurm" not in command
    assert command[command.index("NCCL_DEBUG") - 1] == "-x"
    # A hostfile is the user's word.
    command = built("--dry-run", "--hostfile", hosts(tmp_path, "localhost slots=2\n"), **in_slurm("node[01-02]", "1(x2)"))
    assert "^slurm" not in command and command[command.index("-n") + 1] == "2"


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


def test_a_machine_without_ssh(bench, tmp_path):
    """Open MPI would end before it starts anything."""
    names = tmp_path / "bin"
    names.mkdir()
    for folder in ("/usr/bin", "/bin"):
        for path in pathlib.Path(folder).iterdir():
            if path.name not in ("ssh", "rsh") and not (names / path.name).is_symlink():
                (names / path.name).symlink_to(path)
    result = launch(bench.program, "-n", 2, "train", bench.config("no-ssh", 2), PATH=str(names))
    assert result.returncode == 0, result.stderr
    assert bench.metrics("no-ssh")[-1]["world_size"] == 2
    isolated = " ".join(built("--dry-run", "-n", 2, PATH=str(names)))
    assert "--mca plm isolated" in isolated
    assert "plm" not in built("--dry-run", "--hostfile", hosts(tmp_path, "a slots=2\n"), PATH=str(names))


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
