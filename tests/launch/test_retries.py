"""mpirun.sh --retries: what is tried again, how often, and what is not; with a program that plays a script of ends."""
import json
import os
import signal
import subprocess

import pytest

from conftest_launch import ROOT, launch, start, wait_until

# Plays the next line of `plan` each time it is started:  CODE [checkpoint] [status:CODE] [kill:SIGNAL]
PLAYER = r"""#!/bin/bash
cd "$(dirname "$0")" || exit 99
[[ ${OMPI_COMM_WORLD_RANK:-0} == 0 ]] || { sleep 5; exit 0; }
echo start >>starts
read -r code rest < <(sed -n "$(wc -l <starts)p" plan)
step=$(printf 'step-%08d' "$(wc -l <starts)")
for word in $rest; do
  case $word in
    checkpoint) mkdir -p "run/checkpoints/$step"; echo '{}' >"run/checkpoints/$step/MANIFEST.json" ;;
    torn) mkdir -p "run/checkpoints/$step" ;;
    status:*)
      outcome=failed; [[ $word == status:75 ]] && outcome=stopped; [[ $word == status:0 ]] && outcome=running
      mkdir -p run
      printf '{\n  "outcome": "%s",\n  "exit_code": %s,\n  "step": 1\n}\n' $outcome "${word#*:}" >run/status.tmp
      mv run/status.tmp run/status.json ;;
    kill:*) kill -"${word#*:}" $$ ;;
  esac
done
exit "$code"
"""

# Stands in for mpirun, which takes a second or two to end a failed job: starts the program once.
STUB = r"""#!/bin/bash
while [[ $1 != */player.sh && $1 != */stopper.sh ]]; do shift; done
exec env --default-signal=USR1 "$@"
"""

# Stands in for an mpirun that is slow to end: hands SIGUSR1 on to its rank while there is one, and no longer afterwards.
SLOW_TO_END = r"""#!/usr/bin/env python3
import signal, subprocess, sys, time
first = next(i for i, word in enumerate(sys.argv) if word.endswith("stopper.sh"))
before = signal.getsignal(signal.SIGUSR1)
rank = None
signal.signal(signal.SIGUSR1, lambda *_: rank and rank.send_signal(signal.SIGUSR1))
rank = subprocess.Popen(sys.argv[first:], restore_signals=False)
code = rank.wait()
signal.signal(signal.SIGUSR1, before)
time.sleep(2.5)
sys.exit(code)
"""

# A run that is asked to stop: writes what it is told to, and ends as it is told to.
STOPPER = r"""#!/bin/bash
cd "$(dirname "$0")" || exit 99
finish() {
  if [[ -n $TELLS ]]; then
    mkdir -p run
    printf '{\n  "outcome": "%s",\n  "exit_code": %s\n}\n' "${TELLS%:*}" "${TELLS#*:}" >run/status.json
  fi
  trap - USR1
  [[ $ENDS != kill ]] || kill -USR1 $$
  exit "$ENDS"
}
trap finish USR1
echo start >>starts
for ((i = 0; i < 300; i++)); do sleep 0.1; done
"""


@pytest.fixture
def stub(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "mpirun").write_text(STUB)
    (folder / "mpirun").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def play(tmp_path, stub):
    program = tmp_path / "player.sh"
    program.write_text(PLAYER)
    program.chmod(0o755)

    def run(*plan, retries=3, ranks=1):
        (tmp_path / "plan").write_text("".join(f"{line}\n" for line in plan))
        result = launch(program, "-n", ranks, "--retries", retries, "--retry-wait", 0, "train", "x.yaml",
                        "--set", f"run.output_dir={tmp_path / 'run'}", **(stub if ranks == 1 else {}))
        starts = (tmp_path / "starts").read_text().count("\n")
        return result, starts

    return run


@pytest.mark.parametrize("code", [86, 87, 134, 137, 139, 143, 205, 244, 75, 1])
def test_retryable_codes_are_tried_again(play, code):
    result, starts = play(code, 0)
    assert (result.returncode, starts) == (0, 2), result.stderr
    assert f"exit {code}: " in result.stderr and "restart 1 of 3" in result.stderr


@pytest.mark.parametrize("code", [64, 65, 70, 71, 73, 78, 2])
def test_other_codes_end_at_once(play, code):
    result, starts = play(code, 0)
    assert (result.returncode, starts) == (code, 1), result.stderr


def test_killed_rank_is_tried_again(play):
    result, starts = play("0 kill:KILL", "0 kill:SEGV", "0", ranks=2)
    assert (result.returncode, starts) == (0, 3), result.stderr
    assert "exit 137: a rank was killed" in result.stderr and "exit 139: a rank crashed" in result.stderr


def test_no_retry_unless_asked(play):
    result, starts = play(86, 0, retries=0)
    assert (result.returncode, starts) == (86, 1)


def test_gives_up_after_k_restarts_without_a_checkpoint(play):
    result, starts = play(86, 87, 86, 87, 0, retries=3)
    assert (result.returncode, starts) == (87, 4)
    assert "gave up after 3 restarts without a new checkpoint" in result.stderr


def test_a_new_checkpoint_starts_the_count_anew(play):
    result, starts = play(86, 86, "86 checkpoint", 86, 86, 0, retries=2)
    assert (result.returncode, starts) == (86, 5), result.stderr  # 2 restarts up to the checkpoint, 2 after it
    result, starts = play(*["86 checkpoint"] * 12, 0, retries=1)
    assert result.returncode == 0, result.stderr


def test_a_folder_without_manifest_is_no_progress(play):
    result, starts = play("86 torn", "86 torn", "86 torn", 0, retries=1)
    assert (result.returncode, starts) == (86, 2)


@pytest.mark.parametrize("text", [
    "run: {output_dir: FOLDER}", "run: {seed: 1, output_dir: 'FOLDER', threads: 1}",
    "# output_dir: elsewhere\nrun:\n  seed: 0\n  output_dir: FOLDER   # here\n", 'output_dir: "FOLDER"\n',
    "run:\n  output_dir: 'FOLDER'\ndata: {train: x}\n",
])
def test_the_run_folder_is_found_in_the_configuration(tmp_path, text):
    config = tmp_path / "x.yaml"
    config.write_text(text.replace("FOLDER", str(tmp_path / "a run")))
    script = 'source "$0"; run_folder "$@"'
    found = [subprocess.run(["bash", "-euo", "pipefail", "-c", script, ROOT / "launch/common.sh", "train", config, *more],
                            capture_output=True, text=True, check=True).stdout.strip()
             for more in ([], ["--set", "run.output_dir=/x"], ["--set=run.output_dir=/y", "--set", "run.seed=1"])]
    assert found == [str(tmp_path / "a run"), "/x", "/y"]


def test_status_names_the_cause_where_mpirun_names_a_victim(play):
    result, starts = play("137 status:71", 0)
    assert (result.returncode, starts) == (71, 1), result.stderr
    assert "training diverged" in result.stderr


def test_exit_1_with_a_status_is_the_programs_own_word(play):
    result, starts = play("1 status:78", 0)
    assert (result.returncode, starts) == (78, 1)


def test_stale_or_running_status_is_not_believed(play, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/status.json").write_text(json.dumps({"outcome": "failed", "exit_code": 71}, indent=2))
    result, starts = play(137, "137 status:0", 0)
    assert (result.returncode, starts) == (0, 3), result.stderr


def test_stop_between_restarts(play, stub, tmp_path):
    (tmp_path / "plan").write_text("86\n0\n")
    process = start(tmp_path / "player.sh", "-n", 1, "--retries", 3, "--retry-wait", 60, "train", "x.yaml",
                    "--set", f"run.output_dir={tmp_path / 'run'}", **stub)
    wait_until(lambda: "restart 1" in process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 75
    assert (tmp_path / "starts").read_text().count("\n") == 1


@pytest.fixture
def stopped(tmp_path):
    """Starts, asks to stop, and returns how it ended."""
    def run(mpirun, tells, ends, verb="train"):
        folder = tmp_path / "tools"
        folder.mkdir()
        for path, text in ((folder / "mpirun", mpirun), (tmp_path / "stopper.sh", STOPPER)):
            path.write_text(text)
            path.chmod(0o755)
        process = start(tmp_path / "stopper.sh", "-n", 1, "--retries", 3, "--retry-wait", 0, verb, "x.yaml",
                        "--set", f"run.output_dir={tmp_path / 'run'}", PATH=f"{folder}:{os.environ['PATH']}",
                        TELLS=tells, ENDS=ends)
        wait_until((tmp_path / "starts").exists)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert (tmp_path / "starts").read_text().count("\n") == 1
        return process.returncode, errors

    return run


def test_a_requested_stop_is_not_tried_again(stopped):
    code, errors = stopped(STUB, "stopped:75", "75")
    assert code == 75 and "before the first update" not in errors


@pytest.mark.parametrize("tells, code", [("stopped:75", 75), ("done:0", 0)])
def test_requests_to_an_mpirun_that_has_no_ranks_any_more_do_no_harm(stopped, tells, code):
    """The launcher asks once a second; its ranks have saved, and mpirun takes its time to end."""
    ended, errors = stopped(SLOW_TO_END, tells, str(code))
    assert (ended, "before the first update" in errors) == (code, False), errors


@pytest.mark.parametrize("tells, code, words", [
    ("stopped:75", 75, "exit 75: stopped on request after saving"),
    ("done:0", 0, "SIGTERM: finishing the update"),  # it was done before it could be stopped
    ("failed:71", 71, "exit 71: training diverged"),
    ("", 75, "stopped before the first update"),
])
def test_what_the_run_says_counts_more_than_a_request_that_came_too_late(stopped, tells, code, words):
    ended, errors = stopped(STUB, tells, "kill")
    assert ended == code and words in errors, errors
    assert ("before the first update" in errors) == (tells == "")


@pytest.mark.parametrize("saved, words", [("", "nothing is saved yet, run again to start from the beginning"),
                                          (" checkpoint", "update 1 is saved in FOLDER/checkpoints, run again to go on")])
def test_a_killed_run_says_what_is_saved(play, tmp_path, saved, words):
    result, _ = play(f"0{saved} kill:KILL", retries=0)
    assert result.returncode == 137 and words.replace("FOLDER", str(tmp_path / "run")) in result.stderr, result.stderr
