"""lorascale export: a LoRA of pictures in the forms of sd-scripts, PEFT and diffusers changes each layer by the same, as
diffusers, peft and this program's own reader have it; runs begin from any of them, and merge and inspect take them."""
import copy
import json
import shutil

import diffusers
import peft
import pytest
import safetensors
import safetensors.torch
import torch
import yaml
from harness import execute, expect_refusal
from reference import make_model, run

import diffusion_reference as reference

USAGE, BAD_INPUT, CANNOT_WRITE = 64, 65, 73
PARTS = ("unet", "text_encoder", "text_encoder_2")
# Linear layers, convolutions of 1 x 1 and of 3 x 3, several ranks and alphas.
MIXED = {"rank": 3, "alpha": 2, "targets": ["to_q", "ff.net.2", "proj_in", "conv1", "q_proj", "out_proj", "fc1"],
         "rank_pattern": {"conv1": 2, "fc1": 1}, "alpha_pattern": {"to_q": 5}}
ADAPTERS = {"sd1": MIXED, "sdxl": {"rank": 2, "alpha": 1}}


def train(program, folder, output, adapter, lr=1e-2, **more):
    config = {
        "run": {"output_dir": str(output), "threads": 1, "device": "cpu"},
        "model": {"path": str(folder / "model"), "dtype": "fp32"},
        "adapter": adapter,
        "data": {"train": str(folder / "train.h5"), "cache": {"enabled": False}},
        "batch": {"global": 2, "micro": 2},
        "optimizer": {"lr": lr},
        "schedule": {"name": "constant", "warmup": 0},
        "budget": "2 steps", **more}
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    run(program, "train", path)
    return output


class World:
    """A model, a run on it, and what its file changes as diffusers reads it."""

    def __init__(self, program, folder, kind):
        self.folder, self.model = folder, folder / "model"
        self.parts = reference.make_pipeline(self.model, kind)
        reference.prepare(reference.make_pictures(folder / "pictures", [(32, 32)] * 2), self.model, folder / "train.h5")
        self.run = train(program, folder, folder / "run", ADAPTERS[kind])
        self.file = self.run / "adapter/lora.safetensors"
        self.changes = self.changes_of_file(self.file)
        # Each form once, by the run that knows its model, or by --model.
        self.exported = folder / "exported"
        run(program, "export", self.run, "--to", "peft", "--output", self.exported / "peft")
        run(program, "export", self.file, "--to", "diffusers", "--output", self.exported / "diffusers", "--model", self.model)
        self.forms = {"kohya": self.file, "peft": self.exported / "peft",
                      "diffusers": self.exported / "diffusers/pytorch_lora_weights.safetensors"}

    def pipeline(self):
        xl = "text_encoder_2" in self.parts
        names = ["vae", "unet", "text_encoder", "tokenizer"] + (["text_encoder_2", "tokenizer_2"] if xl else [])
        more = {} if xl else dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        kind = diffusers.StableDiffusionXLPipeline if xl else diffusers.StableDiffusionPipeline
        return kind(scheduler=diffusers.DDIMScheduler(), **{name: copy.deepcopy(self.parts[name]) for name in names}, **more)

    def changes_in_diffusers(self, path):
        pipeline = self.pipeline()
        pipeline.load_lora_weights(str(path), adapter_name="default")
        return {f"{part}.{name}": change for part in PARTS
                for name, change in changes_of(getattr(pipeline, part, None)).items()}


    def changes_of_file(self, path):
        """Of sd-scripts' form. diffusers knows the names that SDXL's UNet has there, but of several alphas it loses some."""
        if "text_encoder_2" in self.parts:
            return self.changes_in_diffusers(path)
        tensors = safetensors.torch.load_file(path)
        changes = {}
        for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
            for name, layer in self.parts[part].named_modules():
                key = prefix + name.replace(".", "_")
                if key + ".alpha" in tensors:
                    a, b = tensors[key + ".lora_down.weight"], tensors[key + ".lora_up.weight"]
                    change = b.flatten(1).double() @ a.flatten(1).double() * (tensors[key + ".alpha"].double() / len(a))
                    changes[f"{part}.{name}"] = change.view(layer.weight.shape).float()
        assert 3 * len(changes) == len(tensors)
        return changes


def changes_of(module):
    return {} if module is None else {
        name: layer.get_delta_weight("default").detach() for name, layer in module.named_modules() if hasattr(layer, "lora_A")}


def same(ours, theirs, tolerance=1e-6):
    assert ours.keys() == theirs.keys() and len(theirs) > 20
    for name, change in theirs.items():
        assert ours[name].shape == change.shape
        assert (ours[name] - change).norm() <= tolerance * change.norm(), name
    assert sum(change.norm() > 0 for change in theirs.values()) > 10


@pytest.fixture(scope="module")
def sd1(program, tmp_path_factory):
    return World(program, tmp_path_factory.mktemp("sd1"), "sd1")


@pytest.fixture(scope="module", params=["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def world(request, program, tmp_path_factory):
    return request.getfixturevalue("sd1") if request.param == "sd1" else World(program, tmp_path_factory.mktemp("sdxl"), "sdxl")


@pytest.fixture
def exported(world):
    return world.exported


def test_peft_reads_the_folders(world, exported):
    changes = {}
    for part in PARTS:
        if part in world.parts:
            wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(world.parts[part]), exported / "peft" / part)
            changes.update({f"{part}.{name.removeprefix('base_model.model.')}": change for name, change in changes_of(wrapped).items()})
    same(changes, world.changes)
    keys = safetensors.torch.load_file(exported / "peft/text_encoder/adapter_model.safetensors")
    # As transformers 4 has the module, and as 5 does.
    with_it = {key.replace("base_model.model.", "base_model.model.text_model.") for key in keys if ".text_model." not in key}
    assert with_it == {key for key in keys if ".text_model." in key} and len(with_it) * 2 == len(keys)


def test_diffusers_reads_the_file(world, exported):
    file = exported / "diffusers/pytorch_lora_weights.safetensors"
    same(world.changes_in_diffusers(file), world.changes)
    same(world.changes_in_diffusers(exported / "diffusers"), world.changes)  # found by its name
    tensors = safetensors.torch.load_file(file)
    assert all(key.startswith("unet.") or ".text_model.encoder." in key for key in tensors)
    # Older versions know no alpha, and the rank of the first layer alone.
    for part in PARTS:
        ranks = {len(tensor) for key, tensor in tensors.items() if key.startswith(part + ".") and key.endswith("lora_A.weight")}
        assert len(ranks) == (part in world.parts)


def test_there_and_back_again_is_the_same_file(program, world, exported, tmp_path):
    """By PEFT's folders, which name their base and keep what the file says of itself."""
    said = run(program, "export", exported / "peft", "--to", "kohya", "--output", tmp_path / "back.safetensors").stdout
    assert said == f"exported {len(world.changes)} layers of " + ", ".join(
        sorted(part for part in PARTS if part in world.parts)) + f" to {tmp_path / 'back.safetensors'}\n"
    before, after = (safetensors.torch.load_file(path) for path in (world.file, tmp_path / "back.safetensors"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert metadata_of(world.file) == metadata_of(tmp_path / "back.safetensors")


def metadata_of(path):
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def test_back_from_diffusers_it_changes_the_same(program, world, exported, tmp_path):
    run(program, "export", exported / "diffusers", "--to", "kohya", "--output", tmp_path / "new", "--model", world.model)
    same(world.changes_of_file(tmp_path / "new/lora.safetensors"), world.changes)
    metadata = metadata_of(tmp_path / "new/lora.safetensors")
    known = metadata_of(world.file)
    for key in ("ss_v2", "ss_base_model_version", "modelspec.architecture", "ss_network_module", "ss_sd_model_name"):
        assert metadata[key] == known[key], key
    assert len(metadata["sshs_model_hash"]) == 64 and metadata["ss_network_dim"].isdigit()
    run(program, "export", exported / "diffusers/pytorch_lora_weights.safetensors", "--to", "peft", "--output", tmp_path / "peft",
        "--model", world.model)
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {part for part in PARTS if part in world.parts}


def test_a_file_that_diffusers_saved(program, world, tmp_path):
    """Scales of its own in the metadata, and rsLoRA; and without it the key ends that older scripts wrote."""
    pipeline = world.pipeline()
    form = peft.LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["to_q", "conv1"], rank_pattern={"conv1": 2},
                           alpha_pattern={"conv1": 5})
    torch.manual_seed(0)
    pipeline.unet.add_adapter(form)
    with torch.no_grad():
        for name, parameter in pipeline.unet.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    layers = peft.utils.get_peft_model_state_dict(pipeline.unet)
    metadata = {"unet_lora_adapter_metadata": pipeline.unet.peft_config["default"].to_dict()}
    type(pipeline).save_lora_weights(tmp_path / "saved", unet_lora_layers=layers, **metadata)
    run(program, "export", tmp_path / "saved", "--to", "kohya", "--output", tmp_path / "saved.safetensors", "--model", world.model)
    expected = {"unet." + name: change for name, change in changes_of(pipeline.unet).items()}
    ours = world.changes_of_file(tmp_path / "saved.safetensors")
    assert ours.keys() == expected.keys() and len(ours) > 5
    for name, change in expected.items():
        assert (ours[name] - change).norm() <= 1e-6 * change.norm(), name

    ends = {"lora_A.weight": "lora.down.weight", "lora_B.weight": "lora.up.weight"}
    older = {"unet." + key.replace(end, older): tensor for key, tensor in layers.items() for end, older in ends.items() if end in key}
    safetensors.torch.save_file(older, tmp_path / "older.safetensors")
    run(program, "export", tmp_path / "older.safetensors", "--to", "kohya", "--output", tmp_path / "new.safetensors", "--model",
        world.model)
    for key, tensor in safetensors.torch.load_file(tmp_path / "new.safetensors").items():
        if key.endswith("lora_down.weight"):
            assert any(torch.equal(tensor, other) for other in older.values())
        elif key.endswith("alpha"):
            assert tensor in (4, 2)


def test_a_file_of_several_ranks_keeps_one_alpha_for_diffusers(program, sd1, tmp_path):
    run(program, "export", sd1.forms["diffusers"], "--to", "kohya", "--output", tmp_path / "one.safetensors", "--model", sd1.model)
    run(program, "resize", tmp_path / "one.safetensors", "--keep", 0.9, "--output", tmp_path / "small.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "small.safetensors")
    assert len({float(tensor) for key, tensor in tensors.items() if key.endswith(".alpha")}) == 1
    assert len({len(tensor) for key, tensor in tensors.items() if key.endswith("lora_down.weight")}) > 1
    same(sd1.changes_in_diffusers(tmp_path / "small.safetensors"), sd1.changes_of_file(tmp_path / "small.safetensors"))


# --- the other verbs --------------------------------------------------------------------------------------------------

def test_merge_takes_each_form(program, sd1, tmp_path):
    weights = {}
    for form, path in sd1.forms.items():
        run(program, "merge", "--model", sd1.model, "--adapter", path, "--output", tmp_path / form)
        weights[form] = {(part, name): tensor for part in ("unet", "text_encoder")
                         for file in (tmp_path / form / part).glob("*.safetensors")
                         for name, tensor in safetensors.torch.load_file(file).items()}
    for form in ("peft", "diffusers"):
        assert weights[form].keys() == weights["kohya"].keys()
        for key, tensor in weights["kohya"].items():
            torch.testing.assert_close(weights[form][key], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", ["peft", "diffusers"])
def test_a_run_begins_from_each_form(program, sd1, tmp_path, form):
    """At a rate that moves nothing, it is what it began from."""
    train(program, sd1.folder, tmp_path / "run", {"init_from": str(sd1.forms[form])}, lr=1e-15)
    same(sd1.changes_of_file(tmp_path / "run/adapter/lora.safetensors"), sd1.changes, 1e-5)


@pytest.mark.parametrize("form", ["peft", "diffusers"])
def test_inspect_explains_each_form(program, sd1, form):
    text = run(program, "inspect", sd1.forms[form]).stdout
    assert f"on {len(sd1.changes)} layers" in text and "  unet.down_blocks.0." in text and "  text_encoder.text_model." in text
    assert ("PEFT's folders" if form == "peft" else "of diffusers' form") in text.splitlines()[0]
    norm = float(text.split("unet.down_blocks.0.resnets.0.conv1", 1)[1].split("|dW|", 1)[1].split()[0])
    assert norm == pytest.approx(float(sd1.changes["unet.down_blocks.0.resnets.0.conv1"].norm()), rel=1e-3)


@pytest.mark.slow
def test_generate_takes_each_form(program, sd1, tmp_path):
    pictures = []
    for form, path in sd1.forms.items():
        run(program, "generate", sd1.run.with_suffix(".yaml"), "--set", "sample.steps=2", "--prompt", "a cat", "--adapter", path,
            "--output", tmp_path / f"{form}.png")
        pictures.append(torch.tensor(reference.np.array(reference.Image.open(tmp_path / f"{form}.png"))).int())
    assert all((picture - pictures[0]).abs().max() <= 1 for picture in pictures)


# --- what cannot be ---------------------------------------------------------------------------------------------------

def test_dora_goes_to_peft_and_not_to_diffusers(program, sd1, tmp_path):
    dora = train(program, sd1.folder, tmp_path / "run", {"rank": 2, "alpha": 2, "dora": True, "targets": ["to_q", "conv1", "proj_in"]})
    run(program, "export", dora, "--to", "peft", "--output", tmp_path / "peft")
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {"unet"}
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(sd1.parts["unet"]), tmp_path / "peft/unet")
    run(program, "merge", "--model", sd1.model, "--adapter", dora, "--output", tmp_path / "merged")
    merged = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "merged/unet").state_dict()
    theirs = wrapped.merge_and_unload().state_dict()
    assert theirs.keys() == merged.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    run(program, "export", tmp_path / "peft", "--to", "kohya", "--output", tmp_path / "back.safetensors")
    before, after = (safetensors.torch.load_file(path) for path in (dora / "adapter/lora.safetensors", tmp_path / "back.safetensors"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    expect_refusal(execute([program, "export", dora, "--to", "diffusers", "--output", tmp_path / "new"]), BAD_INPUT,
                   "is of DoRA, whose magnitudes diffusers leaves out")
    assert not (tmp_path / "new").exists()


def test_factors_in_16_bits_stay_so(program, sd1, tmp_path):
    tensors = {key: tensor if key.endswith(".alpha") else tensor.half() for key, tensor in safetensors.torch.load_file(sd1.file).items()}
    safetensors.torch.save_file(tensors, tmp_path / "half.safetensors")
    run(program, "export", tmp_path / "half.safetensors", "--to", "peft", "--output", tmp_path / "peft", "--model", sd1.model)
    stored = safetensors.torch.load_file(tmp_path / "peft/unet/adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    # A scale of 2/3 in a factor is no number of 16 bits.
    run(program, "export", tmp_path / "half.safetensors", "--to", "diffusers", "--output", tmp_path / "new", "--model", sd1.model)
    same(sd1.changes_in_diffusers(tmp_path / "new"), sd1.changes_of_file(tmp_path / "half.safetensors"))


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    model = make_model("llama")
    model.save_pretrained(folder / "model")
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(folder / "adapter")
    return folder


@pytest.mark.parametrize(("arguments", "code", "words"), [
    ([], USAGE, "the adapter, a LoRA file, a folder or a run, is missing"),
    pytest.param(["FILE", "--output", "new"], USAGE, "--to is peft, kohya or diffusers", marks=pytest.mark.slow),
    pytest.param(["FILE", "--to", "peft", "--output", "FILE"], CANNOT_WRITE, "is there; choose another --output", marks=pytest.mark.slow),
    pytest.param(["FILE", "--to", "peft", "--output", "new.safetensors"], USAGE, "names the folder", marks=pytest.mark.slow),
    (["FILE", "--to", "kohya", "--output", "new"], USAGE, "is of the form kohya already"),
    (["PEFT/unet", "--to", "kohya", "--output", "new"], USAGE, "is one part of a LoRA; give the folder that holds it"),
    pytest.param(["nowhere", "--to", "peft", "--output", "new"], BAD_INPUT, "nowhere does not exist", marks=pytest.mark.slow),
    (["COPY", "--to", "peft", "--output", "new"], USAGE, "--model is missing"),
    pytest.param(["COPY", "--to", "peft", "--output", "new", "--model", "nowhere"], BAD_INPUT, "--model takes the base model", marks=pytest.mark.slow),
    (["COPY", "--to", "peft", "--output", "new", "--model", "LANGUAGE/model"], USAGE, "have PEFT's form alone"),
    (["OTHER", "--to", "peft", "--output", "new", "--model", "MODEL"], BAD_INPUT, "is no LoRA of pictures"),
    (["STRANGE", "--to", "peft", "--output", "new", "--model", "MODEL"], BAD_INPUT, "is no layer of this model"),
    (["STRAY", "--to", "kohya", "--output", "new", "--model", "MODEL"], BAD_INPUT, "is no LoRA of a layer as diffusers writes"),
    (["HALF", "--to", "kohya", "--output", "new", "--model", "MODEL"], BAD_INPUT, "are not all there"),
    pytest.param(["SHAPE", "--to", "kohya", "--output", "new", "--model", "MODEL"], BAD_INPUT, "does not fit this model's layer", marks=pytest.mark.slow),
    (["JSON", "--to", "kohya", "--output", "new", "--model", "MODEL"], BAD_INPUT, "lora_adapter_metadata"),
    (["LANGUAGE/adapter", "--to", "diffusers", "--output", "new", "--model", "LANGUAGE/model"], USAGE, "the only form there is"),
])
def test_refused(program, sd1, language, tmp_path, arguments, code, words):
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    a, b = torch.ones(1, 32), torch.ones(32, 1)
    files = {
        "other": ({"weight": a}, None),
        "strange": ({f"lora_unet_x.{end}": tensor for end, tensor in (("lora_down.weight", a), ("lora_up.weight", b))}, None),
        "stray": ({layer + ".lora_A.weight": a, layer + ".lora_B.weight": b, "foo.bar": torch.ones(3)}, None),
        "half": ({layer + ".lora_A.weight": a}, None),
        "shape": ({layer + ".lora_A.weight": torch.ones(1, 30), layer + ".lora_B.weight": b}, None),
        "json": ({layer + ".lora_A.weight": a, layer + ".lora_B.weight": b}, {"lora_adapter_metadata": "[1"}),
    }
    paths = {"FILE": sd1.file, "COPY": tmp_path / "copy.safetensors", "PEFT": sd1.forms["peft"], "MODEL": sd1.model,
             "LANGUAGE": language}
    shutil.copy(sd1.file, paths["COPY"])
    for name, (tensors, metadata) in files.items():
        paths[name.upper()] = tmp_path / f"{name}.safetensors"
        safetensors.torch.save_file(tensors, paths[name.upper()], metadata)
    words_of = [str(paths.get(word.split("/")[0], word.split("/")[0])) + word[len(word.split("/")[0]):] for word in arguments]
    expect_refusal(execute([program, "export", *words_of], cwd=tmp_path), code, words)
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.safetensors").exists()


def test_parts_that_contradict_each_other_are_refused(program, sd1, tmp_path):
    """A text encoder's layers by both of their names, of which one was changed."""
    shutil.copytree(sd1.forms["peft"], tmp_path / "peft")
    file = tmp_path / "peft/text_encoder/adapter_model.safetensors"
    tensors = safetensors.torch.load_file(file)
    key = next(key for key in tensors if ".text_model." in key and key.endswith("lora_B.weight"))
    safetensors.torch.save_file({**tensors, key: tensors[key] + 1}, file)
    expect_refusal(execute([program, "export", tmp_path / "peft", "--to", "kohya", "--output", tmp_path / "new"]), BAD_INPUT,
                   "is there twice")
    config = json.loads((tmp_path / "peft/unet/adapter_config.json").read_text())
    (tmp_path / "peft/unet/adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "nowhere/unet"}))
    shutil.rmtree(tmp_path / "peft/text_encoder")
    expect_refusal(execute([program, "export", tmp_path / "peft", "--to", "kohya", "--output", tmp_path / "new"]), USAGE,
                   "--model is missing")
