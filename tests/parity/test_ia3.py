"""IA3 beside peft's on language models, and beside plain PyTorch on those that make pictures, whose files have LyCORIS'
form: a change l - 1 of weights alone, read here as LyCORIS and AUTOMATIC1111's interface read it."""
import peft
import pytest
import safetensors.torch
import torch

import diffusion_reference
import test_diffusion as pictures_test
from reference import loss_sum, make_documents, make_model, metrics, run, write_config, write_dataset

STEPS, LR = 25, 2e-2
DOCUMENTS, ROWS = 12, 4


def language_settings(folder, output, **adapter):
    write_config(folder / f"{output}.yaml", {
        "run": {"output_dir": str(folder / output), "threads": 1, "device": "cpu"},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": {"type": "ia3", **adapter},
        "data": {"train": str(folder / "train.h5"), "packing": False, "shuffle": False, "sequence_length": 64},
        "batch": {"global": ROWS, "micro": 2},
        # Decay is not for numbers that begin at 1, so that ours has none whatever the setting says.
        "optimizer": {"name": "adamw", "lr": LR, "weight_decay": 0.1, "clip_norm": 0},
        "schedule": {"name": "constant", "warmup": 0},
        "budget": f"{STEPS} steps",
    })
    return folder / f"{output}.yaml"


def logits(model, document):
    with torch.no_grad():
        return model(input_ids=torch.tensor(document, dtype=torch.long)[None]).logits


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # the second one's keys and values have biases, which peft scales, too
def test_it_learns_as_in_peft(program, tmp_path, kind, ranks):
    documents = make_documents(DOCUMENTS, 5, 40)
    write_dataset(tmp_path / "train.h5", documents)
    model = make_model(kind)
    model.save_pretrained(tmp_path / "base")
    theirs = peft.get_peft_model(model, peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"],
                                                       feedforward_modules=["down_proj"], task_type="CAUSAL_LM"))
    parameters = [p for p in theirs.parameters() if p.requires_grad]
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "start")
    run(program, "train", language_settings(tmp_path, "run", init_from=str(tmp_path / "start")), ranks=ranks)
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0)
    losses = []
    for step in range(STEPS):
        batch = [documents[(step * ROWS + i) % DOCUMENTS] for i in range(ROWS)]
        parts = [loss_sum(theirs, document) for document in batch]
        loss = sum(part for part, _ in parts) / sum(count for _, count in parts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [line["loss"] for line in metrics(tmp_path / "run") if line["step"] > 0] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0]
    # What it wrote is the same adapter, in peft by itself and in the weights of `merge`.
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run/adapter").eval()
    expected = {name: p for name, p in theirs.named_parameters() if "ia3_l" in name}
    found = {name: p for name, p in loaded.named_parameters() if "ia3_l" in name}
    assert found.keys() == expected.keys()
    for name, parameter in expected.items():
        torch.testing.assert_close(found[name], parameter, rtol=1e-3, atol=1e-4)
    run(program, "merge", "--model", tmp_path / "base", "--adapter", tmp_path / "run/adapter", "--output", tmp_path / "merged")
    merged = type(model).from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(merged, documents[0]), logits(loaded, documents[0]), rtol=1e-4, atol=1e-4)
    assert "IA3 on 6 layers" in run(program, "inspect", tmp_path / "run/adapter").stdout


def test_defaults_are_those_of_peft(program, tmp_path):
    write_dataset(tmp_path / "train.h5", make_documents(DOCUMENTS, 5, 40))
    make_model("llama").save_pretrained(tmp_path / "base")
    run(program, "train", language_settings(tmp_path, "run"))
    config = peft.PeftConfig.from_pretrained(tmp_path / "run/adapter")
    assert config.peft_type == peft.PeftType.IA3
    assert set(config.target_modules) == {"k_proj", "v_proj", "down_proj"}
    assert set(config.feedforward_modules) == {"down_proj"}
    losses = [line["loss"] for line in metrics(tmp_path / "run") if line["step"] > 0]
    assert losses[-1] < losses[0]


class Scaled(torch.nn.Module):
    """A weight whose rows, or columns, are scaled by 1 + change."""

    def __init__(self, width, of_inputs):
        super().__init__()
        self.change, self.of_inputs = torch.nn.Parameter(torch.zeros(width)), of_inputs

    def forward(self, weight):
        return weight * (1 + (self.change if self.of_inputs else self.change[:, None]))


def test_pictures_learn_by_scaled_weights(program, tmp_path):
    model = diffusion_reference.make_pipeline(tmp_path / "model", "sd1")
    diffusion_reference.prepare(diffusion_reference.make_pictures(tmp_path / "pictures", pictures_test.SIZES),
                                tmp_path / "model", tmp_path / "train.h5")
    rows = diffusion_reference.Pictures(tmp_path / "train.h5")
    pictures_test.train(program, pictures_test.write(
        tmp_path, run={"output_dir": str(tmp_path / "run")}, budget=f"{STEPS} steps",
        adapter={"type": "ia3", "rank": 8, "alpha": 16}, optimizer={"name": "adamw", "lr": LR, "clip_norm": 0}))
    file = safetensors.torch.load_file(tmp_path / "run/adapter/lora.safetensors")
    scaled, weights = {}, {}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_")):
        model[part].requires_grad_(False)
        for name, module in list(model[part].named_modules()):
            inputs = name.endswith(("ff.net.2", "fc2"))
            if isinstance(module, torch.nn.Linear) and (inputs or name.endswith(("to_k", "to_v", "k_proj", "v_proj"))):
                if part == "text_encoder" and not name.startswith("text_model."):
                    name = "text_model." + name  # as transformers 4 has it, and files do
                key = prefix + name.replace(".", "_")
                weights[key] = module.weight.detach().clone()
                scaled[key] = Scaled(module.in_features if inputs else module.out_features, inputs)
                torch.nn.utils.parametrize.register_parametrization(module, "weight", scaled[key])
    optimizer = torch.optim.AdamW([module.change for module in scaled.values()], lr=LR, weight_decay=0)
    ours = [line["loss"] for line in metrics(tmp_path / "run") if line["step"] > 0]
    for step in range(STEPS):
        losses = [diffusion_reference.sample_loss(model, rows, row, epoch=step)[0] for row in range(len(rows))]
        loss = sum(losses) / len(losses)
        assert ours[step] == pytest.approx(loss.item(), rel=1e-4), step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert file.keys() == {f"{key}.{part}" for key in scaled for part in ("weight", "on_input")}
    for key, module in scaled.items():
        assert bool(file[key + ".on_input"].item()) == module.of_inputs
        torch.testing.assert_close(file[key + ".weight"].flatten(), module.change, rtol=2e-3, atol=2e-4)
    # The model with it in its weights, as readers of the file have it.
    run(program, "merge", "--model", tmp_path / "model", "--adapter", tmp_path / "run", "--output", tmp_path / "merged")
    merged = safetensors.torch.load_file(tmp_path / "merged/unet/diffusion_pytorch_model.safetensors")
    by_key = {"lora_unet_" + name.removesuffix(".weight").replace(".", "_"): tensor for name, tensor in merged.items()}
    of_unet = [key for key in scaled if key.startswith("lora_unet_")]
    assert len(of_unet) > 5
    for key in of_unet:
        w = file[key + ".weight"]
        expected = weights[key] * (1 + (w if file[key + ".on_input"].item() else w.reshape(-1, 1)))
        torch.testing.assert_close(by_key[key], expected, rtol=1e-6, atol=1e-7)
    assert f"IA3 on {len(scaled)} layers" in run(program, "inspect", tmp_path / "run/adapter").stdout
    # A run goes on from the file, whose layers it takes.
    pictures_test.train(program, pictures_test.write(
        tmp_path, run={"output_dir": str(tmp_path / "more")}, adapter={"type": "ia3", "init_from": str(tmp_path / "run/adapter")}))
    again = safetensors.torch.load_file(tmp_path / "more/adapter/lora.safetensors")
    for key, tensor in file.items():
        torch.testing.assert_close(again[key], tensor, rtol=1e-5, atol=1e-7)


def test_what_ia3_is_not_is_refused(program, tmp_path):
    write_dataset(tmp_path / "train.h5", make_documents(DOCUMENTS, 5, 40))
    make_model("llama").save_pretrained(tmp_path / "base")
    run(program, "train", language_settings(tmp_path, "run"))
    adapter = tmp_path / "run/adapter"
    for arguments, words in (
        (["resize", adapter, "--output", tmp_path / "new", "--rank", "2"], "no rank to lower"),
        (["train", language_settings(tmp_path, "lora", type="lora", init_from=str(adapter))], "set adapter.type: ia3"),
        (["train", language_settings(tmp_path, "named", init_from=str(adapter), targets=["k_proj"])], "leave it out"),
    ):
        result = run(program, *arguments, check=False)
        assert result.returncode in (65, 78) and words in result.stderr and len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.mark.parametrize("tensors, words", [
    ({"lora_unet_x.weight": torch.zeros(4), "lora_unet_x.on_input": torch.tensor(2)}, "neither 0 nor 1"),
    ({"lora_unet_x.weight": torch.zeros(4), "lora_unet_x.on_input": torch.zeros(2)}, "no single number"),
    ({"lora_unet_x.weight": torch.full((4,), float("nan")), "lora_unet_x.on_input": torch.tensor(0)}, "NaN"),
    ({"lora_unet_x.weight": torch.zeros(4, 4), "lora_unet_x.on_input": torch.tensor(0)}, "numbers in a line"),
    ({"lora_unet_x.on_input": torch.tensor(0)}, "no part of a whole layer"),
    ({"lora_unet_x.weight": torch.zeros(4), "lora_unet_y.weight": torch.zeros(4), "lora_unet_y.on_input": torch.tensor(1)},
     "no part of a whole layer"),
    ({"lora_unet_x.lora_down.weight": torch.zeros(2, 4), "lora_unet_y.weight": torch.zeros(4),
      "lora_unet_y.on_input": torch.tensor(1)}, "no part of a whole layer"),
])
def test_damaged_files_are_refused(program, tmp_path, tensors, words):
    file = tmp_path / "ia3.safetensors"
    safetensors.torch.save_file(tensors, file)
    result = run(program, "inspect", file, check=False)
    assert result.returncode == 65 and words in result.stderr, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
