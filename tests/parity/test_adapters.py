"""Adapters between this program and peft: a run that begins from an adapter of peft's takes its settings, and what it
writes loads in peft by the adapter alone, wherever the reader stands."""
import json

import peft
import pytest
import torch
import yaml

from reference import loss_sum, make_documents, make_model, metrics, run, write_config, write_dataset

# What peft's configuration says, beside a rank of 6, an alpha of 9 and rsLoRA.
FORMS = {
    "names": dict(target_modules=["q_proj", "up_proj", "not_in_this_model"]),
    "expression": dict(target_modules=r".*layers\.\d+\.(self_attn\.(?:q|v)_proj|mlp\.down_proj)"),
    "dora": dict(target_modules=["q_proj", "v_proj", "down_proj"], use_dora=True),
    "one layer": dict(target_modules=["q_proj", "o_proj"], layers_to_transform=[1]),
    "but for one": dict(target_modules="all-linear", exclude_modules=["k_proj"]),
    "patterns": dict(target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"layers.1.self_attn.q_proj": 3, "q_proj": 5},
                     alpha_pattern={"down_proj": 4}),
}


def settings(folder, **more):
    config = {
        "run": {"output_dir": str(folder / "run"), "threads": 1, "device": "cpu"},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": {"init_from": str(folder / "start")},
        "data": {"train": str(folder / "train.h5"), "packing": False, "shuffle": False, "sequence_length": 64},
        "batch": {"global": 6, "micro": 3},
        "optimizer": {"name": "sgd", "lr": 1e-3},
        "schedule": {"name": "constant", "warmup": 0},
        "budget": "1 steps",
    }
    for section, values in more.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    write_config(folder / "config.yaml", config)
    return folder / "config.yaml"


def start(folder, dropout=0.0, **form):
    """A base model and an adapter of peft's, on disk; the two as peft has them."""
    model = make_model("llama")
    model.save_pretrained(folder / "base")
    config = peft.LoraConfig(r=6, lora_alpha=9, lora_dropout=dropout, use_rslora=True, task_type="CAUSAL_LM", **form)
    wrapped = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.05)
    wrapped.save_pretrained(folder / "start")
    return wrapped.eval()


def logits(model, document):
    with torch.no_grad():
        return model(input_ids=torch.tensor(document, dtype=torch.long)[None]).logits


@pytest.mark.parametrize("form", FORMS)
def test_a_run_takes_the_settings_of_the_adapter_it_begins_from(program, tmp_path, monkeypatch, form):
    documents = make_documents(6, 5, 40)
    write_dataset(tmp_path / "train.h5", documents)
    theirs = start(tmp_path, **FORMS[form])
    sums = [loss_sum(theirs, document) for document in documents]
    run(program, "train", settings(tmp_path))
    line = metrics(tmp_path / "run")[-1]
    assert line["loss"] == pytest.approx(sum(s.item() for s, _ in sums) / sum(n for _, n in sums), rel=1e-5)
    monkeypatch.chdir("/")
    ours = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run/adapter").eval()
    shapes = {name: tuple(p.shape) for name, p in theirs.named_parameters() if "lora_" in name}
    assert {name: tuple(p.shape) for name, p in ours.named_parameters() if "lora_" in name} == shapes
    # At a rate that moves next to nothing it is the same adapter, at the same scale.
    assert (logits(ours, documents[0]) - logits(theirs, documents[0])).abs().max() < 0.05
    resolved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["adapter"]
    assert (resolved["rank"], resolved["alpha"], resolved["rslora"]) == (6, 9, True)


def test_what_the_configuration_sets_counts_and_a_resume_agrees(program, tmp_path):
    write_dataset(tmp_path / "train.h5", make_documents(6, 5, 40))
    start(tmp_path, dropout=0.25, target_modules=["q_proj", "v_proj"])
    first = run(program, "train", settings(tmp_path, adapter={"rank": 6, "lr_ratio": 2}))
    assert "taken from it: alpha 9, dropout 0.25, rslora true, targets [q_proj, v_proj]" in first.stderr
    run(program, "train", settings(tmp_path, budget="2 steps"), "--set", "adapter.lr_ratio=2", "--set", "adapter.rank=6")  # goes on
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["adapter"]
    assert (saved["dropout"], saved["targets"]) == (0.25, ["q_proj", "v_proj"])
    set_here = settings(tmp_path, adapter={"dropout": 0}, run={"output_dir": str(tmp_path / "other")})
    run(program, "train", set_here)
    assert yaml.safe_load((tmp_path / "other/config.yaml").read_text())["adapter"]["dropout"] == 0
    assert json.loads((tmp_path / "other/adapter/adapter_config.json").read_text())["lora_dropout"] == 0


@pytest.mark.parametrize("kind", ["relative folder", "file", "hub cache"])
def test_peft_finds_the_base_model_from_any_folder(program, tmp_path, monkeypatch, kind):
    documents = make_documents(6, 5, 40)
    write_dataset(tmp_path / "train.h5", documents)
    model = make_model("llama")
    revision = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    base = cache / "models--owner--Tiny-Llama" / "snapshots" / revision if kind == "hub cache" else tmp_path / "base"
    model.save_pretrained(base)
    monkeypatch.chdir(tmp_path)
    path = {"relative folder": "base", "file": "base/model.safetensors", "hub cache": str(base)}[kind]
    run(program, "train", settings(tmp_path, model={"path": path}, adapter={"init_from": None}))
    monkeypatch.chdir("/")
    said = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    if kind == "hub cache":
        assert (said["base_model_name_or_path"], said["revision"]) == ("owner/Tiny-Llama", revision)
    else:
        assert (said["base_model_name_or_path"], said["revision"]) == (str(tmp_path / "base"), None)
    more = {"cache_dir": str(cache), "local_files_only": True} if kind == "hub cache" else {}
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run/adapter", **more)
    expected = peft.PeftModel.from_pretrained(make_model("llama"), tmp_path / "run/adapter")
    assert torch.equal(logits(loaded.eval(), documents[0]), logits(expected.eval(), documents[0]))
