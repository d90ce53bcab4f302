"""Batches that change while a run goes on: the policies of batch.policy, and batch.on_resize."""
import json
import os
import subprocess

import pytest
from reference import make_documents, make_model, metrics, write_config, write_dataset

ROWS = 240
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    make_model("llama").save_pretrained(folder / "base")
    write_dataset(folder / "train.h5", make_documents(ROWS, 4, 40))
    return folder


def settings(inputs, output, **batch):
    return {
        "run": {"output_dir": str(output), "threads": 1, "reduction": "exact", "deadline_seconds": 30},
        "model": {"path": str(inputs / "base"), "dtype": "fp32"},
        "adapter": {"rank": 4, "alpha": 8, "targets": "all-linear"},
        "data": {"train": str(inputs / "train.h5"), "packing": False, "sequence_length": 40},
        "batch": {"global": 8, "micro": 2, "reference": 8, "increment": 4, "min_steps": 10, **batch},
        "optimizer": {"lr": 2e-3},
        "schedule": {"name": "constant", "warmup": 0},
        "budget": "3 epochs",
    }


def train(program, tmp_path, config, ranks=1, expect=0):
    path = tmp_path / "config.yaml"
    write_config(path, config)
    start = [program, "train", str(path)]
    if ranks > 1:
        start = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *start]
    done = subprocess.run(start, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == expect, done.stderr
    return done


def decisions(output, kind):
    lines = [json.loads(line) for line in (output / "decisions.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def batches(output):
    return [line["samples"] - before["samples"] for before, line in
            zip([{"samples": 0}, *metrics(output)], [m for m in metrics(output) if m["step"] > 0])]


def trace(output):
    return [(line["step"], line["samples"], line["loss"], line["lr"]) for line in metrics(output)]


def test_ramp_grows_and_the_rate_follows(program, inputs, tmp_path):
    config = settings(inputs, tmp_path / "run", policy="ramp", max=24, ramp="300 samples")
    train(program, tmp_path, config)
    lines = [line for line in metrics(tmp_path / "run") if line["step"] > 0]
    seen = 0
    for line in lines:
        size = line["samples"] - seen
        left = ROWS - seen % ROWS
        expected = 8 + 4 * min(4, seen * 4 // 300)  # in equal increments over 300 samples
        assert size == min(expected, left), line
        assert line["lr"] == pytest.approx(2e-3 * (size / 8) ** 0.5, rel=1e-12)
        seen = line["samples"]
    assert seen == 3 * ROWS
    assert [d["inputs"]["batch"] for d in decisions(tmp_path / "run", "batch")] == \
        [[8, 12], [12, 16], [16, 20], [20, 24]]


@pytest.mark.parametrize("policy", ["ramp", "noise-scale", "seesaw"])
def test_same_bits_on_any_ranks_and_over_a_resume(program, inputs, tmp_path, policy):
    more = {"ramp": {"max": 24, "ramp": "300 samples"}, "noise-scale": {"dwell": "64 samples"}, "seesaw": {}}[policy]
    traces = []
    for name, ranks, stops in (("one", 1, []), ("three", 3, []), ("both", 3, ["1 epochs"])):
        folder = tmp_path / name
        folder.mkdir()
        config = settings(inputs, folder / "run", policy=policy, **more)
        config["noise"] = {"horizon": "400 samples"}
        if policy == "seesaw":
            config["schedule"] = {"name": "cosine", "warmup": 0}
        if stops:  # a signal in the first epoch ends it after a saved update
            config["faults"] = ["slow step=9 phase=optimizer seconds=3"]
            path = folder / "config.yaml"
            write_config(path, config)
            command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "3", program, "train", str(path)]
            job = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            log = folder / "run" / "metrics.jsonl"
            while job.poll() is None and (not log.exists() or log.read_text().count("\n") < 8):
                pass
            job.terminate()
            job.wait(60)
            config["faults"] = []
            ranks = 2
        train(program, folder, config, ranks)
        traces.append((trace(folder / "run"), [d["inputs"]["batch"] for d in decisions(folder / "run", "batch")]))
    assert traces[0][1], "the batch never changed"
    assert traces[1] == traces[0]
    assert traces[2] == traces[0]


def test_noise_scale_follows_the_reading(program, inputs, tmp_path):
    """Each change of the batch is what the reading allows, in whole increments, at most doubled, after the dwell."""
    config = settings(inputs, tmp_path / "run", policy="noise-scale", dwell="64 samples", max=48)
    config["noise"] = {"horizon": "400 samples"}
    train(program, tmp_path, config)
    changes = decisions(tmp_path / "run", "batch")
    assert changes
    last = 0
    for change in changes:
        before, after = change["inputs"]["batch"]
        wanted = int(change["inputs"]["policy_inputs"]["critical_batch"])
        assert after == max(before, min(wanted // 4 * 4, 2 * before, 48))
        assert change["inputs"]["policy_inputs"]["relative_sd"] < 0.25
        assert change["samples"] - last >= 64
        last = change["samples"]


def test_goodput_measures_and_decides(program, inputs, tmp_path):
    config = settings(inputs, tmp_path / "run", policy="goodput", critical=200, dwell=0, max=32, micro=4)
    # The same for an update of any batch, and more than all else in it: whatever this machine is, larger is faster.
    config["faults"] = [f"slow step={step} phase=optimizer seconds=0.03" for step in range(1, 91)]
    train(program, tmp_path, config, ranks=2)
    changes = decisions(tmp_path / "run", "batch")
    assert changes, "an update of 8 samples costs more a sample than one of 32 at a critical batch of 200"
    first = changes[0]["inputs"]["policy_inputs"]
    assert first["gain"] > 1.5 and first["seconds_per_leaf"] + first["seconds_per_sample"] > 0


def test_rescale_on_another_number_of_ranks(program, inputs, tmp_path):
    config = settings(inputs, tmp_path / "run")
    config["budget"] = "20 steps"
    train(program, tmp_path, config, ranks=2)
    config["budget"] = "900 samples"
    config["batch"]["on_resize"] = "rescale"
    train(program, tmp_path, config, ranks=4)
    [change] = decisions(tmp_path / "run", "batch")
    assert change["inputs"]["batch"] == [8, 16] and change["inputs"]["world_size"] == [2, 4]
    lines = {line["step"]: line for line in metrics(tmp_path / "run")}
    assert lines[20]["samples"] == 160 and lines[21]["samples"] == 176
    rates = [lines[step]["lr"] for step in range(20, 32)]
    assert rates[0] == pytest.approx(2e-3) and rates[1] == pytest.approx(2e-3)
    assert rates[11] == pytest.approx(2e-3 * 2 ** 0.5)
    assert all(a <= b for a, b in zip(rates, rates[1:]))
    # Held from here on, whatever the ranks.
    config["batch"]["on_resize"] = "hold"
    config["budget"] = "1000 samples"
    train(program, tmp_path, config)
    assert len(decisions(tmp_path / "run", "batch")) == 1
    assert metrics(tmp_path / "run")[-1]["global_batch"] <= 16


@pytest.mark.parametrize("change, words", [
    ({"policy": "ramp"}, "batch.max"),
    ({"policy": "noise-scale"}, "noise.horizon"),
    ({"policy": "noise-scale", "increment": 3}, "batch.increment 3 does not divide batch.global 8"),
    ({"policy": "seesaw"}, "schedule"),
    ({"policy": "noise_scale"}, "noise-scale"),
    ({"policy": "ramp", "max": 24, "ramp": 0}, "batch.ramp"),
])
def test_contradictions_are_refused(program, inputs, tmp_path, change, words):
    error = train(program, tmp_path, settings(inputs, tmp_path / "run", **change), expect=78).stderr
    assert words in error
