"""Writes the demonstration's byte-level Llama with random weights: the start of its pre-training (scripts/demo/pretrain.sh).

    make_random_model.py FOLDER
"""
import sys

import torch
import transformers

# 1.99 million parameters: just under 4 MB in bf16.
CONFIG = transformers.LlamaConfig(
    vocab_size=258, hidden_size=192, intermediate_size=480, num_hidden_layers=5, num_attention_heads=6,
    num_key_value_heads=3, max_position_embeddings=1024, rms_norm_eps=1e-5, tie_word_embeddings=True,
    bos_token_id=None, eos_token_id=256, pad_token_id=257, initializer_range=0.04)

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(CONFIG)
    model.save_pretrained(sys.argv[1])
    print(sum(p.numel() for p in model.parameters()), "parameters")
