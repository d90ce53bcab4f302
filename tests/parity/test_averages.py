"""Averages of the weights in whole runs: against sums over the weights of all checkpoints, with skipped updates, over
kills and other ranks; what is validated, exported and left alone."""
import hashlib
import shutil
import signal

import h5py
import numpy as np
import pytest
from reference import VOCABULARY, add_adapter, make_documents, make_model, metrics, run, write_config, write_dataset
from safetensors.numpy import load_file

STEPS, BATCH, HALF_LIFE, START = 20, 7, 40, 60
AVERAGES = {"ema": {"name": "ema", "half_life": f"{HALF_LIFE} samples"}, "swa": {"name": "swa", "start": f"{START} samples"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("averages")
    model = make_model("llama")
    model.save_pretrained(folder / "base")
    add_adapter(model, ["q_proj", "v_proj"]).save_pretrained(folder / "start")
    write_dataset(folder / "train.h5", make_documents(40, 4, 40))  # an epoch ends with an update of 5
    with h5py.File(folder / "train.h5", "r+") as file:
        file.attrs["tokenizer_sha256"] = "bytes"  # so that prompts are texts, and answers: <17><200>...
        words = [f"<{token}>".encode() for token in range(VOCABULARY)]
        file["vocabulary/bytes"] = np.frombuffer(b"".join(words), dtype=np.uint8)
        file["vocabulary/offsets"] = np.cumsum([0] + [len(word) for word in words]).astype(np.int64)
    write_dataset(folder / "validation.h5", make_documents(9, 4, 40))  # of the training set, so that it improves
    return folder


def settings(folder, output, kind, full=False, **changes):
    adapter = {"type": "full"} if full else {"rank": 4, "alpha": 8, "dropout": 0.1, "init_from": str(folder / "start")}
    config = {
        "run": {"output_dir": str(folder / output), "threads": 1, "deadline_seconds": 20, "reduction": "exact"},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": adapter,
        "data": {"train": str(folder / "train.h5"), "validation": str(folder / "validation.h5"), "packing": False,
                 "sequence_length": 64},
        "batch": {"global": BATCH, "micro": 1},
        "optimizer": {"lr": 3e-3},
        "schedule": {"name": "constant", "warmup": "0 samples"},
        "evaluate": {"every": "4 steps"},
        "checkpoint": {"every": "1 step", "keep": 100},
        "budget": f"{STEPS} steps",
    }
    if kind:
        config["average"] = dict(AVERAGES[kind])
    for section, values in changes.items():
        if isinstance(values, dict):
            config.setdefault(section, {}).update(values)
        else:
            config[section] = values
    path = folder / f"{output}.yaml"
    write_config(path, config)
    return path


def trained(program, folder, output, average, full=False, ranks=1, **changes):
    if not (folder / output / "metrics.jsonl").exists():
        run(program, "train", settings(folder, output, average, full, **changes), ranks=ranks)
    return folder / output


def checkpoint(run_folder, step):
    return load_file(run_folder / "checkpoints" / f"step-{step:08d}" / "tensors.safetensors")


def files_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def expected_average(run_folder, average):
    total, mass = 0, 0.0
    for line in metrics(run_folder):
        step = line["step"]
        if step == 0 or not line.get("applied", True):
            continue
        keep = 0.5 ** (line["global_batch"] / HALF_LIFE)
        if average == "swa":
            keep, add = 1, 1 if line["samples"] > START else 0
        else:
            add = 1 - keep
        total = keep * total + add * checkpoint(run_folder, step)["parameters"].astype(np.float64)
        mass = keep * mass + add
    return total / mass


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_average_of_all_weights_there_were(program, folder, average):
    output = trained(program, folder, average, average)
    last = checkpoint(output, STEPS)
    expected = expected_average(output, average)
    assert np.abs(last["average"] - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.abs(last["parameters"] - expected).max() > 1e-3 * np.abs(expected).max()
    # adapter/ holds the average and adapter-last/ the weights, whatever the order of the tensors is.
    for name, vector in (("adapter", last["average"]), ("adapter-last", last["parameters"])):
        values = np.concatenate([t.ravel() for t in load_file(output / name / "adapter_model.safetensors").values()])
        assert np.array_equal(np.sort(values), np.sort(vector)), name


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_a_skipped_update_has_no_share(program, folder, average):
    output = trained(program, folder, f"{average}-nan", average,
                     faults=["nan step=1 phase=backward", "nan step=15 phase=backward"])
    assert [line["step"] for line in metrics(output) if line.get("applied") is False] == [1, 15]
    expected = expected_average(output, average)
    assert np.abs(checkpoint(output, STEPS)["average"] - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("full,dtype", [(False, "fp32"), (False, "bf16"), (True, "fp32"), (True, "bf16")])
def test_training_itself_stays_what_it_was(program, folder, full, dtype):
    """Average in and out for every validation: not a bit of the weights or of a loss is another."""
    name = f"{'full' if full else 'lora'}-{dtype}"
    plain = trained(program, folder, f"plain-{name}", None, full, model={"dtype": dtype})
    averaged = trained(program, folder, f"averaged-{name}", "ema", full, model={"dtype": dtype})
    final = "model" if full else "adapter"
    assert files_of(plain / final) == files_of(averaged / f"{final}-last")
    assert files_of(plain / final) != files_of(averaged / final)
    assert not (plain / f"{final}-last").exists()
    assert [line.get("loss") for line in metrics(plain)] == [line.get("loss") for line in metrics(averaged)]
    assert metrics(plain)[-1]["val_loss"] != metrics(averaged)[-1]["val_loss"]
    state, other = checkpoint(plain, STEPS), checkpoint(averaged, STEPS)
    assert all(np.array_equal(state[key], other[key]) for key in state)


def test_what_is_validated_is_what_is_exported(program, folder):
    output = trained(program, folder, "ema", "ema")
    again = settings(folder, "again", None, adapter={"init_from": str(output / "adapter")}, budget="1 step")
    run(program, "train", again)
    assert metrics(folder / "again")[0]["val_loss"] == metrics(output)[-1]["val_loss"]
    best = min(line["val_loss"] for line in metrics(output) if line["step"] > 0 and "val_loss" in line)
    run(program, "train", settings(folder, "best-again", None, adapter={"init_from": str(output / "best")},
                                   budget="1 step"))
    assert metrics(folder / "best-again")[0]["val_loss"] == best


def test_before_its_start_swa_validates_the_weights(program, folder):
    plain, swa = trained(program, folder, "plain-lora-fp32", None), trained(program, folder, "swa", "swa")
    for one, other in zip(metrics(plain), metrics(swa)):
        if one.get("val_loss") is not None:
            assert (one["val_loss"] == other["val_loss"]) == (one["samples"] <= START), one["step"]


def test_ended_before_its_start(program, folder):
    """Early stopping may come first: then there is no average, and the log says so."""
    path = settings(folder, "early", "swa", optimizer={"lr": 1e-9}, evaluate={"every": "1 step", "early_stop": {
        "patience": 1, "min_delta": 0.5}})
    result = run(program, "train", path)
    assert "ended before average.start" in result.stderr
    assert (folder / "early" / "adapter").exists() and not (folder / "early" / "adapter-last").exists()


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_same_bits_on_any_number_of_ranks_and_over_a_kill(program, folder, average):
    one = trained(program, folder, average, average)
    expected = {name: files_of(one / name) for name in ("adapter", "adapter-last", "best")}
    expected["state"] = hashlib.sha256(
        (one / "checkpoints" / f"step-{STEPS:08d}" / "tensors.safetensors").read_bytes()).hexdigest()

    def same(output):
        found = {name: files_of(output / name) for name in ("adapter", "adapter-last", "best")}
        found["state"] = hashlib.sha256(
            (output / "checkpoints" / f"step-{STEPS:08d}" / "tensors.safetensors").read_bytes()).hexdigest()
        assert found == expected
        assert [line.get("val_loss") for line in metrics(output)] == [line.get("val_loss") for line in metrics(one)]

    for ranks in (2, 3):
        same(trained(program, folder, f"{average}-{ranks}", average, ranks=ranks))
    path = settings(folder, f"{average}-killed", average)
    killed = run(program, "train", path, "--set", "faults=[kill step=13 phase=backward]", check=False)
    assert killed.returncode == -signal.SIGKILL
    run(program, "train", path, ranks=2)
    same(folder / f"{average}-killed")


@pytest.mark.parametrize("name", ["lamb", "lars"])
@pytest.mark.parametrize("full", [False, True])
def test_lamb_and_lars_resume_bit_for_bit(program, folder, name, full):
    changes = {"optimizer": {"name": name, "lr": 1e-2}, "checkpoint": {"every": "5 steps"}}
    kind = f"{name}-{'full' if full else 'lora'}"
    whole = trained(program, folder, kind, "ema", full, **changes)
    path = settings(folder, f"{kind}-killed", "ema", full, **changes)
    run(program, "train", path, "--set", "faults=[kill step=13 phase=forward]", check=False)
    assert not (folder / f"{kind}-killed" / "checkpoints" / f"step-{STEPS:08d}").exists()
    run(program, "train", path)
    state = [(f / "checkpoints" / f"step-{STEPS:08d}" / "tensors.safetensors").read_bytes()
             for f in (whole, folder / f"{kind}-killed")]
    assert state[0] == state[1]


def test_switching_averages_on_later_is_refused(program, folder):
    """The earlier updates are gone: a checkpoint without an average is loadable where none is kept, and only there."""
    plain = trained(program, folder, "plain-lora-fp32", None)
    copy = folder / "later"
    shutil.copytree(plain, copy)
    result = run(program, "train", settings(folder, "later", "ema"), check=False)
    assert result.returncode == 78 and "average.name" in result.stderr
    run(program, "train", settings(folder, "later", None))  # already done: nothing to do, and no complaint


def test_share_of_a_budget_in_time_is_refused(program, folder):
    path = settings(folder, "minutes", "ema", average={"half_life": "5%"}, budget="1 min")
    result = run(program, "train", path, check=False)
    assert result.returncode == 78 and "average.half_life" in result.stderr and "samples" in result.stderr


def test_text_samples_are_of_the_average(program, folder):
    """Text after training is what `generate` says with adapter/, and not what it says with adapter-last/."""
    path = settings(folder, "samples", "ema", optimizer={"lr": 3e-2},
                    sample={"prompts": ["ab", "The"], "max_tokens": 40})
    run(program, "train", path)
    sampled = (folder / "samples" / "samples" / "after.txt").read_text()

    def said(adapter):
        return [f"> {prompt}\n{prompt}\n" + run(program, "generate", path, "--adapter", folder / "samples" / adapter,
                                           "--prompt", prompt, "--max-tokens", "40").stdout.rstrip("\n")
                for prompt in ("ab", "The")]

    assert all(text in sampled for text in said("adapter"))
    assert not all(text in sampled for text in said("adapter-last"))
