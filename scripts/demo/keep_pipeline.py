"""Copies a pipeline of diffusers' form with its weights in bf16, as the repository keeps the demonstration's.

    keep_pipeline.py FOLDER KEPT [PART ...]

PARTS: only these, such as vae; KEPT's other ones stay.
"""
import shutil
import sys
from pathlib import Path

import safetensors.torch
import torch


def keep(folder: Path, kept: Path, parts):
    if not parts:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
    for part in parts:
        shutil.rmtree(kept / part, ignore_errors=True)
        shutil.copytree(folder / part, kept / part)
    for file in kept.glob("*/*.safetensors"):
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in safetensors.torch.load_file(file).items()}
        safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    keep(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
