"""What fits into memory is measured before a run: find-batch prints it, batch.micro: auto takes it, plan forecasts it.
Memory is a budget for tensors on the CPU, in which a run then really has to live."""
import hashlib
import json
import math
import re

import pytest
from harness import Workspace, execute, expect_refusal, expect_replay, mpirun
from reference import make_documents, metrics, write_dataset

USAGE, BAD_CONFIG = 64, 78
SECONDS = 120
LENGTH = 256


@pytest.fixture(scope="module")
def template(program, tmp_path_factory):
    space = Workspace.create(tmp_path_factory.mktemp("template"), program)
    write_dataset(space.data, make_documents(64, LENGTH - 6, LENGTH))
    return space


def prepare(template, folder, budget=0, micro="auto", **changes):
    space = template.copy(folder)
    space.write_config(**{"data__sequence_length": LENGTH, "data__validation": str(space.data),
                          "batch": {"global": 16, "micro": micro}, "memory": {"budget_mib": budget},
                          "evaluate": {"every": "2 steps", "max_samples": 16}, "budget": "4 steps", **changes})
    return space


def find_batch(space, *more, ranks=1):
    return execute(mpirun(ranks, space.command("find-batch", *more)), timeout=SECONDS)


def table_of(space):
    return json.loads((space.output / "find-batch.json").read_text())


def decisions(space, kind="memory"):
    lines = (space.output / "decisions.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def leaves(space):
    return {line["micro_batch"] for line in metrics(space.output) if line["step"] > 0}


def adapter(space):
    return hashlib.sha256((space.output / "adapter/adapter_model.safetensors").read_bytes()).hexdigest()


def peak(space):
    return max(line["peak_memory_mib"] for line in metrics(space.output))


@pytest.fixture(scope="module")
def unlimited(template, tmp_path_factory):
    """What leaves take, in bytes, where nothing limits them."""
    space = prepare(template, tmp_path_factory.mktemp("unlimited"))
    outcome = find_batch(space)
    assert outcome.code == 0, outcome.stderr
    return {row["leaf"]: row["measured_bytes"] for row in table_of(space)["ranks"][0]["leaves"]}


def budget_for(unlimited, leaf):
    """The smallest whole number of MiB that a leaf fits into."""
    return math.ceil(unlimited[leaf] / 2**20)


def fastest(speeds):
    """The smallest leaf whose speed is the best one's, within what repeats differ by (3 % at least, 15 % at most)."""
    best = max(speeds, key=lambda speed: speed["samples_per_second"])
    return min(speed["leaf"] for speed in speeds if speed["samples_per_second"]
               >= best["samples_per_second"] * (1 - min(0.15, max(0.03, speed["noise"], best["noise"]))))


@pytest.mark.parametrize("ranks", [1, 2])
def test_find_batch(template, tmp_path, unlimited, ranks):
    budget = budget_for(unlimited, 4)
    space = prepare(template, tmp_path, budget)
    before = sorted(space.folder.rglob("*"))
    outcome = find_batch(space, ranks=ranks)
    assert outcome.code == 0, outcome.stderr
    table = table_of(space)
    assert table["world_size"] == ranks == len(table["ranks"]) and table["largest"] == 4
    assert table["chosen"] == fastest(table["speeds"])
    assert table["usable"] == [leaf for leaf in (1, 2, 4, 8, 16) if leaf * ranks <= 16]
    for rank in table["ranks"]:
        assert rank["budget_bytes"] == budget << 20
        for row in rank["leaves"]:
            assert row["fits"] == (row["leaf"] <= 4)
            if row["fits"]:
                assert row["measured_bytes"] == pytest.approx(row["fitted_bytes"], rel=0.08)
                assert row["measured_bytes"] <= budget << 20
        # The rule of thumb forgets gradient, optimizer and buffers: it promises more than there is.
        assert rank["largest_by_fit"] in (4, 5) and rank["largest_by_formula"] >= rank["largest_by_fit"]
    chosen = table["chosen"]
    for words in (f"batch.micro {chosen}", f"accumulation {16 // chosen // ranks}", "remain on rank", "samples/s", "formula",
                  "as fast as the fastest", *(f"{s['leaf']}: " for s in table["speeds"])):
        assert words in outcome.stdout, words
    # It trains nothing and leaves nothing but its report.
    assert set(space.folder.rglob("*")) - set(before) == {space.output, space.output / "find-batch.json"}


def test_find_batch_says_what_to_do_where_nothing_fits(template, tmp_path):
    space = prepare(template, tmp_path, 2)
    outcome = find_batch(space, ranks=2)
    expect_refusal(outcome, BAD_CONFIG, ["not even a leaf of one sample", "model.recompute", "sequence_length (now 256)",
                                         "adapter.rank", "memory.budget_mib"])
    assert re.search(r"^   1      1  does not fit +- +-$", outcome.stdout, re.MULTILINE)
    assert "fit       rank 1: none, for no leaf fits\n" in outcome.stdout
    table = table_of(space)
    assert table["chosen"] == 0
    assert all(rank.keys() & {"fixed_bytes", "per_sample_bytes", "largest_by_fit"} == set() for rank in table["ranks"])
    expect_refusal(space.train(timeout=SECONDS), BAD_CONFIG, "not even a leaf of one sample")


@pytest.mark.parametrize("verb", ["find-batch", "train"])
def test_one_rank_that_has_too_little_ends_all(template, tmp_path, verb):
    space = prepare(template, tmp_path, 64, faults=["oom step=0 phase=forward rank=1"])
    outcome = execute(mpirun(2, space.command(verb)), timeout=SECONDS)
    expect_refusal(outcome, BAD_CONFIG, ["not even a leaf of one sample", "rank 1"])


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer", "evaluation"])
def test_a_leaf_that_fails_in_any_phase_does_not_fit(template, tmp_path, phase):
    kind = "oom step=0 phase=" + phase
    space = prepare(template, tmp_path, 64, faults=[kind], run__reduction="exact")  # the largest leaf, by memory alone
    if phase == "evaluation":  # of the run itself: a leaf that is measured has none of its own
        space.must_train(ranks=2)
        return
    expect_refusal(find_batch(space, ranks=2), BAD_CONFIG, "not even a leaf of one sample")


def test_find_batch_help_and_bad_input(template, tmp_path, program):
    outcome = execute([program, "find-batch", "--help"])
    assert outcome.code == 0 and "usage: lorascale find-batch CONFIG.yaml" in outcome.stdout
    space = prepare(template, tmp_path)
    expect_refusal(execute([program, "find-batch"]), USAGE, "config")
    expect_refusal(find_batch(space, "--quick"), USAGE, "quick")
    expect_refusal(find_batch(space, "--set", "batch.size=3"), BAD_CONFIG, "batch.size")
    expect_refusal(find_batch(space, "--set", "data.train=nowhere.h5"), 65, "nowhere.h5")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("leaf", [1, 2, 4, 8])
def test_auto_takes_what_fits_and_lives_in_it(template, tmp_path, unlimited, ranks, leaf):
    """Right at the limit: the budget is the leaf's own peak, rounded up to a MiB. By memory alone, as exact has it."""
    space = prepare(template, tmp_path / "auto", budget_for(unlimited, leaf), run__reduction="exact")
    outcome = space.must_train(ranks=ranks)
    assert leaves(space) == {leaf}
    (decision,) = decisions(space)  # the choice, and nothing that ran out
    assert f"takes leaf {leaf} of those up to" in decision["reason"] and decision["step"] == 0
    assert decision["inputs"]["peak_bytes"] <= decision["inputs"]["budget_bytes"]
    assert "ran out" not in outcome.stderr
    assert peak(space) <= budget_for(unlimited, leaf)
    # That it was measured leaves no trace in what is trained.
    other = prepare(template, tmp_path / "given", micro=leaf, run__reduction="exact")
    other.must_train(ranks=ranks)
    assert adapter(other) == adapter(space)


@pytest.mark.parametrize("limited, ranks", [(False, 1), (False, 2), (True, 2)])
def test_auto_is_the_fastest_that_fits(template, tmp_path, unlimited, limited, ranks):
    space = prepare(template, tmp_path / "auto", budget_for(unlimited, 4) if limited else 0)
    space.must_train(ranks=ranks)
    (decision,) = decisions(space)
    speeds = [{"leaf": speed.pop("leaf_size"), **speed} for speed in decision["inputs"]["speeds"]]
    chosen = fastest(speeds)
    assert leaves(space) == {chosen} and f"takes leaf {chosen} of those up to" in decision["reason"]
    assert not limited or max(speed["leaf"] for speed in speeds) <= 4
    expect_replay(space)
    other = prepare(template, tmp_path / "given", micro=chosen)
    other.must_train(ranks=ranks)
    assert adapter(other) == adapter(space)
    space.must_train("--set", "budget=6 steps")  # a run that goes on keeps it
    assert leaves(space) == {chosen} and len(decisions(space)) == 1


def test_exact_bits_follow_from_no_clock(template, tmp_path):
    """Without a limit the leaf is the largest divisor up to 8."""
    space = prepare(template, tmp_path, run__reduction="exact")
    space.must_train()
    assert leaves(space) == {8} and not decisions(space)


def test_a_run_that_goes_on_keeps_its_leaf(template, tmp_path, unlimited):
    space = prepare(template, tmp_path, budget_for(unlimited, 4), run__reduction="exact")
    space.must_train("--set", "budget=2 steps")
    space.must_train("--set", "budget=4 steps", "--set", "memory.budget_mib=64")
    assert leaves(space) == {4} and len(decisions(space)) == 1
    space.must_train("--set", "budget=6 steps", "--set", f"memory.budget_mib={budget_for(unlimited, 2)}")
    assert [line["micro_batch"] for line in metrics(space.output) if line["step"] > 0] == [4] * 4 + [2] * 2
    assert [line["step"] for line in decisions(space)] == [0, 4]


def test_plan_says_that_a_given_leaf_does_not_fit(template, tmp_path):
    space = prepare(template, tmp_path, 8, micro=16)
    outcome = execute(space.command("plan"))
    assert outcome.code == 0 and "from shapes alone, for it does not fit here" in outcome.stdout
    assert "advice    a leaf of 16 does not fit into 8 MiB: a run would halve it until it fits" in outcome.stdout
    space.must_train()
    assert metrics(space.output)[-1]["micro_batch"] < 16


FORECASTS = {
    "lora, packed": {"data__packing": "true", "data__sequence_length": 128, "batch__micro": 4, "optimizer__name": "adamw"},
    "recompute": {"model__recompute": "true", "batch__micro": 8, "adapter__dropout": 0.1},
    "full": {"adapter": {"type": "full"}, "batch__micro": 2, "data__sequence_length": 64},
    "sgd, rank 32": {"optimizer__name": "sgd", "adapter__rank": 32, "batch__micro": 4, "noise__horizon": "64 samples"},
    "bf16, exact, 2 ranks": {"model__dtype": "bf16", "run__reduction": "exact", "batch__micro": 1},
}


@pytest.mark.parametrize("name", FORECASTS)
def test_plan_forecasts_the_peak(template, tmp_path, name):
    space = prepare(template, tmp_path, micro=2)
    changes = FORECASTS[name]
    settings = [f"--set={path.replace('__', '.')}={value}" for path, value in changes.items() if path != "adapter"]
    settings += ["--set=adapter.type=full"] if "adapter" in changes else []
    if name == "lora, packed":
        write_dataset(space.data, make_documents(120, 10, 90))
    ranks = 2 if "2 ranks" in name else 1
    outcome = execute(mpirun(ranks, space.command("plan", *settings)), timeout=SECONDS)
    assert outcome.code == 0, outcome.stderr
    assert "at the peak, measured" in outcome.stdout
    forecast = json.loads((space.output / "plan.json").read_text())["memory_bytes"]
    assert forecast["measured"] is True
    space.must_train(*settings, ranks=ranks)
    print(f"{name}: forecast {forecast['total'] / 2**20:.2f} MiB, taken {peak(space):.2f} MiB")
    assert forecast["total"] / 2**20 == pytest.approx(peak(space), rel=0.1)
