#!/usr/bin/env python3
"""Greedy answers of a chat model three times: by lorascale with the adapter, by peft with the adapter, by
transformers with the merged model, which has to know by itself where an answer ends. Exit code 1 where they
differ.

All compute in fp32, where the order of sums does not change which token is the most likely."""

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import h5py
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

MAX_TOKENS = 64


def by_lorascale(options, ids):
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "run": {"output_dir": f"{folder}/run", "device": "cpu"},
            "model": {"path": str(options.model), "dtype": "fp32"},
            "data": {"train": str(options.data)},
            "batch": {"global": 1},
            "sample": {"temperature": 0, "max_tokens": MAX_TOKENS},
        }
        path = Path(folder, "config.yaml")
        path.write_text(yaml.safe_dump(config))
        command = [options.program, "generate", path, "--adapter", options.adapter]
        done = subprocess.run([*command, "--ids", " ".join(map(str, ids))], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"same_answers: {done.stderr.strip()}")
    return [int(index) for index in done.stdout.split()]


def generated(model, ids, **how):
    """The new tokens, the one that ended them included."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=MAX_TOKENS, do_sample=False, **how,
        )  # fmt: skip
    return out[0, len(ids) :].tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "model", "adapter", "merged", "data"):
        parser.add_argument(f"--{name}", required=True, type=lambda text: Path(text).resolve())
    parser.add_argument("questions", nargs="+")
    options = parser.parse_args()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    with h5py.File(options.data) as file:
        end = int(file.attrs["answer_end_id"])
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    merged = AutoModelForCausalLM.from_pretrained(options.merged, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, options.adapter)
    wrong = ended = 0
    for question in options.questions:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        ours = by_lorascale(options, ids)
        # peft is told the end; the merged model has to know it by itself.
        answers = {
            "peft": generated(adapted, ids, eos_token_id=end),
            "transformers": generated(merged, ids),
        }
        print(f"  {question}\n    {tokenizer.decode(ours)!r}")
        stopped = len(ours) < MAX_TOKENS
        ended += stopped
        for name, tokens in answers.items():
            if tokens != ([*ours, end] if stopped else ours):
                wrong += 1
                print(f"    {name} answers {tokenizer.decode(tokens)!r}")
    asked = len(options.questions)
    print(
        f"  {wrong} differ" if wrong else f"  all the same; {ended} of {asked} ended by their end token"
        + (f", the others cut at {MAX_TOKENS}" if ended < asked else "")
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
