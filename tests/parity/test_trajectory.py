"""Fifty AdamW updates with clipping, warmup and cosine decay against torch.optim.AdamW on transformers + peft; the same
run on 1 to 4 ranks and with other leaves; and the finished adapter in peft."""
import json

import numpy as np
import peft
import pytest
import torch
import transformers

from reference import (add_adapter, adapter_tensors, loss_sum, make_documents, make_model, metrics, run, write_config,
                       write_dataset)

TARGETS = ["q_proj", "v_proj", "down_proj"]
BATCH, STEPS, WARMUP = 8, 50, 5
LR, CLIP, DECAY = 3e-3, 0.25, 0.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectory")
    model = make_model("llama")
    model.save_pretrained(folder / "base")
    add_adapter(model, TARGETS).save_pretrained(folder / "start")
    write_dataset(folder / "train.h5", make_documents(40, 4, 40))
    return folder


def settings(folder, output, micro=2, shuffle=False, dropout=0.0, budget=f"{STEPS} steps", **extra):
    config = {
        "run": {"output_dir": str(folder / output), "threads": 1, "deadline_seconds": 20},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": {"rank": 4, "alpha": 8, "targets": TARGETS, "init_from": str(folder / "start"), "dropout": dropout},
        "data": {"train": str(folder / "train.h5"), "shuffle": shuffle, "packing": False, "sequence_length": 64},
        "batch": {"global": BATCH, "micro": micro},
        "optimizer": {"lr": LR, "clip_norm": CLIP, "weight_decay": DECAY},
        "schedule": {"name": "cosine", "warmup": f"{WARMUP} steps"},
        "budget": budget,
    }
    for section, values in extra.items():
        config.setdefault(section, {}).update(values)
    path = folder / f"{output}.yaml"
    write_config(path, config)
    return path


def rate(step):
    """The schedule as docs state it: (step + 1) / warmup, then half a cosine from the peak at the joint."""
    if step < WARMUP:
        return LR * (step + 1) / WARMUP
    return LR * 0.5 * (1 + np.cos(np.pi * (step - WARMUP) / (STEPS - WARMUP)))


def reference_curve(rates, dora=False):
    documents = make_documents(40, 4, 40)
    model = add_adapter(make_model("llama"), TARGETS, dora=dora)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0 if dora else DECAY)
    losses = []
    for step in range(STEPS):
        batch = [documents[(step * BATCH + i) % len(documents)] for i in range(BATCH)]
        parts = [loss_sum(model, document) for document in batch]
        loss = sum(part for part, _ in parts) / sum(count for _, count in parts)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        for group in optimizer.param_groups:
            group["lr"] = rates[step]
        optimizer.step()
        losses.append(loss.item())
    return losses, {n.replace(".default", ""): p.detach() for n, p in model.named_parameters() if p.requires_grad}


def curve(folder, output):
    return [line for line in metrics(folder / output) if line["step"] > 0]


def test_fifty_updates(program, folder):
    run(program, "train", settings(folder, "plain"))
    lines = curve(folder, "plain")
    assert len(lines) == STEPS
    rates = [line["lr"] for line in lines]
    assert rates == pytest.approx([rate(step) for step in range(STEPS)], rel=1e-12)
    losses, tensors = reference_curve(rates)
    # fp32 rounding grows along the trajectory; the bound of the whole curve is 1e-4.
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-4)
    trained = adapter_tensors(folder / "plain" / "adapter")
    for name, expected in tensors.items():
        assert (trained[name] - expected).abs().max() <= 1e-3 * expected.abs().max(), name


@pytest.mark.parametrize("ranks", [1, 2])
def test_fifty_updates_of_dora(program, folder, ranks):
    """Without weight decay, which here leaves magnitudes alone."""
    add_adapter(make_model("llama"), TARGETS, dora=True).save_pretrained(folder / "dora-start")
    output = f"dora-{ranks}"
    run(program, "train", settings(folder, output, adapter={"init_from": str(folder / "dora-start")},
                                   optimizer={"weight_decay": 0}), ranks=ranks)
    lines = curve(folder, output)
    losses, tensors = reference_curve([line["lr"] for line in lines], dora=True)
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-4)
    trained = adapter_tensors(folder / output / "adapter")
    assert trained.keys() == {name.removesuffix(".weight") if "magnitude" in name else name for name in tensors}
    for name, expected in tensors.items():
        found = trained[name.removesuffix(".weight") if "magnitude" in name else name]
        assert (found - expected).abs().max() <= 1e-3 * expected.abs().max(), name


@pytest.mark.parametrize("ranks,micro", [(2, 2), (3, 2), (4, 2), (1, 1), (1, 4), (1, 8), (3, 1)])
def test_ranks_and_leaves_change_nothing(program, folder, ranks, micro):
    if not (folder / "base-run" / "metrics.jsonl").exists():
        run(program, "train", settings(folder, "base-run", shuffle=True, dropout=0.1))
    name = f"ranks{ranks}micro{micro}"
    run(program, "train", settings(folder, name, micro=micro, shuffle=True, dropout=0.1), ranks=ranks)
    expected, actual = curve(folder, "base-run"), curve(folder, name)
    assert [line["loss"] for line in actual] == pytest.approx([line["loss"] for line in expected], rel=1e-5)
    for key in ("lr", "samples", "tokens", "targets", "global_batch"):
        assert [line[key] for line in actual] == [line[key] for line in expected], key
    assert {line["world_size"] for line in actual} == {ranks}


def test_the_adapter_in_peft_generates_the_same_text(program, folder):
    if not (folder / "plain" / "adapter").exists():
        run(program, "train", settings(folder, "plain"))
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, folder / "plain" / "adapter").eval()
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    expected = model.generate(input_ids=torch.tensor([prompt]), max_new_tokens=40, do_sample=False,
                              eos_token_id=None, pad_token_id=0)[0, len(prompt):].tolist()
    config = folder / "plain.yaml"
    ids = ["--ids", " ".join(map(str, prompt)), "--max-tokens", "40", "--set", "model.dtype=fp32"]
    text = run(program, "generate", config, *ids).stdout
    assert [int(word) for word in text.split()] == expected

    # The merged model says the same, without any adapter.
    merged = folder / "merged"
    run(program, "merge", "--model", folder / "base", "--adapter", folder / "plain" / "adapter", "--output", merged)
    plain = transformers.AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    assert plain.generate(input_ids=torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None,
                          pad_token_id=0)[0, len(prompt):].tolist() == expected


def test_the_decision_log_is_one_chain(program, folder):
    if not (folder / "plain" / "decisions.jsonl").exists():
        run(program, "train", settings(folder, "plain"))
    entries = [json.loads(line) for line in (folder / "plain" / "decisions.jsonl").read_text().splitlines()]
    assert [entry["sequence"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[0]["kind"] == "plan" and entries[-1]["kind"] == "budget"


def test_tensorboard_reads_what_metrics_say(program, folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    if not (folder / "plain" / "metrics.jsonl").exists():
        run(program, "train", settings(folder, "plain"))
    events = EventAccumulator(str(folder / "plain" / "tensorboard"))
    events.Reload()
    lines = curve(folder, "plain")
    for tag in ("loss", "lr", "grad_norm"):
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [line["step"] for line in lines]
        assert [scalar.value for scalar in scalars] == pytest.approx([line[tag] for line in lines], rel=1e-6)
