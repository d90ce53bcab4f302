"""What users are told: every problem at once, once per job, in their own words; help; pipes that close."""
import json
import os
import re
import signal
import subprocess

import pytest
from harness import Workspace, environment, execute, mpirun, wait_until

USAGE, BAD_CONFIG, CANNOT_WRITE = 64, 78, 73
VERBS = ["train", "plan", "cache", "find-batch", "find-lr", "generate", "inspect", "merge", "resize", "export"]


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    return Workspace.create(tmp_path_factory.mktemp("messages"), program)


@pytest.fixture
def space(template, tmp_path):
    return template.copy(tmp_path)


@pytest.mark.parametrize("ranks", [1, 3])
def test_every_problem_of_a_configuration_is_told_once(space, ranks):
    space.config.write_text(
        "optimiser: {lr: 1e-4}\n"
        "model: {path: base}\n"
        "adapter: {rank: 0, targets: []}\n"
        "load_in_4bit: true\n"
        "batch: {global: 16, micro: 5}\n")
    outcome = execute(mpirun(ranks, space.command("train", "--set", "optimizer.lr=fast")))
    assert outcome.code == BAD_CONFIG
    name = re.escape(str(space.config))
    for found, expected in zip(outcome.messages, [
        rf"{name}:1: unknown key 'optimiser'; did you mean 'optimizer'\?",
        rf"{name}:3: adapter\.rank: '0' is out of range",
        rf"{name}:3: adapter\.targets: must not be empty",
        rf"{name}:4: load_in_4bit: 'true' is not supported: .*model\.dtype: bf16",
        r"--set 'optimizer\.lr=fast': optimizer\.lr: 'fast' is not a number",
        r"data\.train is not set",
        r"batch\.micro 5 does not divide batch\.global 16",
    ], strict=True):
        assert re.match(expected, found), (expected, found)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("arguments, words", [
    ([], "a verb is missing"),
    (["trian"], "unknown verb 'trian'"),
    (["train"], "the configuration, a YAML file, is missing"),
    (["train", "CONFIG", "--sett", "a=b"], "--sett"),
    (["plan", "CONFIG", "--ranks", "0"], "--ranks must be at least 1"),
    (["generate", "CONFIG"], "one of --prompt TEXT and --ids"),
    (["inspect"], "the file or folder to explain is missing"),
    (["merge"], "--"),
])
def test_wrong_command_line_is_told_once(space, arguments, words, ranks):
    command = [space.program, *(str(space.config) if word == "CONFIG" else word for word in arguments)]
    outcome = execute(mpirun(ranks, command))
    assert outcome.code == USAGE
    assert len(outcome.messages) == 1 and words in outcome.messages[0], outcome.stderr
    assert "--config" not in outcome.messages[0] and "--path" not in outcome.messages[0]


@pytest.mark.parametrize("ranks, words", [(1, "--ids takes token ids from 0 to 255"),
                                          (3, "generate works on one rank; start it without mpirun")])
def test_generate_names_what_is_wrong(space, ranks, words):
    outcome = execute(mpirun(ranks, space.command("generate", "--ids", "9999")))
    assert outcome.code == USAGE
    assert len(outcome.messages) == 1 and words in outcome.messages[0], outcome.stderr


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_each_verb_has_help(program, verb, flag):
    outcome = execute([program, verb, flag])
    assert outcome.code == 0 and outcome.stderr == ""
    assert outcome.stdout.startswith(f"usage: lorascale {verb} ")


def test_help_lists_the_verbs(program):
    text = execute([program, "--help"]).stdout
    assert re.findall(r"^  ([a-z-]+) (?:CONFIG|PATH|ADAPTER|--model)", text, re.MULTILINE) == VERBS


@pytest.mark.parametrize("settings, words", [
    ({"schedule.warmup": "500 steps", "budget": "3 epochs"},
     r"schedule\.warmup: 500 steps \(\d+ samples\) is longer than the run, budget: 3 epochs \(120 samples\)"),
    ({"schedule.name": "wsd", "schedule.warmup": "1 epochs", "schedule.decay": "30 steps", "budget": "12 steps"},
     r"schedule\.warmup: 1 epoch \(40 samples\) and schedule\.decay: 30 steps \(\d+ samples\) do not both fit into the "
     r"run, budget: 12 steps"),
    ({"schedule.warmup": "13 steps", "budget": "12 steps"},
     r"schedule\.warmup: 13 steps is longer than the run, budget: 12 steps"),
])
def test_lengths_are_told_in_the_units_of_the_user(space, settings, words):
    outcome = execute(space.command("plan", *[w for k, v in settings.items() for w in ("--set", f"{k}={v}")]))
    assert outcome.code == BAD_CONFIG
    assert re.match(words, outcome.messages[0]), outcome.stderr


def test_plan_has_one_rate_for_a_batch_above_the_epoch(space):
    outcome = execute(space.command("plan", "--set", "batch.global=400", "--set", "scale.rule=linear",
                                    "--set", "batch.reference=10"))
    assert outcome.code == 0, outcome.stderr
    rates = re.findall(r"lr (\S+) = 0\.003 x 4 \(rule linear, k = 40/10", outcome.stdout)
    assert rates == ["0.012"] * 2 and "k = 400/10" not in outcome.stdout


def test_plan_shows_what_the_companions_become(space):
    changes = {"batch.global": 8, "batch.reference": 2, "scale.rule": "sqrt", "scale.betas": "true", "scale.eps": "true"}
    outcome = execute(space.command("plan", *[w for k, v in changes.items() for w in ("--set", f"{k}={v}")]))
    assert outcome.code == 0, outcome.stderr
    plan = json.loads((space.output / "plan.json").read_text())["plan"]
    assert plan["beta1"] == pytest.approx(0.6) and plan["eps"] == pytest.approx(5e-9)
    assert f"companions betas 0.6 and {plan['beta2']:.6g}, eps 5e-09, weight decay" in outcome.stdout


def test_a_budget_in_minutes_names_no_samples_it_does_not_have(space):
    outcome = space.must_train("--set", "budget=0.02 minutes")
    decisions = [json.loads(line) for line in (space.output / "decisions.jsonl").read_text().splitlines()]
    reason = next(d["reason"] for d in decisions if d["kind"] == "time")
    assert re.fullmatch(r"the 0\.02 minutes are used up after \d+ steps and \d+ samples", reason)
    assert str(2**50) not in outcome.stderr


def test_a_loss_that_is_no_number_has_no_sign(space):
    outcome = space.train("--set", "faults=['nan step=1 phase=backward', 'nan step=2 phase=forward']")
    assert "nan" in outcome.stderr and "-nan" not in outcome.stderr


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "CONFIG"], ["inspect", "BASE"], ["generate", "CONFIG"]])
def test_a_reader_that_is_gone_ends_it_quietly(space, arguments):
    names = {"CONFIG": str(space.config), "BASE": str(space.base)}
    command = [space.program, *(names.get(word, word) for word in arguments)]
    if "generate" in arguments:
        command += ["--ids", "1 2", "--max-tokens", "4"]
    writer = closed_pipe()
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), timeout=30)
    os.close(writer)
    assert result.returncode == -signal.SIGPIPE, result.stderr
    assert "lorascale: " not in result.stderr


def test_a_full_disk_behind_stdout_is_told(space):
    with open("/dev/full", "w") as full:
        result = subprocess.run([space.program, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert result.returncode == CANNOT_WRITE and "standard output cannot be written" in result.stderr


def test_training_outlives_the_reader_of_its_log(space):
    writer = closed_pipe()
    result = subprocess.run(space.command("train"), stdout=writer, stderr=writer, env=environment(), timeout=60)
    os.close(writer)
    assert result.returncode == 0 and (space.output / "adapter/adapter_config.json").exists()


def test_plan_beside_a_run_in_progress_leaves_it_alone(space):
    run = space.start("--set", "faults=['slow step=3 phase=forward seconds=4']")
    try:
        wait_until(lambda: space.lines() >= 2, run)
        config = (space.output / "config.yaml").read_bytes()
        outcome = execute(space.command("plan", "--set", "optimizer.lr=1"))
        assert outcome.code == 0, outcome.stderr
        assert f"not saved: {space.output} holds a run already" in outcome.stdout
        assert (space.output / "config.yaml").read_bytes() == config
        assert not (space.output / "plan.json").exists()
        assert run.poll() is None, "the run was over before the plan: this shows nothing"
        assert run.wait(timeout=60) == 0
    finally:
        run.kill()
        run.wait()
