"""Loss and adapter gradients of one update against transformers + peft, in fp32, for every family.

The program's gradient is read off an SGD update with rate 1: gradient = before - after. Loss is compared to 1e-5
relative, gradients to 1e-5 of each tensor's largest entry; subtraction of two fp32 parameters of size 0.1 adds an
absolute 1e-8, hence the second term."""
import pytest
import torch

from reference import (CASES, add_adapter, adapter_tensors, loss_sum, make_documents, make_model, metrics, run,
                       write_config, write_dataset)

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def one_update(program, folder, documents, masks, packing, sequence_length, recompute=False, rslora=False, micro=2,
               ranks=1):
    write_config(folder / "config.yaml", {
        "run": {"output_dir": str(folder / "run"), "threads": 1},
        "model": {"path": str(folder / "base"), "dtype": "fp32", "recompute": recompute},
        "adapter": {"rank": 4, "alpha": 8, "targets": LINEARS, "rslora": rslora, "init_from": str(folder / "start")},
        "data": {"train": str(folder / "train.h5"), "shuffle": False, "packing": packing,
                 "sequence_length": sequence_length},
        "batch": {"global": len(documents) if not packing else 1, "micro": micro if not packing else 1},
        "optimizer": {"name": "sgd", "lr": 1.0, "clip_norm": 0.0},
        "schedule": {"name": "constant", "warmup": 0},
        "budget": "1 steps",
    })
    run(program, "train", folder / "config.yaml", ranks=ranks)
    return metrics(folder / "run")[-1], adapter_tensors(folder / "run" / "adapter")


def reference_update(folder, case, documents, masks, rslora=False):
    model = make_model(case)
    model.save_pretrained(folder / "base")
    model = add_adapter(model, LINEARS, rslora=rslora)
    model.save_pretrained(folder / "start")
    write_dataset(folder / "train.h5", documents, masks)
    total, count = 0.0, 0
    for i, document in enumerate(documents):
        part, targets = loss_sum(model, document, None if masks is None else masks[i])
        total, count = total + part, count + targets
    (total / count).backward()
    gradients = {name.replace(".default", ""): parameter.grad
                 for name, parameter in model.named_parameters() if parameter.grad is not None}
    return (total / count).item(), gradients


def check(line, after, before, loss, gradients):
    assert line["loss"] == pytest.approx(loss, rel=1e-5)
    assert set(after) == set(gradients)
    for name, expected in gradients.items():
        actual = before[name] - after[name]
        error = (actual - expected).abs().max().item()
        assert error <= 1e-5 * expected.abs().max().item() + 2e-8, f"{name}: {error} of {expected.abs().max()}"
    norm = torch.cat([g.flatten() for g in gradients.values()]).norm().item()
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_rows(program, tmp_path, case):
    documents = make_documents(6, 5, 40)
    loss, gradients = reference_update(tmp_path, case, documents, None)
    line, after = one_update(program, tmp_path, documents, None, packing=False, sequence_length=64)
    check(line, after, adapter_tensors(tmp_path / "start"), loss, gradients)


@pytest.mark.parametrize("case", ["llama", "mistral-window", "qwen3"])
def test_packed_documents_do_not_see_each_other(program, tmp_path, case):
    documents = make_documents(4, 5, 30)
    loss, gradients = reference_update(tmp_path, case, documents, None)
    line, after = one_update(program, tmp_path, documents, None, packing=True, sequence_length=128)
    assert line["tokens"] == sum(map(len, documents))
    check(line, after, adapter_tensors(tmp_path / "start"), loss, gradients)


def test_only_masked_targets_count(program, tmp_path):
    documents = make_documents(6, 8, 30)
    masks = [[0] * (len(d) // 2) + [1] * (len(d) - len(d) // 2) for d in documents]
    loss, gradients = reference_update(tmp_path, "llama", documents, masks)
    line, after = one_update(program, tmp_path, documents, masks, packing=False, sequence_length=64)
    check(line, after, adapter_tensors(tmp_path / "start"), loss, gradients)


@pytest.mark.parametrize("options", [dict(recompute=True), dict(rslora=True), dict(micro=1), dict(micro=3),
                                     dict(micro=6), dict(ranks=2), dict(ranks=3, micro=1)],
                         ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()))
def test_options_that_must_not_change_the_gradient(program, tmp_path, options):
    documents = make_documents(6, 5, 40)
    loss, gradients = reference_update(tmp_path, "llama", documents, None, rslora=options.get("rslora", False))
    line, after = one_update(program, tmp_path, documents, None, packing=False, sequence_length=64, **options)
    check(line, after, adapter_tensors(tmp_path / "start"), loss, gradients)
