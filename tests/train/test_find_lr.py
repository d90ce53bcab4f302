"""find-lr: a bracket of rates that a training run confirms, the same on any number of ranks, and nothing left behind but
its own folder."""
import csv
import hashlib
import json
import math
import xml.etree.ElementTree as xml

import pytest
from reference import make_documents, make_model, metrics, run, write_config, write_dataset

UPDATES = 60


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("find-lr")
    make_model("llama").save_pretrained(folder / "base")
    # Documents with something to learn: a byte is followed by one of two.
    import numpy as np
    generator = np.random.default_rng(3)
    documents = []
    for _ in range(400):
        ids = [int(generator.integers(0, 256))]
        for _ in range(40):
            ids.append((7 * ids[-1] + 13 + int(generator.integers(0, 2))) % 256)
        documents.append(np.array(ids))
    write_dataset(folder / "train.h5", documents)
    write_dataset(folder / "flat.h5", make_documents(400, 40, 40), [np.zeros(40)] * 400)
    return folder


def config(inputs, folder, **changes):
    settings = {
        "run": {"output_dir": str(folder / "run"), "threads": 1, "reduction": "exact", "deadline_seconds": 30,
                "device": "cpu"},
        "model": {"path": str(inputs / "base"), "dtype": "fp32"},
        "adapter": {"rank": 8, "alpha": 16, "targets": "all-linear", "dropout": 0.1},
        "data": {"train": str(inputs / "train.h5"), "packing": False, "sequence_length": 48},
        "batch": {"global": 16, "reference": 4, "micro": 4},
        "optimizer": {"lr": 1e-3},
        "schedule": {"name": "constant", "warmup": "0 samples"},
        "budget": f"{UPDATES} steps",
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        target, name = (settings[section], key) if key else (settings, section)
        target[name] = value
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / "config.yaml"
    write_config(path, settings)
    return path


def result(folder):
    return json.loads((folder / "run" / "find-lr" / "result.json").read_text())


@pytest.fixture(scope="module")
def found(program, inputs, tmp_path_factory):
    """One test on one rank, for all to look at."""
    folder = tmp_path_factory.mktemp("found")
    said = run(program, "find-lr", config(inputs, folder))
    return folder, said.stdout


def test_finds_a_bracket_and_says_what_to_write(found):
    folder, said = found
    got = result(folder)
    rate, lr = got["rate_at_batch"], got["optimizer.lr"]
    assert got["verdict"] == "bracket"
    assert 1e-6 < rate["low"] < rate["suggested"] < rate["high"] < 1
    assert got["factor"] == pytest.approx(math.sqrt(16 / 4)) and got["batch"] == 16
    for name in rate:
        assert lr[name] == pytest.approx(rate[name] / 2)
        assert f"{lr[name]:.3g}" in said and f"{rate[name]:.3g}" in said
    assert "optimizer.lr" in said and "divided by 2" in said and "sqrt" in said


def test_files(found):
    folder, _ = found
    here = folder / "run" / "find-lr"
    assert {path.name for path in here.iterdir()} == {"curve.csv", "curve.svg", "result.json"}
    rows = list(csv.DictReader((here / "curve.csv").open()))
    got = result(folder)
    rates = [float(row["lr"]) for row in rows]
    assert len(rows) in (got["updates"] - 1, got["updates"] - 2)  # the last rate has no loss after it
    assert rates[0] == 1e-6
    ratio = 1e6 ** (1 / (UPDATES - 1))
    assert all(b / a == pytest.approx(ratio, rel=1e-9) for a, b in zip(rates, rates[1:]))
    assert all(math.isfinite(float(row[key])) for row in rows for key in row)
    picture = xml.parse(here / "curve.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{space}circle")) == len(rows)
    points = picture.find(f"{space}polyline").get("points").split()
    assert len(points) == len(rows)
    # The shaded part begins and ends at the rates of the bracket.
    shaded = next(r for r in picture.findall(f"{space}rect") if r.get("class") == "bracket")
    left, width = float(shaded.get("x")), float(shaded.get("width"))
    at = {rate: float(point.split(",")[0]) for rate, point in zip(rates, points)}
    high = got["rate_at_batch"]["high"]
    assert left + width == pytest.approx(at[min(at, key=lambda rate: abs(math.log(rate / high)))], abs=0.2)


def test_same_bracket_on_two_ranks(program, inputs, found, tmp_path):
    run(program, "find-lr", config(inputs, tmp_path), ranks=2)
    assert result(tmp_path) == result(found[0])
    for name in ("curve.csv", "curve.svg"):
        assert (tmp_path / "run/find-lr" / name).read_bytes() == (found[0] / "run/find-lr" / name).read_bytes()


def test_leaves_that_do_not_fit_change_nothing(program, inputs, found, tmp_path):
    faults = ["oom step=5 phase=backward", "oom step=9 phase=forward rank=1"]
    said = run(program, "find-lr", config(inputs, tmp_path, faults=faults), ranks=2)
    got, whole = result(tmp_path), result(found[0])
    assert "out of memory" in said.stderr and got["micro_batch"] == 1 and whole["micro_batch"] == 4
    for name, rate in whole["rate_at_batch"].items():
        assert got["rate_at_batch"][name] == pytest.approx(rate, rel=0.3)


def state_of(checkpoint):
    from safetensors.numpy import load_file
    return load_file(checkpoint / "tensors.safetensors")


def test_leaves_everything_as_it_was(program, inputs, found, tmp_path):
    got = result(found[0])
    assert got["state_before"] == got["state_after"]
    # The digest is that of the state a run begins with, read from the checkpoint of step 0.
    path = config(inputs, tmp_path / "fresh", divergence={"action": "recover"})
    run(program, "train", path, "--set", "budget='21 steps'", "--set", "checkpoint.keep=9")
    start = state_of(tmp_path / "fresh/run/checkpoints/step-00000000")
    digest = hashlib.sha256()
    for name in ("parameters", "exp_avg", "exp_avg_sq", "updates"):
        digest.update(start[name].tobytes())
    assert digest.hexdigest() == got["state_after"]
    # A run in a folder that find-lr was at is the run in a new one.
    again = config(inputs, tmp_path / "again", divergence={"action": "recover"})
    run(program, "find-lr", again)
    assert not (tmp_path / "again/run/checkpoints").exists() and not (tmp_path / "again/run/adapter").exists()
    assert not (tmp_path / "again/run/metrics.jsonl").exists()
    run(program, "train", again, "--set", "budget='21 steps'", "--set", "checkpoint.keep=9")
    runs = [[line["loss"] for line in metrics(tmp_path / name / "run")] for name in ("fresh", "again")]
    assert runs[0] == runs[1] and len(runs[0]) == 21
    ends = [state_of(tmp_path / name / "run/checkpoints/step-00000021") for name in ("fresh", "again")]
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])


def test_a_probe_is_a_fresh_run_at_its_rate(program, inputs, tmp_path):
    """Rates that hardly rise make the updates of a run at a constant rate: parameters, moments and clock are those of a
    start, whatever was measured before."""
    changes = {"batch": {"global": 16, "reference": 16, "micro": 4}, "budget": "20 steps"}
    path = config(inputs, tmp_path / "probe", **changes)
    run(program, "find-lr", path, "--from", "3e-3", "--to", "3.0000003e-3", "--updates", "20", check=False)
    losses = {}
    for name, lr in {"trained": 3e-3, "untrained": 1e-30}.items():
        run(program, "train", config(inputs, tmp_path / name, optimizer__lr=lr, **changes))
        losses[name] = [line["loss"] for line in metrics(tmp_path / name / "run")]
    level = sum(losses["untrained"]) / 20
    expected = [a - b + level for a, b in zip(losses["trained"], losses["untrained"])]
    assert max(expected) - min(expected) > 0.05  # something was learned, which the comparison below would miss
    rows = list(csv.DictReader((tmp_path / "probe/run/find-lr/curve.csv").open()))
    assert len(rows) == 19
    # Each row has the loss after its rate. A relative 1e-7 of the rate moves them by less than this.
    assert [float(row["loss"]) for row in rows] == pytest.approx(expected[1:], abs=1e-5)


def mean_of_last(folder, count=10):
    losses = [line["loss"] for line in metrics(folder / "run")]
    return sum(losses[-count:]) / count


def test_training_confirms_the_bracket(program, inputs, found, tmp_path):
    lr = result(found[0])["optimizer.lr"]
    last = {}
    for name, rate in {"suggested": lr["suggested"], "beyond": 10 * lr["high"], "below": lr["low"] / 10}.items():
        path = config(inputs, tmp_path / name, optimizer__lr=rate)
        outcome = run(program, "train", path, check=False)
        first = metrics(tmp_path / name / "run")[0]["loss"]
        last[name] = math.inf if outcome.returncode == 71 else mean_of_last(tmp_path / name)
        assert outcome.returncode in (0, 71) if name == "beyond" else outcome.returncode == 0
    assert last["suggested"] < first - 0.5
    assert last["suggested"] < last["beyond"] - 0.1 and last["suggested"] < last["below"] - 0.1


def refuse(program, code, words, *arguments, ranks=1):
    outcome = run(program, "find-lr", *arguments, ranks=ranks, check=False)
    assert outcome.returncode == code, outcome.stderr[-2000:]
    line = [line for line in outcome.stderr.splitlines() if line.startswith("lorascale: ")]
    assert len(set(line)) == 1 and words in line[0], outcome.stderr[-2000:]
    return outcome


@pytest.mark.parametrize("arguments, words", [
    (["--from", "0"], "must rise from above 0"),
    (["--from", "1e-2", "--to", "1e-3"], "not from 0.01 to 0.001"),
    (["--to", "inf"], "must rise"),
    (["--updates", "5"], "at least 20"),
    (["--updates", "many"], "updates"),
    (["--rates", "3"], "rates"),
])
def test_bad_arguments(program, inputs, tmp_path, arguments, words):
    refuse(program, 64, words, config(inputs, tmp_path), *arguments)
    assert not (tmp_path / "run").exists()


def test_too_short_a_run(program, inputs, tmp_path):
    path = config(inputs, tmp_path)
    refuse(program, 78, "the run has 7 updates", path, "--set", "budget='7 steps'", ranks=2)
    refuse(program, 78, "--updates 61 is more than the 60 of the run", path, "--updates", "61")


@pytest.mark.parametrize("batch, micro", [(4, 2), (2, 1)])
def test_small_batches_of_unlike_rows(program, inputs, found, tmp_path, batch, micro):
    """Single losses of two rows scatter by 0.12 here, as much as they fall; less the untrained loss of the same rows,
    they scatter by a hundredth of that. The bracket at an eighth of the batch lies inside the one of the whole."""
    run(program, "find-lr", config(inputs, tmp_path, batch={"global": batch, "reference": batch, "micro": micro}))
    small, whole = result(tmp_path), result(found[0])
    assert small["scatter"] < 0.005 and small["fall"] > 0.1
    rates, bracket = small["rate_at_batch"], whole["rate_at_batch"]
    assert bracket["low"] / 1.01 < rates["low"] < rates["suggested"] < rates["high"] < bracket["high"] * 1.01


def test_an_update_that_is_not_finite_does_not_count(program, inputs, found, tmp_path):
    said = run(program, "find-lr", config(inputs, tmp_path, faults=["nan step=7 phase=backward"]))
    assert "update 7 is not finite at a rate of 0 either" in said.stderr
    got, whole = result(tmp_path)["rate_at_batch"], result(found[0])["rate_at_batch"]
    assert all(rate == pytest.approx(whole[name], rel=0.3) for name, rate in got.items())


def test_nothing_lowers_the_loss(program, inputs, tmp_path):
    outcome = refuse(program, 78, "no rate in the range lowers the loss; ", config(inputs, tmp_path),
                     "--to", "1e-5", ranks=2)
    assert "larger batch" in outcome.stderr
    got = result(tmp_path)
    assert got["verdict"] == "no_descent" and (tmp_path / "run/find-lr/curve.svg").exists()


def test_no_targets(program, inputs, tmp_path):
    refuse(program, 65, "have no target", config(inputs, tmp_path, data__train=str(inputs / "flat.h5")))


def test_adascale_has_no_factor_yet(program, inputs, tmp_path):
    path = config(inputs, tmp_path, scale={"rule": "adascale"}, noise={"horizon": "640 samples"})
    refuse(program, 78, "scale.rule=none", path)


def test_folder_of_another_run(program, inputs, tmp_path):
    path = config(inputs, tmp_path)
    run(program, "train", path, "--set", "budget='2 steps'")
    before = (tmp_path / "run/config.yaml").read_bytes()
    refuse(program, 78, "belongs to another run: batch.global: 8 was 16", path, "--set", "batch.global=8")
    assert not (tmp_path / "run/find-lr").exists()
    run(program, "find-lr", path, "--set", "optimizer.lr=7e-3")  # its rate may differ
    assert (tmp_path / "run/config.yaml").read_bytes() == before


def test_help(program):
    said = run(program, "find-lr", "--help").stdout
    assert "--from" in said and "--updates" in said and "bracket" in said
    assert "find-lr" in run(program, "--help").stdout
