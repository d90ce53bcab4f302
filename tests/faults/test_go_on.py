"""Going on beyond what was planned: legs of the schedule, cooldowns into other folders, budgets that grow, and what a
first start fixed. What was done keeps its bits, and what is added does too, over kills and on other ranks."""
import json
import shutil

import pytest
from harness import digest, execute, expect_refusal, mpirun
from reference import adapter_tensors, make_documents, make_model, metrics, write_config, write_dataset

EPOCH = 50  # rows: 6 updates of 8 and one of 2


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("go_on")
    make_model("llama").save_pretrained(folder / "base")
    write_dataset(folder / "train.h5", make_documents(EPOCH, 4, 60))
    write_dataset(folder / "short.h5", make_documents(45, 5, 8))
    return folder


class Run:
    """A run folder and the configuration that leads to it."""

    def __init__(self, program, inputs, folder, **settings):
        self.program, self.folder, self.config = program, folder / "run", folder / "config.yaml"
        folder.mkdir(exist_ok=True)
        document = {
            "run": {"output_dir": str(self.folder), "threads": 1, "deadline_seconds": 30, "reduction": "exact"},
            "model": {"path": str(inputs / "base"), "dtype": "fp32"},
            "adapter": {"rank": 4, "alpha": 8, "targets": "all-linear", "dropout": 0.1},
            "data": {"train": str(inputs / "train.h5"), "packing": False, "sequence_length": 64},
            "batch": {"global": 8, "micro": 2},
            "optimizer": {"lr": 5e-3},
            "checkpoint": {"every": "2 steps", "keep": 20},
            "advice": False,
        }
        for key, value in settings.items():
            document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
        write_config(self.config, {key: value for key, value in document.items() if value is not None})

    def train(self, *more, ranks=1, code=0):
        outcome = execute(mpirun(ranks, [self.program, "train", str(self.config), *map(str, more)]), timeout=120)
        assert outcome.code == code, outcome.stderr[-3000:]
        return outcome

    def killed(self, fault, *more, ranks=1):
        outcome = execute(mpirun(ranks, [self.program, "train", str(self.config), "--set", f"faults=['kill {fault}']",
                                         *map(str, more)]), timeout=120)
        assert outcome.code in (-9, 87, 137), outcome.stderr[-3000:]

    def copy(self, folder):
        """The same run, gone on from in another place."""
        other = Run.__new__(Run)
        other.program, other.folder, other.config = self.program, folder / "run", folder / "config.yaml"
        shutil.copytree(self.folder, other.folder)
        other.config.write_text(self.config.read_text().replace(str(self.folder), str(other.folder)))
        return other


def records(folder):
    return [{key: line.get(key) for key in ("step", "samples", "loss", "lr", "grad_norm")} for line in metrics(folder)]


def expect_same(folder, other):
    assert records(folder) == records(other)
    first, second = adapter_tensors(folder / "adapter"), adapter_tensors(other / "adapter")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.equal(second[name]), name


def expect_replay(program, folder):
    outcome = execute([program, "inspect", str(folder), "--replay"])
    assert outcome.code == 0 and "byte for byte" in outcome.stdout, outcome.stderr


def legs(folder):
    lines = map(json.loads, (folder / "decisions.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "leg"]


@pytest.fixture(scope="module")
def cosine(program, inputs, tmp_path_factory):
    """A finished run."""
    run = Run(program, inputs, tmp_path_factory.mktemp("cosine"), budget="10 steps")
    outcome = run.train()
    assert "--more AMOUNT" in outcome.stderr  # the one line that tells which schedule this is
    return run


@pytest.fixture(scope="module")
def extended(cosine, tmp_path_factory):
    run = cosine.copy(tmp_path_factory.mktemp("extended"))
    run.train("--more", "9 steps")
    return run


def test_a_finished_run_says_so_and_a_longer_cosine_names_the_way_on(cosine, tmp_path):
    run = cosine.copy(tmp_path)
    before = records(run.folder)
    assert "done after 10 steps" in run.train().stderr
    expect_refusal(run.train("--set", "budget=14 steps", code=78), 78, ["follows the budget", "--more"])
    assert records(run.folder) == before


def test_a_leg_keeps_what_was_done_and_rises_again(cosine, extended):
    assert records(extended.folder)[:10] == records(cosine.folder)
    lines = records(extended.folder)
    assert [line["step"] for line in lines] == list(range(1, 20))
    rates = [line["lr"] for line in lines[10:]]
    assert max(rates) == pytest.approx(5e-3) and rates[-1] < 1e-3  # to the peak, and down again
    assert "rises from 0 %" in legs(extended.folder)[0]["reason"]
    assert len(legs(extended.folder)) == 1
    expect_replay(extended.program, extended.folder)


@pytest.mark.parametrize("ranks,again", [(1, ["--more", "9 steps"]), (2, []), (3, ["--more", "9 steps"])])
def test_killed_inside_a_leg_goes_on_with_the_same_bits(cosine, extended, tmp_path, ranks, again):
    """With the option again or without it, on any number of ranks."""
    run = cosine.copy(tmp_path)
    run.killed("step=15 phase=backward rank=0", "--more", "9 steps", ranks=2)
    assert metrics(run.folder)[-1]["step"] < 19
    run.train(*again, ranks=ranks)
    expect_same(run.folder, extended.folder)
    expect_replay(run.program, run.folder)


def test_the_same_amount_again_is_another_leg_once_the_first_is_over(extended, tmp_path):
    run = extended.copy(tmp_path)
    assert "done after 19 steps" in run.train().stderr  # as finished as any run
    # The present rate is the floor, and that is 0.
    expect_refusal(run.train("--more", "9 steps", "--leg-rate", "present", code=78), 78, ["rate down to 0", "peak"])
    run.train("--more", "9 steps")
    assert [leg["step"] for leg in legs(run.folder)] == [10, 19]
    assert records(run.folder)[-1]["step"] == 28
    assert max(line["lr"] for line in records(run.folder)[19:]) == 5e-3
    expect_replay(run.program, run.folder)


@pytest.mark.parametrize("at", [(), ("--at-step", 14)])
def test_a_fork_of_an_extended_run_gets_its_own_leg(extended, tmp_path, at):
    """The leg of the same length that the source had is none that the fork was granted."""
    run = extended.copy(tmp_path)
    fork = tmp_path / "fork"
    run.train("--more", "9 steps", "--into", fork, *at)
    assert [leg["step"] for leg in legs(fork)] == [10, 14 if at else 19]
    assert records(fork)[-1]["step"] == 28
    run.train("--more", "9 steps", "--into", fork, *at)  # granted, and over: another one
    assert records(fork)[-1]["step"] == 37


def test_results_that_could_not_be_written_are_no_end_of_a_leg(extended, tmp_path):
    run = extended.copy(tmp_path)
    shutil.rmtree(run.folder / "adapter")
    status = run.folder / "status.json"
    status.write_text(status.read_text().replace('"done"', '"failed"'))
    run.train("--more", "9 steps")
    assert records(run.folder)[-1]["step"] == 19
    expect_same(run.folder, extended.folder)


WSD = {"name": "wsd", "warmup": "10%", "decay": "20%"}


@pytest.fixture(scope="module")
def wsd(program, inputs, tmp_path_factory):
    run = Run(program, inputs, tmp_path_factory.mktemp("wsd"), schedule=WSD, budget="140 samples")  # 20 updates
    run.train()
    return run


def test_cooldowns_from_one_run_are_the_runs_of_their_budgets(program, inputs, wsd, tmp_path):
    before = digest(wsd.folder)
    cooled = tmp_path / "cooled"
    # After 14 updates there are 100 samples; 20 % of a run of 125 are the other 25.
    wsd.killed("step=16 phase=forward", "--cooldown", "20%", "--into", cooled, "--at-step", 14)
    wsd.train("--cooldown", "20%", "--into", cooled, "--at-step", 14)
    assert digest(wsd.folder) == before
    planned = Run(program, inputs, tmp_path / "planned", schedule={**WSD, "warmup": "14 samples", "decay": "25 samples"},
                  budget="125 samples")
    planned.train(ranks=2)
    expect_same(cooled, planned.folder)
    assert "cooldown" in legs(cooled)[0]["reason"]
    expect_replay(program, cooled)
    # Once more: it is over, and nothing is added.
    assert "done after" in wsd.train("--cooldown", "20%", "--into", cooled, "--at-step", 14).stderr
    assert records(cooled) == records(planned.folder)


def test_wsd_grows_until_its_decay_begins(program, inputs, wsd, tmp_path):
    run = wsd.copy(tmp_path)
    expect_refusal(run.train("--set", "budget=300 samples", code=78), 78,
                   ["decay of schedule wsd began at sample 112", "--more", "--into"])
    grown = tmp_path / "grown"
    run.train("--set", "budget=300 samples", "--into", grown, "--at-step", 14)
    planned = Run(program, inputs, tmp_path / "planned", schedule={**WSD, "warmup": "14 samples"}, budget="300 samples")
    planned.train()
    expect_same(grown, planned.folder)
    expect_replay(program, grown)


def test_a_constant_rate_grows_at_any_time(program, inputs, tmp_path):
    """The warmup of 10 % was over after the first start's 10 samples, whatever 10 % of the new budget are."""
    schedule = {"name": "constant", "warmup": "10%"}
    run = Run(program, inputs, tmp_path / "grown", schedule=schedule, budget="100 samples")
    run.train()
    run.train("--set", "budget=190 samples", ranks=2)
    planned = Run(program, inputs, tmp_path / "planned", schedule={**schedule, "warmup": "10 samples"},
                  budget="190 samples")
    planned.train()
    expect_same(run.folder, planned.folder)
    expect_replay(program, run.folder)


@pytest.mark.parametrize("options,words", [
    (["--cooldown", "10%"], "--into FOLDER"),
    (["--more", "2 epochs", "--cooldown", "10%", "--into", "x"], "choose one"),
    (["--more", "10%"], "'10%' is not taken"),
    (["--more", "10 min"], "'10 min' is not taken"),
    (["--more", "lots"], "--more"),
    (["--more", "0 steps"], "is not taken"),
    (["--leg-rate", "peak"], "--more AMOUNT"),
    (["--more", "2 epochs", "--leg-rate", "high"], "present or peak"),
    (["--at-step", "3"], "--into FOLDER"),
])
def test_a_wrong_command_line(cosine, options, words):
    expect_refusal(cosine.train(*options, code=64), 64, words)


def test_where_there_is_nothing_to_go_on_from(program, inputs, cosine, tmp_path):
    fresh = Run(program, inputs, tmp_path / "fresh", budget="4 steps")
    expect_refusal(fresh.train("--more", "2 epochs", code=78), 78, "no checkpoint")
    expect_refusal(fresh.train("--into", tmp_path / "x", code=78), 78, "no checkpoint to go on from")
    expect_refusal(cosine.train("--into", tmp_path / "y", "--at-step", 7, code=78), 78, ["step 7", "10, 8, 6"])
    expect_refusal(cosine.train("--into", tmp_path / "z", "--cooldown", "10%", code=78), 78, ["there already", "--at-step"])
    expect_refusal(cosine.train("--into", cosine.folder, code=64), 64, "another folder")
    taken = cosine.copy(tmp_path / "taken").folder
    shutil.rmtree(taken / "checkpoints")
    before = digest(taken / "adapter"), (taken / "metrics.jsonl").read_bytes()
    expect_refusal(cosine.train("--into", taken, code=78), 78, "of another run")
    assert (digest(taken / "adapter"), (taken / "metrics.jsonl").read_bytes()) == before


def test_a_batch_per_rank_stays_that_of_the_first_start(program, inputs, tmp_path):
    flat = {"batch": None, "batch_size": 2, "gradient_accumulation_steps": 2, "budget": "9 steps",
            "schedule": {"name": "constant"}}
    run = Run(program, inputs, tmp_path, **flat)
    run.train(ranks=2)
    outcome = run.train("--set", "budget=12 steps", ranks=3)
    assert "the run began with 8 and goes on with that" in outcome.stderr
    lines = metrics(run.folder)
    assert {line["global_batch"] for line in lines} == {8, 2}  # the epoch's last update has 2
    assert [line["world_size"] for line in lines] == [2] * 9 + [3] * 3
    plan = execute([program, "plan", str(run.config), "--ranks", "5"])
    assert "batch     global 8" in plan.stdout
    run.config.write_text(run.config.read_text().replace("batch_size: 2", "batch_size: 4"))
    expect_refusal(run.train(ranks=2, code=78), 78, ["each rank is 8 and was 4"])


def test_packing_auto_keeps_a_small_set_of_short_documents_apart(program, inputs, tmp_path):
    run = Run(program, inputs, tmp_path / "auto", budget="1 epoch", batch={"global": 2}, schedule={"name": "constant"},
              data={"train": str(inputs / "short.h5"), "packing": "auto"})
    plan = execute([program, "plan", str(run.config)]).stdout
    assert "45 documents" in plan and "45 rows: a document each" in plan and "packing auto" in plan
    run.train()
    assert len(records(run.folder)) == 23
    assert "packing: false" in (run.folder / "config.yaml").read_text()
    run.train("--set", "budget=2 epochs", ranks=2)
    assert len(records(run.folder)) == 46
    packed = Run(program, inputs, tmp_path / "packed", budget="1 epoch", batch={"global": 2}, advice=True,
                 data={"train": str(inputs / "short.h5"), "packing": True})
    assert "of 45 documents: data.packing: false" in execute([program, "plan", str(packed.config)]).stdout


def test_a_rehearsals_faults_stay_out_of_the_run_folder(program, inputs, tmp_path):
    run = Run(program, inputs, tmp_path, budget="4 steps")
    run.killed("step=3 phase=forward")
    assert "faults: []" in (run.folder / "config.yaml").read_text()
    outcome = execute([program, "train", str(run.folder / "config.yaml")])
    assert outcome.code == 0, outcome.stderr


def test_prompts_that_are_never_sampled_need_no_ids(program, inputs, tmp_path):
    prompts = {"prompts": ["no such prompt was prepared"]}
    run = Run(program, inputs, tmp_path, budget="2 steps", sample={**prompts, "every": 0})
    run.train()
    run = Run(program, inputs, tmp_path / "sampled", budget="2 steps", sample={**prompts, "every": 1})
    expect_refusal(run.train(code=65), 65, "prompt")


def test_a_cooldown_from_before_the_budget_grew(program, inputs, tmp_path):
    """Of the same bits as without the growth, which was none of its past; and each folder holds one cooldown."""
    constant = {"name": "constant", "warmup": "0 samples"}
    run = Run(program, inputs, tmp_path, schedule=constant, budget="8 steps")
    run.train()
    before, after = tmp_path / "before", tmp_path / "after"
    run.train("--cooldown", "3 steps", "--into", before, "--at-step", 4)
    run.train("--set", "budget=12 steps")
    cooldown = ("--set", "budget=12 steps", "--cooldown", "3 steps", "--into", after)
    # What was refused leaves nothing that stands in the way of the next wish.
    expect_refusal(run.train("--set", "budget=12 steps", "--more", "10 min", "--into", after, code=64), 64, "--more")
    run.train(*cooldown, "--at-step", 4)
    expect_same(before, after)
    run.train(*cooldown, "--at-step", 4)  # done: nothing changes
    expect_same(before, after)
    expect_refusal(run.train(*cooldown, "--at-step", 6, code=78), 78, ["went on from step 4", "another folder"])
    longer = ("--set", "budget=12 steps", "--cooldown", "4 steps", "--into", after, "--at-step", 4)
    expect_refusal(run.train(*longer, code=78), 78, ["cooldown of another length"])
    expect_same(before, after)
    expect_replay(program, after)


def test_a_fork_that_was_refused_may_be_made_of_another_checkpoint(program, inputs, tmp_path):
    run = Run(program, inputs, tmp_path, budget="8 steps")
    run.train()
    fork = tmp_path / "fork"
    expect_refusal(run.train("--cooldown", "3 steps", "--into", fork, code=78), 78, "already")  # its rate is at the floor
    run.train("--cooldown", "3 steps", "--into", fork, "--at-step", 4)
    assert records(fork)[-1]["step"] == 7
