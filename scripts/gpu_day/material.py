"""Made beforehand, where there are h5py, transformers and peft: small models, token files, and what the CPU got.

    python -m gpu_day.material PROGRAM FOLDER
"""
import json
import pathlib
import shutil
import sys
import tempfile

from . import cases
from .day import Day


def make_models(folder: pathlib.Path):
    import peft
    import torch
    import transformers as t
    t.utils.logging.disable_progress_bar()
    shape = dict(vocab_size=cases.VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=256)
    models = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**shape)),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**shape, tie_word_embeddings=True)),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**shape, sliding_window=16)),
    }
    for name, make in models.items():
        torch.manual_seed(0)
        model = make().float()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:  # large enough for every part of the model to matter
                    parameter.normal_(0, parameter.shape[1] ** -0.5)
                else:
                    parameter.uniform_(0.9, 1.1)
        model.save_pretrained(folder / name)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=cases.LINEARS,
                                                             task_type="CAUSAL_LM"))
        with torch.no_grad():
            for key, parameter in wrapped.named_parameters():
                if "lora_" in key:
                    parameter.normal_(0, 0.05)
        wrapped.save_pretrained(folder / f"{name}-adapter")


def make_tokens(folder: pathlib.Path):
    import h5py
    import numpy as np

    def write(name, documents, vocabulary=cases.VOCABULARY, masks=None):
        with h5py.File(folder / name, "w") as file:
            file.attrs.update({"format": "lorascale-tokens", "version": 1, "vocab_size": vocabulary, "eos_id": -1})
            file["tokens"] = np.concatenate(documents).astype(np.uint16 if vocabulary < 1 << 16 else np.uint32)
            file["offsets"] = np.cumsum([0] + [len(d) for d in documents]).astype(np.int64)
            if masks is not None:
                file["loss_mask"] = np.concatenate(masks).astype(np.uint8)
            if vocabulary == cases.VOCABULARY:  # a token is shown as its number, a letter stands for a prompt
                words = [f"{i} ".encode() for i in range(vocabulary)]
                for name, parts in (("vocabulary", words), ("prompts/texts", [cases.PROMPT_TEXT.encode()])):
                    file[f"{name}/bytes"] = np.frombuffer(b"".join(parts), np.uint8)
                    file[f"{name}/offsets"] = np.cumsum([0] + list(map(len, parts))).astype(np.int64)
                file["prompts/ids"] = np.array(cases.PROMPT, np.uint32)
                file["prompts/offsets"] = np.array([0, len(cases.PROMPT)], np.int64)

    draw = np.random.default_rng(0)
    documents = [draw.integers(0, cases.VOCABULARY, draw.integers(8, cases.ROW)) for _ in range(60)]
    write("train.h5", documents)
    write("validation.h5", documents[40:])
    # Every third document has no target: with a micro-batch of one, so has a leaf of each update.
    write("masked.h5", documents, masks=[np.full(len(d), int(i % 3 != 1)) for i, d in enumerate(documents)])
    # For parts 5 and 7: whole rows of either length; the peers read the same ids.
    for name, vocabulary, count, length in (("long", 128256, 12, 4096), ("short", cases.VOCABULARY, 160, 1024)):
        ids = draw.integers(0, vocabulary, (count, length))
        write(f"{name}.h5", list(ids), vocabulary)
        np.save(folder / f"{name}.npy", ids.astype(np.uint32))


def make_goldens(program: pathlib.Path, folder: pathlib.Path):
    """Losses and weights of every case, by this program on this CPU in fp32."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        day = Day(folder.parent, scratch, scratch, "cpu", True, program)

        def make(name, settings, weights):
            outcome = day.train(name, settings)
            if outcome.code:
                raise RuntimeError(f"{name}: {outcome.tail()}")
            golden = folder / "golden" / name
            golden.mkdir(parents=True)
            lines = [{key: line.get(key) for key in ("step", "loss", "grad_norm", "applied", "val_loss")}
                     for line in outcome.lines()]
            (golden / "lines.json").write_text(json.dumps(lines))
            for path in cases.result_of(outcome.folder, settings).glob("*.safetensors") if weights else []:
                shutil.copy(path, golden)

        jobs = {}
        for name, change in cases.PARITY.items():
            jobs[cases.key_of(name, "gradient")] = (cases.base(folder, change, cases.GRADIENT), True)
            jobs[cases.key_of(name, "curve")] = (cases.base(folder, change), False)
        for name, change in cases.RULES.items():
            jobs[cases.key_of(name, "rule")] = (cases.base(folder, cases.VALIDATED, change), True)
        for problem in day.all({key: lambda key=key: make(key, *jobs[key]) for key in jobs}).values():
            if problem is not None:
                raise problem
        settings = day.write("rule-adamw", cases.base(folder, cases.VALIDATED, cases.RULES["adamw"]))
        said = day.command([program, "generate", settings, "--ids", " ".join(map(str, cases.PROMPT)), "--max-tokens",
                            "24"])
        if said.code:
            sys.exit(said.tail())
        (folder / "golden/generated.json").write_text(json.dumps([int(word) for word in said.out.split()]))


def main():
    program, folder = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
    folder.mkdir(parents=True)
    make_models(folder)
    make_tokens(folder)
    make_goldens(program, folder)
    for path in folder.rglob("README.md"):  # peft's empty model card
        path.unlink()


if __name__ == "__main__":
    main()
