"""LAMB and LARS on a whole run against loops over the tensors of transformers + peft, and label smoothing against torch."""
import pytest
import torch
from reference import (add_adapter, adapter_tensors, loss_sum, make_documents, make_model, metrics, run, write_config,
                       write_dataset)

TARGETS = ["q_proj", "v_proj", "down_proj"]
BATCH, STEPS, CLIP, DECAY = 8, 30, 0.25, 0.01
LR = {"lamb": 1e-2, "lars": 2.0}
MOMENTUM, COEFFICIENT, BETAS, EPS = 0.9, 0.02, (0.9, 0.999), 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large-batch")
    model = make_model("llama")
    model.save_pretrained(folder / "base")
    add_adapter(model, TARGETS).save_pretrained(folder / "start")
    write_dataset(folder / "train.h5", make_documents(40, 4, 40))
    return folder


def settings(folder, name, output, full=False, **optimizer):
    adapter = {"type": "full"} if full else {"rank": 4, "alpha": 8, "targets": TARGETS,
                                             "init_from": str(folder / "start")}
    own = {"lamb": {"eps": EPS, "betas": list(BETAS)},
           "lars": {"momentum": MOMENTUM, "trust_coefficient": COEFFICIENT}}[name]
    path = folder / f"{output}.yaml"
    write_config(path, {
        "run": {"output_dir": str(folder / output), "threads": 1, "deadline_seconds": 20},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": adapter,
        "data": {"train": str(folder / "train.h5"), "shuffle": False, "packing": False, "sequence_length": 64},
        "batch": {"global": BATCH, "micro": 2},
        "optimizer": {"name": name, "lr": LR[name], "clip_norm": CLIP, "weight_decay": DECAY, **own, **optimizer},
        "schedule": {"name": "cosine", "warmup": "5 steps"},
        "checkpoint": {"every": "7 steps"},
        "budget": f"{STEPS} steps",
    })
    return path


def lamb_update(p, g, state, lr, decay, trusted):
    state["t"] = state.get("t", 0) + 1
    m = state["m"] = BETAS[0] * state.get("m", 0) + (1 - BETAS[0]) * g
    v = state["v"] = BETAS[1] * state.get("v", 0) + (1 - BETAS[1]) * g * g
    u = m / (1 - BETAS[0] ** state["t"]) / ((v / (1 - BETAS[1] ** state["t"])).sqrt() + EPS) + decay * p
    ratio = p.norm() / u.norm() if trusted and p.norm() > 0 and u.norm() > 0 else 1.0
    p -= lr * ratio * u


def lars_update(p, g, state, lr, decay, trusted):
    known = trusted and p.norm() > 0 and g.norm() > 0
    ratio = COEFFICIENT * p.norm() / (g.norm() + decay * p.norm()) if known else 1.0
    state["m"] = MOMENTUM * state.get("m", 0) + ratio * (g + decay * p)
    p -= lr * state["m"]


def reference_run(name, rates, full, trust_b):
    documents = make_documents(40, 4, 40)
    model = make_model("llama") if full else add_adapter(make_model("llama"), TARGETS)
    named = [(n, p) for n, p in model.named_parameters() if full or p.requires_grad]
    states, losses = [{} for _ in named], []
    update = {"lamb": lamb_update, "lars": lars_update}[name]
    for step in range(STEPS):
        parts = [loss_sum(model, documents[(step * BATCH + i) % len(documents)]) for i in range(BATCH)]
        loss = sum(part for part, _ in parts) / sum(count for _, count in parts)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], CLIP)
        losses.append(loss.item())
        with torch.no_grad():
            for (key, p), state in zip(named, states):
                vector = p.dim() < 2
                trusted = not vector and (trust_b or "lora_B" not in key)
                update(p, p.grad, state, rates[step], 0.0 if vector else DECAY, trusted)
    return losses, {n.replace(".default", ""): p.detach() for n, p in named}


@pytest.mark.parametrize("name", ["lamb", "lars"])
@pytest.mark.parametrize("kind", ["lora", "lora with B", "full"])
def test_thirty_updates(program, folder, name, kind):
    output = f"{name}-{kind.replace(' ', '-')}"
    extra = {"trust_ratio_lora_b": True} if kind == "lora with B" else {}
    full = kind == "full"
    run(program, "train", settings(folder, name, output, full, **extra))
    lines = metrics(folder / output)
    losses, tensors = reference_run(name, [line["lr"] for line in lines], full, kind == "lora with B")
    assert min(losses) < 0.99 * losses[0], "the run must move far enough to tell optimizers apart"
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-4)
    if full:
        from safetensors.torch import load_file
        trained = load_file(folder / output / "model" / "model.safetensors")
    else:
        trained = adapter_tensors(folder / output / "adapter")
    for key, expected in tensors.items():
        assert (trained[key] - expected).abs().max() <= 2e-3 * expected.abs().max(), key


def test_rule_auto(program, folder):
    """k = 4: the rate of lamb grows by sqrt(k), that of lars by k."""
    for name, factor in (("lamb", 2), ("lars", 4)):
        path = settings(folder, name, f"{name}-rule")
        run(program, "train", path, "--set", "batch.reference=2", "--set", "schedule.name=constant", "--set",
            "schedule.warmup=0", "--set", "budget=2 steps")
        assert metrics(folder / f"{name}-rule")[0]["lr"] == pytest.approx(factor * LR[name], rel=1e-12)


def test_label_smoothing_is_torchs_and_in_training_only(program, folder):
    path = settings(folder, "lamb", "smoothed")
    run(program, "train", path, "--set", "loss.label_smoothing=0.2", "--set", "budget=1 step", "--set",
        "schedule.warmup=0", "--set", f"data.validation={folder / 'train.h5'}")
    model, documents = add_adapter(make_model("llama"), TARGETS), make_documents(40, 4, 40)

    def mean(documents, smoothing):
        with torch.no_grad():
            sums = [torch.nn.functional.cross_entropy(
                model(input_ids=torch.tensor(d)[None]).logits[0, :-1], torch.tensor(d[1:]), reduction="sum",
                label_smoothing=smoothing) for d in documents]
        return (sum(sums) / sum(len(d) - 1 for d in documents)).item()

    start, update = metrics(folder / "smoothed")
    assert update["loss"] == pytest.approx(mean(documents[:BATCH], 0.2), rel=2e-6)
    assert start["val_loss"] == pytest.approx(mean(documents, 0.0), rel=2e-6)
    assert abs(mean(documents[:BATCH], 0.2) - mean(documents[:BATCH], 0.0)) > 1e-3
