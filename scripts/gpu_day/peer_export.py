"""Greedy text of an exported adapter in peft, and of the merged model in transformers.

    python -m gpu_day.peer_export BASE ADAPTER MERGED DEVICE
"""
import json
import sys

import peft
import torch
import transformers

from . import cases


def greedy(model, device):
    model = model.to(device).eval()
    ids = torch.tensor([cases.PROMPT], device=device)
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
                         eos_token_id=None, pad_token_id=0)
    return out[0, len(cases.PROMPT):].tolist()


def main():
    base, adapter, merged, device = sys.argv[1:5]
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = peft.PeftModel.from_pretrained(load(base, dtype=torch.float32), adapter)
    print(json.dumps({"adapter": greedy(model, device), "merged": greedy(load(merged, dtype=torch.float32), device)}))


if __name__ == "__main__":
    main()
