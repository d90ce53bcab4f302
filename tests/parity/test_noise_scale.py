"""The gradient noise scale of a run whose parameters hardly move, against per-document gradients of transformers + peft
and the definitions of docs: raw for SGD, in Adam's metric for AdamW, on any number of ranks."""
import numpy as np
import pytest
import torch
from reference import add_adapter, loss_sum, make_model, metrics, run, write_config, write_dataset

TARGETS = ["q_proj", "down_proj"]
BATCH, STEPS, BETA2, EPS = 8, 36, 0.95, 1e-8
HISTORY = 10  # updates before Adam's second moments are a metric


def documents():
    """Texts of few words: gradients agree enough for the noise scale to be known after some updates."""
    generator = np.random.default_rng(3)
    return [generator.choice([7, 11, 13], int(generator.integers(4, 40))) for _ in range(BATCH * STEPS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    model = make_model("llama")
    model.save_pretrained(folder / "base")
    add_adapter(model, TARGETS).save_pretrained(folder / "start")
    write_dataset(folder / "train.h5", documents())
    return folder


@pytest.fixture(scope="module")
def gradients():
    """[updates][documents]: (targets, {group: gradient of the summed loss}) in fp64."""
    model = add_adapter(make_model("llama"), TARGETS)
    named = [(("lora_A" if "lora_A" in name else "lora_B"), parameter) for name, parameter in model.named_parameters()
             if parameter.requires_grad]
    found = []
    for document in documents():
        model.zero_grad()
        total, targets = loss_sum(model, document)
        total.backward()
        found.append((targets, {group: torch.cat([p.grad.flatten() for g, p in named if g == group]).double()
                                for group in ("lora_A", "lora_B")}))
    return [found[i * BATCH:(i + 1) * BATCH] for i in range(STEPS)]


def estimate(update, groups, metric=None):
    """(trace per sample, |G|^2) of one update, by the formula for unequal weights."""
    weights = np.array([targets for targets, _ in update], float)
    vectors = [torch.cat([gradient[g] / (1 if metric is None else metric[g]) for g in groups]) for _, gradient in update]
    n, whole = weights.sum(), sum(vectors)
    leaf_squares = sum(float(v @ v) / w for v, w in zip(vectors, weights))
    mean_square = float(whole @ whole) / n ** 2
    trace = (leaf_squares - n * mean_square) / (len(update) - 1)
    return trace * len(update) / n, mean_square - trace / n


def expected_raw(gradients):
    readings = []
    for group in ("lora_A", "lora_B"):
        pairs = np.array([estimate(update, [group]) for update in gradients])
        readings.append(pairs[:, 0].mean() / pairs[:, 1].mean())
    return min(readings)


def expected_preconditioned(gradients):
    pairs, second = [], {"lora_A": 0.0, "lora_B": 0.0}
    for t, update in enumerate(gradients):
        n = sum(targets for targets, _ in update)
        if t >= HISTORY:
            metric = {g: (v / (1 - BETA2 ** t)).sqrt() + EPS for g, v in second.items()}
            pairs.append(estimate(update, ["lora_A", "lora_B"], metric))
        for g in second:
            mean = sum(gradient[g] for _, gradient in update) / n
            second[g] = BETA2 * second[g] + (1 - BETA2) * mean ** 2
    pairs = np.array(pairs)
    return pairs[:, 0].mean() / pairs[:, 1].mean()


@pytest.mark.parametrize("reduction", ["fast", "exact"])
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_reading_equals_the_definition(program, folder, gradients, tmp_path, optimizer, ranks, reduction):
    path = tmp_path / "config.yaml"
    write_config(path, {
        "run": {"output_dir": str(tmp_path / "run"), "threads": 1, "deadline_seconds": 20, "reduction": reduction},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": {"rank": 4, "alpha": 8, "targets": TARGETS, "init_from": str(folder / "start")},
        "data": {"train": str(folder / "train.h5"), "shuffle": False, "packing": False, "sequence_length": 64},
        "batch": {"global": BATCH, "micro": 1},
        "optimizer": {"name": optimizer, "lr": 1e-9, "clip_norm": 0,
                      **({"betas": [0.9, BETA2], "eps": EPS} if optimizer == "adamw" else {})},
        "schedule": {"name": "constant", "warmup": "0 samples"},
        "noise": {"horizon": "1000000000 samples"},  # an average over all updates alike
        "budget": f"{STEPS} steps",
    })
    run(program, "train", path, ranks=ranks)
    last = metrics(tmp_path / "run")[-1]
    expected = (expected_raw if optimizer == "sgd" else expected_preconditioned)(gradients)
    assert last["noise_scale"] == pytest.approx(expected, rel=2e-3)  # fp32 gradients; S is a small difference
    assert 0 < last["noise_scale_relative_sd"] < 0.25
