"""lorascale resize: each layer's change truncated as numpy's singular values have it, in files that peft and the like read
at the right scale; what is said of it; what is refused."""
import hashlib
import json
import re
import struct

import numpy as np
import peft
import pytest
import safetensors
import safetensors.torch
import torch
from harness import execute, expect_refusal
from reference import make_model

USAGE, BAD_INPUT, CANNOT_WRITE = 64, 65, 73


def resize(program, *arguments):
    done = execute([program, "resize", *arguments])
    assert done.code == 0, done.stderr
    return done.stdout


def best(change, rank):
    """Of a matrix in fp64: the nearest one of this rank."""
    u, s, vh = np.linalg.svd(change, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def rank_for(change, share):
    squares = np.linalg.svd(change, compute_uv=False) ** 2
    return 1 + int((np.cumsum(squares) < share * squares.sum()).sum())


def said_errors(text):
    found = re.search(r"\|dW - dW'\| / \|dW\|: (\S+) in all, (\S+) in the worst layer, (\S+)", text)
    return float(found[1]), float(found[2]), found[3]


def check(text, before, after, rank_of, tolerance=1e-6):
    """All layers are truncated best, and what is said of it is so."""
    assert before.keys() == after.keys() and len(before) > 1
    lost, whole, parts = 0.0, 0.0, {}
    for name, change in before.items():
        expected = best(change, rank_of(name, change))
        assert np.linalg.norm(after[name] - expected) <= tolerance * np.linalg.norm(change), name
        lost += np.linalg.norm(change - after[name]) ** 2
        whole += np.linalg.norm(change) ** 2
        parts[name] = np.linalg.norm(change - after[name]) / np.linalg.norm(change)
    in_all, worst, where = said_errors(text)
    assert in_all == pytest.approx((lost / whole) ** 0.5, rel=2e-3, abs=1e-6)
    assert worst == pytest.approx(max(parts.values()), rel=2e-3, abs=1e-6)
    assert parts[where] == pytest.approx(worst, rel=2e-3, abs=1e-6)


# --- folders of peft's ------------------------------------------------------------------------------------------------

RANKS = {"layers.1.self_attn.q_proj": 3, "q_proj": 5}
FORM = dict(r=6, lora_alpha=9, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern=RANKS, alpha_pattern={"down_proj": 4})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Adapters of peft's whose changes have singular values that fall."""
    folder = tmp_path_factory.mktemp("peft")
    for name, more in (("plain", {}), ("rslora", {"use_rslora": True}), ("dora", {"use_dora": True})):
        wrapped = peft.get_peft_model(make_model("llama"), peft.LoraConfig(**FORM, **more, task_type="CAUSAL_LM"))
        torch.manual_seed(1)
        with torch.no_grad():
            for key, parameter in wrapped.named_parameters():
                if "lora_A" in key or "lora_B" in key:
                    parameter.normal_(0, 0.05)
                if "lora_A" in key:
                    parameter.mul_(0.6 ** torch.arange(len(parameter))[:, None])
        wrapped.save_pretrained(folder / name)
    return folder


def peft_changes(folder):
    model = peft.PeftModel.from_pretrained(make_model("llama"), folder)
    return {name.removeprefix("base_model.model."): module.get_delta_weight("default").detach().double().numpy()
            for name, module in model.named_modules() if hasattr(module, "lora_A")}


def rank_before(name):
    return 3 if name.endswith("layers.1.self_attn.q_proj") else 5 if name.endswith("q_proj") else 6


@pytest.mark.parametrize("form", ["plain", "rslora"])
def test_a_peft_folder_at_a_lower_rank(program, folders, tmp_path, form):
    text = resize(program, folders / form, "--rank", 4, "--output", tmp_path / "small")
    assert "resized 6 layers: rank 3, 5, 6 -> 3, 4\n" in text and f": {tmp_path / 'small'}" in text
    check(text, peft_changes(folders / form), peft_changes(tmp_path / "small"), lambda name, _: min(4, rank_before(name)))
    config = json.loads((tmp_path / "small/adapter_config.json").read_text())
    before = json.loads((folders / form / "adapter_config.json").read_text())
    changed = {"r", "lora_alpha", "rank_pattern", "alpha_pattern"}
    assert {key: value for key, value in config.items() if key not in changed} == \
           {key: value for key, value in before.items() if key not in changed}
    assert config["r"] == 4 and config["rank_pattern"] == {"model.layers.1.self_attn.q_proj": 3}
    # Scales stay, so that a training that goes on learns at the pace it had; of what has less, alphas do.
    model = peft.PeftModel.from_pretrained(make_model("llama"), tmp_path / "small")
    scales = {name: module.scaling["default"] for name, module in model.named_modules() if hasattr(module, "lora_A")}
    for name, scale in scales.items():
        power = 0.5 if form == "rslora" else 1
        before = (4 if "down_proj" in name else 9) / rank_before(name) ** power
        assert scale == pytest.approx(before * (4 / min(4, rank_before(name))) ** power, rel=1e-6), name


def test_a_peft_folder_by_energy(program, folders, tmp_path):
    before = peft_changes(folders / "plain")
    text = resize(program, folders / "plain", "--keep", 0.9, "--output", tmp_path / "small")
    check(text, before, peft_changes(tmp_path / "small"), lambda _, change: rank_for(change, 0.9))
    model = peft.PeftModel.from_pretrained(make_model("llama"), tmp_path / "small")
    ranks = {name.removeprefix("base_model.model."): module.r["default"] for name, module in model.named_modules()
             if hasattr(module, "lora_A")}
    assert ranks == {name: rank_for(change, 0.9) for name, change in before.items()} and len(set(ranks.values())) > 1
    sizes = [(folder / "adapter_model.safetensors").stat().st_size for folder in (folders / "plain", tmp_path / "small")]
    assert "{:.2f} MB -> {:.2f} MB".format(*(size / 1e6 for size in sizes)) in text and sizes[1] < sizes[0]


def test_all_that_is_there_is_the_same_adapter(program, folders, tmp_path):
    text = resize(program, folders / "plain", "--keep", 1, "--output", tmp_path / "same")
    check(text, peft_changes(folders / "plain"), peft_changes(tmp_path / "same"), lambda name, _: rank_before(name))
    assert said_errors(text)[1] < 1e-6


# --- files of sd-scripts' form ----------------------------------------------------------------------------------------

SHAPES = {  # out, in, kernel, rank, alpha; no alpha and one of 0 are the rank
    "lora_te_text_model_encoder_layers_0_mlp_fc1": (32, 16, None, 6, 3.0),
    "lora_unet_down_blocks_0_attentions_0_proj_in": (24, 24, 1, 6, None),
    "lora_unet_down_blocks_0_resnets_0_conv1": (20, 12, 3, 4, 1.0),
    "lora_unet_mid_block_attentions_0_proj_out": (5, 30, None, 6, 0.0),
}
METADATA = {"ss_network_dim": "6", "ss_network_alpha": "3.0", "ss_base_model_version": "sd_v1", "ss_training_comment": "ours",
            "sshs_model_hash": "old", "sshs_legacy_hash": "old", "modelspec.title": "x"}


def write_file(path, dtype=torch.float32, metadata=METADATA, **more):
    random = np.random.default_rng(3)
    tensors = {}
    for name, (out, inner, kernel, rank, alpha) in SHAPES.items():
        a = random.normal(0, 0.1, (rank, inner) + (kernel,) * 2 * bool(kernel)) * 0.7 ** np.arange(rank).reshape(
            (rank, 1) + (1, 1) * bool(kernel))
        b = random.normal(0, 0.1, (out, rank) + (1, 1) * bool(kernel))
        tensors[name + ".lora_down.weight"] = torch.tensor(a).to(dtype)
        tensors[name + ".lora_up.weight"] = torch.tensor(b).to(dtype)
        if alpha is not None:
            tensors[name + ".alpha"] = torch.tensor(alpha)
    tensors.update(more)
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def file_changes(path):
    tensors = {key: value.double().numpy() for key, value in safetensors.torch.load_file(path).items()}
    changes = {}
    for key, a in tensors.items():
        if key.endswith(".lora_down.weight"):
            name = key.removesuffix(".lora_down.weight")
            b = tensors[name + ".lora_up.weight"]
            alpha = float(tensors.get(name + ".alpha", 0.0)) or len(a)
            changes[name] = alpha / len(a) * b.reshape(len(b), -1) @ a.reshape(len(a), -1)
            assert b.shape[1] == len(a) and b.ndim == a.ndim
    return changes


def metadata_of(path):
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def hash_of_tensors(path):
    """Of all that stands behind the header."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return hashlib.sha256(data[8 + length:]).hexdigest()


@pytest.mark.parametrize("choice", ["rank", "keep"])
def test_a_file_for_webuis(program, tmp_path, choice):
    before = file_changes(write_file(tmp_path / "old.safetensors"))
    arguments = ["--rank", 2] if choice == "rank" else ["--keep", 0.85]
    text = resize(program, tmp_path / "old.safetensors", *arguments, "--output", tmp_path / "new/small.safetensors")
    rank_of = (lambda _, __: 2) if choice == "rank" else (lambda _, change: rank_for(change, 0.85))
    check(text, before, file_changes(tmp_path / "new/small.safetensors"), rank_of)
    tensors = safetensors.torch.load_file(tmp_path / "new/small.safetensors")
    for name, (out, inner, kernel, _, alpha) in SHAPES.items():
        rank = rank_of(name, before[name])
        assert tensors[name + ".lora_down.weight"].shape == (rank, inner) + (kernel,) * 2 * bool(kernel)
        assert tensors[name + ".lora_up.weight"].shape == (out, rank) + (1, 1) * bool(kernel)
        assert tensors[name + ".alpha"].shape == () and tensors[name + ".alpha"].dtype == torch.float32
    metadata = metadata_of(tmp_path / "new/small.safetensors")
    assert choice == "rank" or len({rank_of(name, change) for name, change in before.items()}) > 1
    dim = "2" if choice == "rank" else "Dynamic"
    assert metadata.pop("ss_network_dim") == dim
    alpha = metadata.pop("ss_network_alpha")
    assert alpha == "Dynamic" if choice == "keep" else float(alpha) > 0
    assert metadata.pop("ss_training_comment") == f"dimension is resized from 6 to {dim}; ours"
    assert metadata.pop("sshs_model_hash") == hash_of_tensors(tmp_path / "new/small.safetensors")
    assert re.fullmatch("[0-9a-f]{8}", metadata.pop("sshs_legacy_hash"))
    assert metadata == {"ss_base_model_version": "sd_v1", "modelspec.title": "x"}


def test_no_more_than_a_layer_has(program, tmp_path):
    before = file_changes(write_file(tmp_path / "old.safetensors"))
    text = resize(program, tmp_path / "old.safetensors", "--rank", 100, "--output", tmp_path / "new.safetensors")
    assert "rank 4, 6 -> 4, 5, 6\n" in text  # an output of 5 has no sixth direction
    check(text, before, file_changes(tmp_path / "new.safetensors"), lambda _, change: 100)


@pytest.mark.parametrize(("stored", "wanted", "written"), [
    ("bfloat16", "auto", torch.bfloat16), ("float32", "fp16", torch.float16),
    pytest.param("float16", "fp32", torch.float32, marks=pytest.mark.slow)])
def test_types(program, tmp_path, stored, wanted, written):
    before = file_changes(write_file(tmp_path / "old.safetensors", getattr(torch, stored)))
    text = resize(program, tmp_path / "old.safetensors", "--rank", 3, "--dtype", wanted, "--output", tmp_path / "new.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "new.safetensors")
    assert {tensor.dtype for key, tensor in tensors.items() if not key.endswith(".alpha")} == {written}
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-6}[written]
    check(text, before, file_changes(tmp_path / "new.safetensors"), lambda _, __: 3, tolerance)


def test_a_file_without_metadata_gets_none(program, tmp_path):
    """A reader takes a file with any for one of SD 1."""
    write_file(tmp_path / "old.safetensors", metadata=None)
    resize(program, tmp_path / "old.safetensors", "--rank", 2, "--output", tmp_path / "new.safetensors")
    assert not metadata_of(tmp_path / "new.safetensors")


def test_a_run_means_its_adapter(program, folders, tmp_path):
    (tmp_path / "pictures/adapter").mkdir(parents=True)
    write_file(tmp_path / "pictures/adapter/lora.safetensors")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/adapter").symlink_to(folders / "plain")
    resize(program, tmp_path / "pictures", "--rank", 1, "--output", tmp_path / "small.safetensors")
    resize(program, tmp_path / "texts", "--rank", 1, "--output", tmp_path / "small")
    assert "rank 1 " in execute([program, "inspect", tmp_path / "small"]).stdout
    assert "LoRA rank 1 on 4 layers" in execute([program, "inspect", tmp_path / "small.safetensors"]).stdout


NAME = "lora_unet_mid_block_attentions_0_proj_out"
BAD_FILES = {
    "dora": ({NAME + ".dora_scale": torch.ones(5, 1)}, BAD_INPUT, "is of DoRA"),
    "other kind": ({NAME + ".lora_mid.weight": torch.ones(2, 2)}, BAD_INPUT, "kind of adapter that cannot be read"),
    "incomplete": ({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, BAD_INPUT, "has no lora_down.weight"),
    "nan": ({NAME + ".lora_up.weight": torch.full((5, 6), float("nan"))}, BAD_INPUT, "NaN"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(program, tmp_path, case):
    tensors, code, words = BAD_FILES[case]
    write_file(tmp_path / "old.safetensors", **tensors)
    expect_refusal(execute([program, "resize", tmp_path / "old.safetensors", "--rank", 2, "--output", tmp_path / "new.safetensors"]),
                   code, words)
    assert not (tmp_path / "new.safetensors").exists()


def test_what_fp16_cannot_hold_is_refused(program, tmp_path):
    big = {NAME + ".lora_up.weight": torch.full((5, 6), 1e10)}
    write_file(tmp_path / "old.safetensors", **big, **{NAME + ".lora_down.weight": torch.full((6, 30), 1e10)})
    expect_refusal(execute([program, "resize", tmp_path / "old.safetensors", "--rank", 2, "--dtype", "fp16", "--output",
                            tmp_path / "new.safetensors"]), BAD_INPUT, "choose bf16 or fp32")


@pytest.mark.parametrize(("arguments", "code", "words"), [
    ([], USAGE, "the adapter, a PEFT folder or LoRA file, is missing"),
    (["FILE", "--rank", "2", "--keep", "0.5", "--output", "new.safetensors"], USAGE, "not both"),
    pytest.param(["FILE", "--rank", "0", "--output", "new.safetensors"], USAGE, "--rank takes a whole number from 1", marks=pytest.mark.slow),
    (["FILE", "--keep", "95", "--output", "new.safetensors"], USAGE, "at most 1"),
    pytest.param(["FILE", "--rank", "2"], USAGE, "--output is missing", marks=pytest.mark.slow),
    (["FILE", "--rank", "2", "--output", "FILE"], CANNOT_WRITE, "is there; choose another --output"),
    pytest.param(["FILE", "--rank", "2", "--output", "new"], USAGE, "ends with .safetensors", marks=pytest.mark.slow),
    pytest.param(["FOLDER", "--rank", "2", "--output", "new.safetensors"], USAGE, "without .safetensors", marks=pytest.mark.slow),
    (["DORA", "--rank", "2", "--output", "new"], BAD_INPUT, "is of DoRA"),
    pytest.param(["EMPTY", "--rank", "2", "--output", "new"], BAD_INPUT, "is no LoRA that can be resized", marks=pytest.mark.slow),
    (["MODEL", "--rank", "2", "--output", "new.safetensors"], BAD_INPUT, "is no LoRA that can be resized"),
])
def test_refused(program, folders, tmp_path, arguments, code, words):
    write_file(tmp_path / "old.safetensors")
    safetensors.torch.save_file({"model.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "empty").mkdir()
    paths = {"FILE": tmp_path / "old.safetensors", "FOLDER": folders / "plain", "DORA": folders / "dora", "EMPTY": tmp_path / "empty",
             "MODEL": tmp_path / "model.safetensors"}
    expect_refusal(execute([program, "resize", *(paths.get(word, word) for word in arguments)], cwd=tmp_path), code, words)
    assert {path.name for path in tmp_path.iterdir()} == {"old.safetensors", "model.safetensors", "empty"}
