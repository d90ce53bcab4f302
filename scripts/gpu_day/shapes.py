"""Models of real shapes with random weights, as Hugging Face folders; and what arithmetic a token costs in them.

    python -m gpu_day.shapes NAME FOLDER
"""
import json
import pathlib
import sys

SHAPES = {  # Llama 3.2 1B and Llama 3.1 8B; `middle` for memory; `tiny` stands in for all on a CPU
    "1B": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
               num_key_value_heads=8, head_dim=64, vocab_size=128256, tie_word_embeddings=True),
    "8B": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
               num_key_value_heads=8, head_dim=128, vocab_size=128256, tie_word_embeddings=False),
    "middle": dict(hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=16,
                   num_key_value_heads=8, head_dim=64, vocab_size=512, tie_word_embeddings=False),
    "tiny": dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=16, vocab_size=512, tie_word_embeddings=False),
}
COMMON = dict(model_type="llama", architectures=["LlamaForCausalLM"], max_position_embeddings=8192, rms_norm_eps=1e-5,
              rope_theta=500000.0, hidden_act="silu", attention_bias=False, mlp_bias=False, torch_dtype="bfloat16",
              bos_token_id=None, eos_token_id=None)
LORA_RANK = 16


def linears(shape):
    """{name: (outputs, inputs)} of one layer."""
    hidden, wide = shape["hidden_size"], shape["intermediate_size"]
    q, kv = (shape[key] * shape["head_dim"] for key in ("num_attention_heads", "num_key_value_heads"))
    return {"self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q), "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden),
            "mlp.down_proj": (hidden, wide)}


def matrix_parameters(shape):
    """Those that a token is multiplied with: without the input embedding, with the head."""
    layer = sum(rows * columns for rows, columns in linears(shape).values())
    return layer * shape["num_hidden_layers"] + shape["vocab_size"] * shape["hidden_size"]


def lora_parameters(shape):
    return shape["num_hidden_layers"] * LORA_RANK * sum(rows + columns for rows, columns in linears(shape).values())


def flops_per_token(shape, row):
    """Of a LoRA update with a frozen base: forward and the gradients of inputs (4 N), causal attention forward and
    twice that backward, the adapter's products (6 of its size). Nothing recomputed."""
    attention = 6 * row * shape["num_attention_heads"] * shape["head_dim"] * shape["num_hidden_layers"]
    return 4 * matrix_parameters(shape) + attention + 6 * lora_parameters(shape)


def weight_bytes(shape):
    embeddings = 1 if shape["tie_word_embeddings"] else 2
    layer = sum(rows * columns for rows, columns in linears(shape).values())
    return 2 * (layer * shape["num_hidden_layers"] + embeddings * shape["vocab_size"] * shape["hidden_size"])


def write(name: str, folder: pathlib.Path):
    """On the CPU: every weight is a stretch of one block of normal numbers, each tensor begins elsewhere in it; drawing
    billions of numbers would take minutes."""
    import torch
    from safetensors.torch import save_file
    shape = SHAPES[name]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**COMMON, **shape}))
    generator = torch.Generator().manual_seed(0)
    hidden, vocabulary = shape["hidden_size"], shape["vocab_size"]
    largest = max(vocabulary * hidden, *(rows * columns for rows, columns in linears(shape).values()))
    block = torch.randn(min(largest, 1 << 24), generator=generator, dtype=torch.float32)
    block = block.to(torch.bfloat16).repeat(-(-2 * largest // block.numel()))
    count = 0

    def draw(rows, columns):
        nonlocal count
        count += 1
        begin = (count * 1000003) % largest
        return block[begin:begin + rows * columns].view(rows, columns) * columns ** -0.5

    def norm():
        return torch.ones(hidden, dtype=torch.bfloat16)

    index, number = {}, 0

    def save(tensors):
        nonlocal number
        number += 1
        file = f"model-{number:05}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index.update({key: file for key in tensors})

    ends = {"model.embed_tokens.weight": draw(vocabulary, hidden), "model.norm.weight": norm()}
    if not shape["tie_word_embeddings"]:
        ends["lm_head.weight"] = draw(vocabulary, hidden)
    save(ends)
    for layer in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        save({prefix + "input_layernorm.weight": norm(), prefix + "post_attention_layernorm.weight": norm(),
              **{f"{prefix}{key}.weight": draw(*size) for key, size in linears(shape).items()}})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": weight_bytes(shape)}, "weight_map": index}))


if __name__ == "__main__":
    partial = pathlib.Path(sys.argv[2] + ".partial")
    write(sys.argv[1], partial)
    partial.rename(sys.argv[2])
