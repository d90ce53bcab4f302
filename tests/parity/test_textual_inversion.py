"""A word that text encoders learn (textual inversion), alone and beside LoRA: what it learns beside diffusers, transformers
and peft fed the same latents, captions, noise and times; its file, and what is made of it."""
import copy
import subprocess

import diffusers
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import yaml
from PIL import Image

import diffusion_reference as reference
from harness import execute, mpirun
from reference import metrics, run

USAGE, BAD_INPUT, BAD_CONFIG = 64, 65, 78
WORD, VECTORS = "<cat>", 2
SIZES = [(32, 32), (32, 40), (32, 32)]
LONG = "a red " * 36 + WORD + " sky"  # of 76 tokens and more once the word is two
CAPTIONS = [f"{WORD}, red ({WORD}), {WORD}.", "a dog", LONG]
PROMPT = f"red, {WORD}, sky"
STEPS = {"sd1": 20, "sdxl": 5}


def write(folder, name, adapter, **more):
    config = {
        "run": {"output_dir": str(folder / name), "threads": 1, "device": "cpu"},
        "model": {"path": str(folder / "model"), "dtype": "fp32"},
        "adapter": {"token": {"word": WORD, "vectors": VECTORS, "init": "dog"}, **adapter},
        "data": {"train": str(folder / "train.h5"), "shuffle": False},
        "batch": {"global": len(SIZES), "micro": 1},
        "optimizer": {"name": "adamw", "lr": 2e-3, "clip_norm": 0, "weight_decay": 0.0},
        "schedule": {"name": "constant", "warmup": 0},
        "budget": "1 steps",
        "sample": {"steps": 4, "width": 32, "height": 32},
    }
    for section, values in more.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder / f"{name}.yaml"


def words():
    """As diffusers calls the vectors of a word."""
    return [WORD] + [f"{WORD}_{i}" for i in range(1, VECTORS)]


class Captions(reference.Pictures):
    """Whose ids are those of transformers' tokenizer, to which the word's vectors were added."""

    def __init__(self, path, model):
        super().__init__(path)
        self.tokenizer = copy.deepcopy(model["tokenizer"])
        assert self.tokenizer.add_tokens(words()) == VECTORS

    def ids(self, i, pad, rows=1):
        text = CAPTIONS[i].replace(WORD, " ".join(words()))
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"][:75]
        begin, end = int(self.attributes["begin_token"]), int(self.attributes["end_token"])
        return torch.tensor([[begin, *ids, end] + [pad] * (75 - len(ids))])


class WithRows(torch.nn.Module):
    """A table of embeddings with rows of its own behind it."""

    def __init__(self, table, rows):
        super().__init__()
        self.table, self.rows = table, torch.nn.Parameter(rows)

    def forward(self, ids):
        return torch.cat([self.table.weight, self.rows])[ids]


def encoders(model):
    return [model[name] for name in ("text_encoder", "text_encoder_2") if name in model]


def embeddings_of(encoder):
    return getattr(encoder, "text_model", encoder).embeddings


def add_rows(model):
    """The parameters: of each text encoder the word's rows, which begin as "dog" is."""
    (dog,) = model["tokenizer"]("dog", add_special_tokens=False)["input_ids"]
    added = []
    for encoder in encoders(model):
        part = embeddings_of(encoder)
        part.token_embedding = WithRows(part.token_embedding, part.token_embedding.weight.detach()[[dog] * VECTORS].clone())
        added.append(part.token_embedding.rows)
    return added


def remove_rows(model):
    for encoder in encoders(model):
        embeddings_of(encoder).token_embedding = embeddings_of(encoder).token_embedding.table


def rows_in(path):
    tensors = safetensors.torch.load_file(path)
    return [tensors[key] for key in (["emb_params"] if len(tensors) == 1 else ["clip_l", "clip_g"])]


def pipeline_of(model):
    more = {} if model["kind"] == "sdxl" else dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    names = ["vae", "text_encoder", "tokenizer", "unet"]
    names += ["text_encoder_2", "tokenizer_2"] if model["kind"] == "sdxl" else []
    kind = diffusers.StableDiffusionXLPipeline if model["kind"] == "sdxl" else diffusers.StableDiffusionPipeline
    made = kind(scheduler=model["scheduler"], **{name: model[name] for name in names}, **more)
    made.set_progress_bar_config(disable=True)
    return made


def world_of(program, folder, kind):
    """With a word that was learnt alone, in alone/. Weights decay, but not its own."""
    model = reference.make_pipeline(folder / "model", kind)
    for part in (model["unet"], model["vae"], *encoders(model)):
        part.requires_grad_(False)
    reference.prepare(reference.make_pictures(folder / "pictures", SIZES, captions=CAPTIONS), folder / "model",
                      folder / "train.h5", "--no-deduplicate")
    steps = f"{STEPS[kind]} steps"
    run(program, "train", write(folder, "alone", {"type": "token"}, budget=steps, optimizer={"lr": 2e-2, "weight_decay": 0.1},
                                sample={"every": steps, "prompts": [PROMPT], "steps": 4, "width": 32, "height": 32}))
    return folder, model, Captions(folder / "train.h5", model)


@pytest.fixture(scope="module")
def sd1(program, tmp_path_factory):
    return world_of(program, tmp_path_factory.mktemp("sd1"), "sd1")


@pytest.fixture(scope="module")
def sdxl(program, tmp_path_factory):
    return world_of(program, tmp_path_factory.mktemp("sdxl"), "sdxl")


def follow(model, pictures, groups, losses):
    """A plain loop beside ours."""
    optimizer = torch.optim.AdamW([{"params": parameters, "lr": lr} for parameters, lr in groups], weight_decay=0.0)
    for step, ours in enumerate(losses):
        loss = sum(reference.sample_loss(model, pictures, row, epoch=step)[0] for row in range(len(pictures))) / len(pictures)
        assert ours == pytest.approx(loss.item(), rel=1e-4), step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def losses_of(folder):
    return [line["loss"] for line in metrics(folder) if line["step"] > 0]


@pytest.mark.parametrize("kind", STEPS)
def test_a_word_learns_as_in_diffusers_and_its_file_is_read_there(request, kind):
    """Of each text encoder its own rows."""
    folder, model, pictures = request.getfixturevalue(kind)
    rows = add_rows(model)
    begin = [row.detach().clone() for row in rows]
    follow(model, pictures, [(rows, 2e-2)], losses_of(folder / "alone"))
    file = folder / "alone/adapter/cat.safetensors"
    assert [path.name for path in file.parent.iterdir()] == ["cat.safetensors"]
    for ours, theirs, before in zip(rows_in(file), rows, begin, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-4)
        assert (ours - before).abs().max() > 0.05
        theirs.data.copy_(ours)
    with torch.no_grad():
        expected = [reference.context_of(model, pictures, row)[0] for row in range(len(pictures))]
    remove_rows(model)
    with safetensors.safe_open(file, "pt") as opened:
        assert opened.metadata()["modelspec.trigger_phrase"] == WORD
        assert opened.metadata()["modelspec.architecture"].endswith("/textual-inversion")
    pipeline = pipeline_of({**model, **{name: copy.deepcopy(model[name]) for name in model if name.startswith("t")}})
    if model["kind"] == "sdxl":
        for tensor, number in zip(rows_in(file), ("", "_2"), strict=True):
            pipeline.load_textual_inversion(tensor, token=WORD, text_encoder=getattr(pipeline, "text_encoder" + number),
                                            tokenizer=getattr(pipeline, "tokenizer" + number))
    else:
        pipeline.load_textual_inversion(str(file), token=WORD)
    for caption, context in zip(CAPTIONS, expected, strict=True):
        with torch.no_grad():
            made = pipeline.encode_prompt(caption, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
        torch.testing.assert_close(made, context, rtol=0, atol=1e-5)


def test_a_word_learns_beside_lora(program, sd1):
    folder, model, pictures = sd1
    model = {**model, "unet": copy.deepcopy(model["unet"]), "text_encoder": copy.deepcopy(model["text_encoder"])}
    # diffusers knows files by their layers' names: "to_out" must be there.
    adapter = {"rank": 3, "alpha": 2, "targets": ["to_q", "to_out.0", "q_proj", "out_proj"]}
    adapter["token"] = {"word": WORD, "vectors": VECTORS, "init": "dog", "lr_ratio": 5}
    for name, lr, steps in (("start", 1e-12, 1), ("end", 2e-3, 20)):
        run(program, "train", write(folder, name, adapter, budget=f"{steps} steps", optimizer={"lr": lr}))
    assert sorted(path.name for path in (folder / "end/adapter").iterdir()) == ["cat.safetensors", "lora.safetensors"]
    pipeline = pipeline_of(model)
    pipeline.load_lora_weights(str(folder / "start/adapter/lora.safetensors"), adapter_name="ours")
    factors = [parameter for part in (model["unet"], model["text_encoder"])
               for name, parameter in part.named_parameters() if "lora_" in name]
    assert len(factors) > 20
    for parameter in factors:
        parameter.requires_grad_(True)
    rows = add_rows(model)
    follow(model, pictures, [(factors, 2e-3), (rows, 1e-2)], losses_of(folder / "end"))
    (ours,) = rows_in(folder / "end/adapter/cat.safetensors")
    torch.testing.assert_close(ours, rows[0].detach(), rtol=0, atol=1e-4)
    assert (ours[0] - ours[1]).abs().max() > 0.01  # which began alike
    theirs = {name: layer.get_delta_weight("ours").detach() for name, layer in model["unet"].named_modules()
              if hasattr(layer, "lora_A")}
    remove_rows(model)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(str(folder / "end/adapter/lora.safetensors"), adapter_name="ours")
    for name, layer in model["unet"].named_modules():
        if hasattr(layer, "lora_A"):
            assert (layer.get_delta_weight("ours") - theirs[name]).norm() < 2e-3 * theirs[name].norm(), name


def test_the_same_on_two_ranks_and_over_a_stop(program, sd1):
    folder, _, _ = sd1
    more = dict(optimizer={"lr": 2e-2}, budget="4 steps", run={"reduction": "exact"}, checkpoint={"every": "2 steps"})
    adapter = {"rank": 2, "targets": ["to_q", "q_proj"]}
    for name in ("one", "two"):
        settings = {**more, "run": {"output_dir": str(folder / name), **more["run"]}}
        path = write(folder, name, adapter, **settings)
        if name == "two":
            fault = write(folder, "fault", adapter, **settings, faults=["kill step=4 phase=backward rank=1"])
            assert execute(mpirun(2, [program, "train", str(fault)])).code != 0
        run(program, "train", path, ranks=1 if name == "one" else 2)
    for file in ("cat.safetensors", "lora.safetensors"):
        one, two = ((folder / name / "adapter" / file).read_bytes() for name in ("one", "two"))
        assert one == two, file


def ours(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


def theirs(pipeline, prompt):
    latents = reference.Draws(0, 0, 0).normal(2, (4, 16, 16))
    made = pipeline(prompt, height=32, width=32, latents=latents, num_inference_steps=4, guidance_scale=7.5)
    return np.asarray(made.images[0], dtype=int)


def test_pictures_of_the_word(program, sd1, tmp_path):
    """Of the run's, of a file of another program's form, and without it."""
    folder, model, _ = sd1
    pipeline = pipeline_of({**model, "text_encoder": copy.deepcopy(model["text_encoder"]),
                            "tokenizer": copy.deepcopy(model["tokenizer"])})
    base = theirs(pipeline, PROMPT)
    pipeline.load_textual_inversion(str(folder / "alone/adapter/cat.safetensors"), token=WORD)
    expected = theirs(pipeline, PROMPT)
    assert np.abs(expected - base).max() > 10
    (rows,) = rows_in(folder / "alone/adapter/cat.safetensors")
    safetensors.torch.save_file({WORD: rows}, tmp_path / "learned_embeds.safetensors")
    for name, adapter in (("run", []), ("file", ["--adapter", tmp_path / "learned_embeds.safetensors"])):
        said = run(program, "generate", folder / "alone.yaml", "--prompt", PROMPT, "--output", tmp_path / f"{name}.png",
                   *adapter)
        assert np.abs(ours(tmp_path / f"{name}.png") - expected).max() <= 1, name
        assert ", TI: " in said.stdout
    run(program, "generate", folder / "alone.yaml", "--adapter", folder / "alone", "--prompt", PROMPT, "--strength", "0,1",
        "--output", tmp_path / "both.png")
    assert np.abs(ours(tmp_path / "both.png") - np.concatenate([base, expected], 1)).max() <= 1
    # The run's last samples are those of its result.
    (picture,) = (folder / "alone/samples").glob("after-*.png")
    assert np.abs(ours(picture) - expected).max() <= 1


def test_inspect_explains_files_of_words(program, sd1, tmp_path):
    folder, _, _ = sd1
    file = folder / "alone/adapter/cat.safetensors"
    said = run(program, "inspect", file).stdout
    assert said.startswith('embedding (textual inversion) of the word "<cat>" for one text encoder: 2 vectors of width 16')
    assert run(program, "inspect", file.parent).stdout == said
    whole = run(program, "inspect", folder / "alone").stdout
    assert 'the word "<cat>" in 2 vectors' in whole and 'word "<cat>", 2 vectors of width 16' in whole
    for name, tensors, word in (("easy", {"emb_params": torch.ones(2, 8)}, "easy"),
                                ("of-diffusers", {"<toy>": torch.ones(8)}, "<toy>"),
                                ("xl", {"clip_l": torch.ones(1, 8), "clip_g": torch.ones(1, 12)}, "xl")):
        safetensors.torch.save_file(tensors, tmp_path / f"{name}.safetensors")
        assert f'of the word "{word}"' in run(program, "inspect", tmp_path / f"{name}.safetensors").stdout


@pytest.mark.parametrize(("adapter", "code", "message"), [
    ({"type": "token", "token": {"word": None}}, BAD_CONFIG, "adapter.type: token needs adapter.token.word"),
    ({"type": "token", "token": {"word": "zebra"}}, BAD_INPUT, "no caption has the word 'zebra' of adapter.token.word"),
    ({"type": "full"}, BAD_CONFIG, "adapter.token.word is learnt alone (adapter.type: token) or beside LoRA"),
    ({"type": "token", "init_from": "nothing"}, BAD_INPUT, "nothing is no embedding"),
    ({"rank": 2, "init_from": "alone/adapter/cat.safetensors"}, BAD_INPUT, "is the embedding of a word, no LoRA"),
    ({"type": "token", "token": {"word": "\t"}}, BAD_CONFIG, "adapter.token.word is empty"),
])
def test_refused(program, sd1, adapter, code, message):
    folder, _, _ = sd1
    outcome = execute([program, "train", write(folder, "refused", adapter)], cwd=folder)
    assert outcome.code == code and len(outcome.messages) == 1 and message in outcome.messages[0], outcome.stderr


def test_a_word_cannot_be_merged_and_has_no_half(program, sd1, tmp_path):
    folder, _, _ = sd1
    outcome = execute([program, "merge", "--model", folder / "model", "--adapter", folder / "alone/adapter", "--output",
                       tmp_path / "merged"])
    assert outcome.code == BAD_INPUT and len(outcome.messages) == 1 and "cannot be merged; give the file" in outcome.messages[0]
    outcome = execute([program, "generate", folder / "alone.yaml", "--prompt", "a", "--strength", "0.5"], cwd=tmp_path)
    assert outcome.code == USAGE and "has no strength but 0 and 1" in outcome.messages[0], outcome.stderr


def test_training_goes_on_from_a_word(program, sd1):
    folder, _, _ = sd1
    path = write(folder, "next", {"type": "token", "token": {"word": WORD}, "init_from": str(folder / "alone/adapter")},
                 optimizer={"lr": 1e-12})
    said = run(program, "train", path).stderr
    assert "taken from it: token.vectors 2" in said
    before, after = (rows_in(folder / name / "adapter/cat.safetensors")[0] for name in ("alone", "next"))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert subprocess.run([program, "plan", str(path), "--headers-only"], capture_output=True).returncode == 0
