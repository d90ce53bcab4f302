"""What the parity tests share: tiny models of each family, data sets, and a training loop in transformers + peft."""
import json
import os
import pathlib
import subprocess

import h5py
import numpy as np
import peft
import torch
import transformers
import yaml

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

VOCABULARY = 256
COMMON = dict(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256)
ROPE = {
    "linear": dict(rope_type="linear", factor=4.0, rope_theta=1e4),
    "llama3": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64, rope_theta=5e5),
    "dynamic": dict(rope_type="dynamic", factor=2.0, rope_theta=1e4),  # as the default, up to 256 positions
    "yarn": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, rope_theta=1e6),
}


def make_model(case: str):
    """A model with random weights large enough for every part of it to matter."""
    t = transformers
    make = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, rms_norm_eps=1e-5)),
        "llama-mha": lambda: t.LlamaForCausalLM(
            t.LlamaConfig(**{**COMMON, "num_key_value_heads": 4}, rms_norm_eps=1e-5)),
        "llama-tied": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, tie_word_embeddings=True)),
        "llama-bias": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, attention_bias=True, mlp_bias=True)),
        "llama-linear": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, rope_parameters=ROPE["linear"])),
        "llama-llama3": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, rope_parameters=ROPE["llama3"])),
        "llama-dynamic": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, rope_parameters=ROPE["dynamic"])),
        "llama-yarn": lambda: t.LlamaForCausalLM(t.LlamaConfig(**COMMON, rope_parameters=ROPE["yarn"])),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**COMMON, sliding_window=None)),
        "mistral-window": lambda: t.MistralForCausalLM(t.MistralConfig(**COMMON, sliding_window=8)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**COMMON)),
        "qwen2-window": lambda: t.Qwen2ForCausalLM(
            t.Qwen2Config(**COMMON, use_sliding_window=True, sliding_window=8, max_window_layers=1)),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**COMMON, head_dim=32, tie_word_embeddings=True)),
    }[case]
    torch.manual_seed(0)
    model = make().float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                noise = 0.2 * torch.rand_like(parameter) - 0.1
                parameter.copy_((0 if name.endswith("bias") else 1) + noise)
            else:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    return model


CASES = ["llama", "llama-mha", "llama-tied", "llama-bias", "llama-linear", "llama-llama3", "llama-dynamic", "llama-yarn", "mistral",
         "mistral-window", "qwen2", "qwen2-window", "qwen3"]


def make_documents(count: int, shortest: int, longest: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY, generator.integers(shortest, longest + 1)) for _ in range(count)]


def write_dataset(path: pathlib.Path, documents, masks=None):
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "lorascale-tokens", "version": 1, "vocab_size": VOCABULARY, "eos_id": -1})
        file["tokens"] = np.concatenate(documents).astype(np.uint16)
        file["offsets"] = np.cumsum([0] + [len(d) for d in documents]).astype(np.int64)
        if masks is not None:
            file["loss_mask"] = np.concatenate(masks).astype(np.uint8)


def add_adapter(model, targets, rank=4, alpha=8, dropout=0.0, seed=1, rslora=False, dora=False):
    """A PEFT adapter whose B is not zero, so that every gradient is."""
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=dropout,
                             use_rslora=rslora, use_dora=dora, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
            elif "lora_" in name:
                parameter.normal_(0, 0.05)
    return wrapped


def adapter_tensors(folder: pathlib.Path):
    from safetensors.torch import load_file
    return load_file(folder / "adapter_model.safetensors")


def loss_sum(model, document, mask=None):
    """Sum of next-token losses and number of targets of one document."""
    ids = torch.tensor(document, dtype=torch.long)[None]
    logits = model(input_ids=ids).logits[0, :-1].float()
    target = ids[0, 1:].clone()
    if mask is not None:
        target[torch.tensor(mask[1:]) == 0] = -100
    total = torch.nn.functional.cross_entropy(logits, target, reduction="sum", ignore_index=-100)
    return total, int((target != -100).sum())


def write_config(path: pathlib.Path, settings: dict):
    path.write_text(yaml.safe_dump(settings))


def run(program: str, *arguments: str, ranks: int = 1, check: bool = True, threads: int = 1, timeout: int = 120):
    command = [program, *map(str, arguments)]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)
    if check and result.returncode != 0:
        raise AssertionError(f"{command} ended with {result.returncode}:\n{result.stderr[-3000:]}")
    return result


def metrics(folder: pathlib.Path):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
