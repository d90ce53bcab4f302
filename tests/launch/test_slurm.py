"""launch/slurm.sbatch on two real slurmd (cluster/slurm_testbed.sh): requeues at the time limit, on preemption, after
kills; what is not queued again; the checks before a submission."""
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

from conftest_launch import ROOT, environment, wait_until

BATCH = ROOT / "launch/slurm.sbatch"
MISSING = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
needs_slurm = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} "
                                                       "(scripts/debian-packages-slurm.txt)")
STEPS = 60


class Cluster:
    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        self.variables = environment(program, SLURM_CONF=str(folder / "bed/slurm.conf"))
        self.bed("start")

    def bed(self, verb):
        subprocess.run([ROOT / "cluster/slurm_testbed.sh", verb, self.folder / "bed"], check=True, timeout=60)

    def call(self, *words, check=True):
        return subprocess.run(list(map(str, words)), env=self.variables, cwd=self.folder, capture_output=True, text=True,
                              timeout=60, check=check)

    def submit(self, *words, program=None, options=(), **more):
        variables = {**self.variables, **more, **({"LORASCALE_PROGRAM": str(program)} if program else {})}
        result = subprocess.run(["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1",
                                 *options, BATCH, *map(str, words)], env=variables, cwd=self.folder,
                                capture_output=True, text=True, check=True, timeout=30)
        return result.stdout.strip()

    def record(self, job):
        text = self.call("scontrol", "show", "job", "-o", job).stdout
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def log(self, job):
        path = self.folder / f"lorascale-{job}.log"
        return path.read_text() if path.exists() else ""

    def wait(self, job, states, seconds=90, restarts=0):
        def there():
            record = self.record(job)
            return record["JobState"] in states and int(record["Restarts"]) >= restarts
        wait_until(there, seconds, f"{states} of job {job}:\n{self.log(job)}")
        return self.record(job)

    def wait_for_updates(self, job, bench, name, updates):
        def there():
            assert self.record(job)["JobState"] not in ("FAILED", "COMPLETED"), self.log(job)
            return bench.updates(name) >= updates
        wait_until(there, 60, f"{updates} updates:\n{self.log(job)}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, program):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"), program)
    yield cluster
    cluster.bed("stop")


@pytest.fixture(scope="module")
def whole(cluster, bench):
    """The run nobody interrupts, on two nodes."""
    job = cluster.submit("train", bench.config("slurm-whole", STEPS))
    record = cluster.wait(job, {"COMPLETED", "FAILED"})
    assert record["JobState"] == "COMPLETED", cluster.log(job)
    return bench.metrics("slurm-whole")


def same_curve(bench, name, whole):
    lines = [line for line in bench.metrics(name) if line["step"] > 0]  # 0: a validation before training
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines] == [line["loss"] for line in whole]


@needs_slurm
def test_two_nodes_are_two_ranks(cluster, whole):
    assert {line["world_size"] for line in whole} == {2}


@needs_slurm
def test_no_rank_leaves_mpi_init_before_all_are_in(cluster, bench, tmp_path):
    """A message to a rank that is not ready crashes it, so the fence must hold; SLURM's own choice does not."""
    library = tmp_path / "late_fence.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", library,
                    pathlib.Path(__file__).with_name("late_fence.c"), "-ldl"], check=True)
    ranks = tmp_path / "ranks.sh"  # the library is for the ranks alone
    ranks.write_text(f'#!/bin/sh\nLD_PRELOAD={library} exec {cluster.program} "$@"\n')
    ranks.chmod(0o755)
    job = cluster.submit("train", bench.config("slurm-fence", 2), program=ranks, FENCE_LOG=str(tmp_path / "fence"))
    record = cluster.wait(job, {"COMPLETED", "FAILED"})
    assert record["JobState"] == "COMPLETED", cluster.log(job)
    times = [dict(line.split() for line in (tmp_path / f"fence.{rank}").read_text().splitlines()) for rank in (0, 1)]
    came, left = ([float(rank[event]) for rank in times] for event in ("in", "out"))
    assert max(came) - min(came) > 0.5 and min(left) > max(came)


SHELL = """#!/bin/bash
{root}/launch/mpirun.sh -n 2 --threads 1 train {config} || echo "mpirun.sh: $?"
for part in 1 2; do {program} train {config} --set run.output_dir={alone}-$part || echo "alone: $?"; done
"""


@needs_slurm
@pytest.mark.parametrize("mpi", ["none", "pmix"])
def test_a_shell_of_one_task(cluster, bench, mpi):
    """As in `srun --pty bash`: ranks of mpirun.sh, and a run without a launcher, twice in the same step."""
    name = f"slurm-shell-{mpi}"
    script = cluster.folder / f"{name}.sh"
    script.write_text(SHELL.format(root=ROOT, config=bench.config(name, 4), program=cluster.program,
                                   alone=bench.folder / f"{name}-alone"))
    script.chmod(0o755)
    result = cluster.call("srun", "--ntasks=1", f"--mpi={mpi}", script)
    assert "mpirun.sh: " not in result.stdout and "alone: " not in result.stdout, result.stdout + result.stderr
    assert bench.metrics(name)[-1]["world_size"] == 2
    for part in (1, 2):
        assert [line["step"] for line in bench.metrics(f"{name}-alone-{part}")] == list(range(1, 5))


@needs_slurm
def test_tasks_without_a_way_to_each_other_are_one_line(cluster, bench):
    result = cluster.call("srun", "--kill-on-bad-exit=1", "--ntasks=2", "--mpi=none", cluster.program, "train",
                          bench.config("slurm-none", 2), check=False)
    assert result.returncode == 78, result.stderr
    said = [line for line in result.stderr.splitlines() if not line.startswith(("srun:", "slurmstepd"))]
    assert len(said) == 1 and "srun started 2 tasks" in said[0] and "--mpi=pmix" in said[0], result.stderr


@needs_slurm
def test_an_allocation_of_two_machines(cluster, bench):
    """Where the job has tasks enough, Open MPI reaches its machines through srun."""
    cluster.call("salloc", "--nodes=2", "--ntasks-per-node=1", "--quiet", ROOT / "launch/mpirun.sh", "-n", 2, "train",
                 bench.config("slurm-allocated", 2))
    assert bench.metrics("slurm-allocated")[-1]["world_size"] == 2
    result = cluster.call("salloc", "--nodes=2", "--ntasks-per-node=1", "--quiet", ROOT / "launch/mpirun.sh", "-n", 4,
                          "train", "x.yaml", check=False)
    assert result.returncode == 64 and "--ntasks-per-node=2" in result.stderr, result.stderr


@needs_slurm
def test_notice_before_the_time_limit_saves_and_queues_again(cluster, bench, whole):
    # 10 s into its 2 minutes at the latest: SLURM may give notice up to a minute early.
    config = bench.config("slurm-limit", 100000)
    job = cluster.submit("train", config, options=["--time=2", "--signal=B:USR1@110"])
    cluster.wait(job, {"PENDING"}, restarts=1)
    log = cluster.log(job)
    assert "SIGUSR1: finishing the update, then saving" in log and "exit 75" in log and "queued again" in log
    cluster.call("scancel", job)


@needs_slurm
def test_kills_and_requests_change_no_bit(cluster, bench, whole):
    chooser = random.Random(3)
    job = cluster.submit("train", bench.config("slurm-kills", STEPS))
    for restart, how in enumerate(["request", "kill", "request"]):
        cluster.wait_for_updates(job, bench, "slurm-kills", bench.updates("slurm-kills") + chooser.randint(4, 8))
        if how == "request":
            cluster.call("scancel", "--batch", "--signal=USR1", job)
        else:
            ranks = subprocess.run(["pgrep", "-f", f"^{cluster.program} train .*slurm-kills.yaml"],
                                   capture_output=True, text=True).stdout.split()
            os.kill(int(chooser.choice(ranks)), signal.SIGKILL)
        cluster.wait(job, {"PENDING"}, restarts=restart + 1)
    record = cluster.wait(job, {"COMPLETED", "FAILED"})
    assert record["JobState"] == "COMPLETED" and record["Restarts"] == "3", cluster.log(job)
    same_curve(bench, "slurm-kills", whole)


@needs_slurm
def test_preempted_job_saves_and_goes_on(cluster, bench, whole):
    job = cluster.submit("train", bench.config("slurm-preempted", STEPS, slow=True))
    cluster.wait_for_updates(job, bench, "slurm-preempted", 5)
    urgent = cluster.call("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--time=1",
                          "--output=urgent.log", "--wrap", "sleep 1").stdout.strip()
    cluster.wait(urgent, {"RUNNING", "COMPLETED"}, 40)
    saved = bench.metrics("slurm-preempted")[-1]["step"]
    assert (bench.folder / "slurm-preempted/checkpoints" / f"step-{saved:08d}").is_dir()
    record = cluster.wait(job, {"COMPLETED", "FAILED"})
    assert record["JobState"] == "COMPLETED" and record["Restarts"] == "1", cluster.log(job)
    same_curve(bench, "slurm-preempted", whole)


@needs_slurm
def test_cancelled_job_saves_and_stays_away(cluster, bench):
    job = cluster.submit("train", bench.config("slurm-cancelled", 100000))
    cluster.wait_for_updates(job, bench, "slurm-cancelled", 4)
    cluster.call("scancel", job)
    cluster.wait(job, {"CANCELLED"})
    wait_until(lambda: "exit 75" in cluster.log(job), 20, "the save")
    saved = bench.metrics("slurm-cancelled")[-1]["step"]
    assert (bench.folder / "slurm-cancelled/checkpoints" / f"step-{saved:08d}").is_dir()
    time.sleep(3)
    assert cluster.record(job)["JobState"] == "CANCELLED" and "queued again" not in cluster.log(job)


@needs_slurm
def test_user_error_is_final(cluster, bench):
    job = cluster.submit("train", "nowhere.yaml")
    record = cluster.wait(job, {"FAILED", "COMPLETED"})
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "65:0", "0")
    assert "lorascale: there is no configuration 'nowhere.yaml'" in cluster.log(job)


@needs_slurm
def test_gives_up_when_no_checkpoint_comes(cluster, tmp_path):
    program = tmp_path / "hang.sh"
    program.write_text("#!/bin/sh\nexit 86\n")
    program.chmod(0o755)
    job = cluster.submit("train", "x.yaml", program=program, LORASCALE_RETRIES="1")
    record = cluster.wait(job, {"FAILED", "COMPLETED"})
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "86:0", "1"), cluster.log(job)
    assert "gave up after 1 restarts without a new checkpoint" in cluster.log(job)
    job = cluster.submit("train", "x.yaml", program=program, LORASCALE_MAX_REQUEUES="0")
    record = cluster.wait(job, {"FAILED", "COMPLETED"})
    assert (record["ExitCode"], record["Restarts"]) == ("86:0", "0")
    assert "LORASCALE_MAX_REQUEUES" in cluster.log(job)


@pytest.fixture
def fake_sbatch(tmp_path, program, bench):
    """sbatch that shows how it was called, and a sound run.yaml."""
    (tmp_path / "sbatch").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "sbatch").chmod(0o755)
    (tmp_path / "run.yaml").write_text(bench.config("submitted", 4).read_text())

    def submit(*words, **more):
        variables = {**environment(program), **more}
        variables["PATH"] = f"{tmp_path}:{variables['PATH']}"
        return subprocess.run([BATCH, "submit", *words], env=variables, cwd=tmp_path, capture_output=True, text=True,
                              timeout=20)

    return submit


def test_submission_passes_options_and_notice_on(fake_sbatch):
    result = fake_sbatch("--nodes=2", "--stop-before", "300", "--time", "1:00:00", "--", "train", "run.yaml", "--set",
                         "run.seed=1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["--signal=B:USR1@300", "--nodes=2", "--time", "1:00:00", str(BATCH), "train",
                                     "run.yaml", "--set", "run.seed=1"]


@pytest.mark.parametrize("words, code, message", [
    (["--stop-before", "60", "--", "train", "run.yaml"], 64, "need more; raise it to 90"),
    (["--save-seconds", "200", "--", "train", "run.yaml"], 64, "raise it to 260"),
    (["--time=4", "--", "train", "run.yaml"], 64, "the time limit is 240 s"),
    (["--time=4", "--", "train", "run.yaml"], 64, "raise it to --time=0:05:00 at least"),
    (["--time=0:30:00", "--stop-before", "3600", "--", "train", "run.yaml"], 64, "--time=1:02:00"),
    (["--time=1:02", "--stop-before", "3601", "--", "train", "run.yaml"], 64, "--time=1:02:01"),
    (["-t", "0:04:59", "--", "train", "run.yaml"], 64, "the time limit is 299 s"),
    (["-t4:00", "--", "train", "run.yaml"], 64, "the time limit is 240 s"),
    (["--time=soon", "--", "train", "run.yaml"], 64, "--time is 'soon'"),
    (["--signal=USR1@60", "--", "train", "run.yaml"], 64, "--stop-before N instead"),
    (["--stop-before", "x", "--", "train", "run.yaml"], 64, "takes a number of seconds"),
    (["--nodes=2", "train", "run.yaml"], 64, "-- and the job are missing"),
    (["--", "train", "none.yaml"], 65, "none.yaml: no such configuration"),
])
def test_submission_is_checked(fake_sbatch, words, code, message):
    result = fake_sbatch(*words)
    assert (result.returncode, result.stdout) == (code, "") and message in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("limit", ["5", "5:00", "0:05:00", "0-1", "1-0", "0-0:05", "0-0:5:00", "24:00:00"])
def test_time_limits_as_sbatch_takes_them(fake_sbatch, limit):
    assert fake_sbatch("--time", limit, "--", "train", "run.yaml", LORASCALE_PROGRAM="/bin/true").returncode == 0


@pytest.mark.parametrize("setting, code, words", [
    ("optimizer.lrr=1e-3", 78, ["optimizer.lrr", "did you mean"]),
    ("adapter.targets=[no_proj]", 78, ["no_proj"]),
    ("model.path=/nowhere", 65, ["/nowhere"]),
    ("data.train=/nowhere.h5", 65, ["/nowhere.h5"]),
])
def test_what_plan_refuses_is_not_submitted(fake_sbatch, setting, code, words):
    result = fake_sbatch("--nodes=2", "--", "train", "run.yaml", "--set", setting)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    assert all(word in result.stderr for word in [*words, "not submitted"]), result.stderr
    unchecked = fake_sbatch("--unchecked", "--nodes=2", "--", "train", "run.yaml", "--set", setting)
    assert unchecked.returncode == 0 and "--unchecked" not in unchecked.stdout and setting in unchecked.stdout


def test_a_wrong_option_of_train_is_not_submitted(fake_sbatch):
    result = fake_sbatch("--nodes=2", "--", "train", "run.yaml", "--mroe", "2 epochs")
    assert (result.returncode, result.stdout) == (64, "") and "mroe" in result.stderr, result.stderr
    result = fake_sbatch("--nodes=2", "--", "train", "run.yaml", "--more", "2 epochs")
    assert result.returncode == 0 and "--more" in result.stdout, result.stderr


def test_notes_on_settings_are_seen_where_the_job_is_submitted(fake_sbatch):
    result = fake_sbatch("--nodes=2", "--", "train", "run.yaml", "--set", "optimizer.momentum=0.5")
    assert result.returncode == 0 and "optimizer.momentum" in result.stderr, result.stderr


def test_a_misspelt_key_of_the_file_is_not_submitted(fake_sbatch, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(path.read_text().replace("checkpoint:", "chekpoint:"))
    result = fake_sbatch("--", "train", "run.yaml")
    assert (result.returncode, result.stdout) == (78, "") and "chekpoint" in result.stderr, result.stderr


@pytest.mark.parametrize("options, ranks", [
    ([], 1), (["--nodes=2", "--ntasks-per-node=8"], 16), (["-N", "3"], 3), (["-N4", "-n", "6"], 6), (["-n6"], 6),
    (["--nodes=2-4", "--ntasks-per-node", "2"], 4), (["--ntasks=5", "--nodes=1"], 5), (["--nodes=some"], 1),
])
def test_the_check_is_for_the_jobs_ranks(fake_sbatch, tmp_path, options, ranks):
    program = tmp_path / "shows.sh"
    program.write_text('#!/bin/sh\necho "$@" >&2\nexit 3\n')
    program.chmod(0o755)
    result = fake_sbatch(*options, "--", "find-lr", "run.yaml", "--from", "1e-5", "--set", "a=1", "--set=b=2",
                         LORASCALE_PROGRAM=str(program))
    assert result.returncode == 3
    assert result.stderr.splitlines()[0] == f"plan --headers-only --ranks {ranks} run.yaml --set a=1 --set b=2"


def test_submission_checks_the_profile(fake_sbatch, tmp_path):
    (tmp_path / "bad.env").write_text("PATH=/tmp\n")
    result = fake_sbatch("--", "train", "run.yaml", LORASCALE_PROFILE=str(tmp_path / "bad.env"))
    assert result.returncode == 65 and "bad.env:1" in result.stderr


def test_the_scripts_own_notice_is_long_enough(program):
    text = BATCH.read_text()
    notice = int(re.search(r"^#SBATCH --signal=B:USR1@(\d+)", text, re.M)[1])
    assert notice >= 90
    for option in ("--requeue", "--open-mode=append"):
        assert re.search(rf"^#SBATCH {option}\b", text, re.M)


def test_outside_of_a_job(program):
    result = subprocess.run([BATCH, "train", "run.yaml"], env=environment(program), capture_output=True, text=True)
    assert result.returncode == 64 and "not inside a SLURM job" in result.stderr
    result = subprocess.run([BATCH, "--help"], env=environment(program), capture_output=True, text=True)
    assert result.returncode == 0 and "submit" in result.stdout and "#SBATCH" not in result.stdout


@pytest.mark.parametrize("given, policy", [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_waiting_threads_sleep_unless_told_otherwise(program, tmp_path, given, policy):
    """Inside a job, with an srun that only shows what it hands on."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "policy $OMP_WAIT_POLICY"\n')
    srun.chmod(0o755)
    variables = environment(program, SLURM_JOB_ID="7", SLURM_JOB_NODELIST="here", **given)
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"
    result = subprocess.run([BATCH, "train", "run.yaml"], env=variables, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout) == (0, f"policy {policy}\n"), result.stderr
