"""Whole runs of residual networks against the same training of torchvision's networks in torch, and against peft's LoRA
on their convolutions; what a run writes is read by both."""
import json

import h5py
import peft
import pytest
import torch
import torchvision
from image_reference import (CLASSES, Margin, SmallResNet, evaluate, fill, make_pictures, normalised, read_pictures,
                             save_model, train, write_pictures, write_settings)
from reference import adapter_tensors, metrics, run
from safetensors.torch import load_file

STEPS = 50
LR = {"sgd": 0.01, "adamw": 1e-3}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for channels in (1, 3):
        training = write_pictures(folder, f"train{channels}", *make_pictures(48, 8, channels))
        write_pictures(folder, f"validation{channels}", *make_pictures(21, 8, channels, seed=1), classes_from=training)
    return folder


class Case:
    """A network on the disk and in torch, and what it is shown."""

    def __init__(self, pictures, folder, model, channels=3, **settings):
        self.folder, self.model = folder, model
        save_model(model, folder / "base", **settings)
        self.data = {part: str(pictures / f"{part}{channels}.h5") for part in ("train", "validation")}
        raw, self.labels = read_pictures(self.data["train"])
        validation, self.validation_labels = read_pictures(self.data["validation"])
        self.pixels, self.validation = normalised(raw), normalised(validation, raw)

    def run(self, program, output="run", ranks=1, **settings):
        settings["data"] = {**self.data, **settings.get("data", {})}
        run(program, "train", write_settings(self.folder, output, settings), ranks=ranks)
        return [line for line in metrics(self.folder / output) if line["step"] > 0]

    def expect_validation(self, model, line):
        loss, accuracy = evaluate(model, self.validation, self.validation_labels)
        assert line["val_loss"] == pytest.approx(loss, rel=1e-4)
        assert line["val_accuracy"] == pytest.approx(accuracy, abs=1e-9)


def expect_tensors(actual, expected):
    """What is trained, and the running state, to the rounding of some fifty updates."""
    for name, value in expected.items():
        if not name.endswith("num_batches_tracked"):
            assert (actual[name] - value).abs().max() <= 1e-3 * value.abs().max(), name


NETWORKS = {
    "batch": dict(norm="batch"),
    "batch, grey, large stem": dict(norm="batch", stem="large", in_channels=1),
    "batch, bottleneck": dict(norm="batch", block="bottleneck", width=4),
    "ghost": dict(norm="batch", ghost_batch=4),
    "group": dict(norm="group"),
    "group, bottleneck, three stages": dict(norm="group", block="bottleneck", layers=(1, 2, 1), width=4),
    "none": dict(norm="none"),
}
RECIPES = {
    "sgd": {},
    "sgd, decay, smoothing": dict(decay=0.01, smoothing=0.1),
    "adamw": dict(name="adamw", decay=0.01),
}
# With seeds for which no ReLU comes so near to zero that rounding would decide (image_reference.Margin).
CURVES = [
    ("batch", "sgd", 0), ("batch", "sgd, decay, smoothing", 22), ("batch", "adamw", 5),
    ("batch, grey, large stem", "sgd", 0), ("batch, bottleneck", "sgd", 7), ("ghost", "sgd", 37), ("group", "sgd", 2),
    ("group", "adamw", 7), ("group, bottleneck, three stages", "sgd", 38), ("none", "sgd", 20),
    ("none", "sgd, decay, smoothing", 11),
]
CLEAR = 1e-6


@pytest.mark.parametrize(("network", "recipe", "seed"), CURVES)
def test_fifty_updates(program, pictures, tmp_path, network, recipe, seed):
    parts, how = {**NETWORKS[network], "seed": seed}, {"name": "sgd", "decay": 0.0, "smoothing": 0.0, **RECIPES[recipe]}
    case = Case(pictures, tmp_path, SmallResNet(**parts), parts.get("in_channels", 3))
    # A leaf of the whole update is what torch normalises; ghost batches and the other norms know no leaves.
    leaf = 8 if network.startswith("batch") else 4
    lr = LR[how["name"]]
    lines = case.run(program, batch={"micro": leaf}, loss={"label_smoothing": how["smoothing"]},
                     optimizer={"name": how["name"], "lr": lr, "weight_decay": how["decay"]})
    start = metrics(tmp_path / "run")[0]
    case.expect_validation(case.model, start)
    margin = Margin(case.model)
    losses, norms, shares = train(case.model.train(), case.pixels, case.labels, STEPS, lr=lr, **how)
    assert margin.least > CLEAR, "take another seed"
    assert lines[0]["loss"] == pytest.approx(losses[0], rel=1e-5)
    assert lines[0]["grad_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert min(losses) < 0.8 * losses[0], "the run must move far enough to tell recipes apart"
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-4)
    assert [line["accuracy"] for line in lines] == pytest.approx(shares, abs=1e-9)
    assert {line["images"] for line in lines} == {8}
    case.expect_validation(case.model, lines[-1])
    expect_tensors(load_file(tmp_path / "run/model/model.safetensors"), case.model.state_dict())


@pytest.mark.parametrize("network", ["batch", "group, bottleneck, three stages", "none"])
def test_what_is_written_is_torchvisions(program, pictures, tmp_path, network):
    case = Case(pictures, tmp_path, SmallResNet(**NETWORKS[network]))
    line = case.run(program, budget="5 steps")[-1]
    model = SmallResNet(**NETWORKS[network])
    model.load_state_dict(load_file(tmp_path / "run/model/model.safetensors"), strict=True)
    case.expect_validation(model, line)
    written = json.loads((tmp_path / "run/model/config.json").read_text())
    assert {key: written[key] for key in model.settings} == model.settings
    # It is a model to begin from: its first update has the loss that this one would have next.
    again = case.run(program, "again", model={"path": str(tmp_path / "run/model")}, budget="1 step")[0]
    losses, _, _ = train(model.train(), case.pixels, case.labels, 1)
    assert again["loss"] == pytest.approx(losses[0], rel=1e-5)


def test_resnet18_as_it_comes(program, pictures, tmp_path):
    model = torchvision.models.resnet18(num_classes=CLASSES)
    model.settings = {"model_type": "resnet", "block": "basic", "layers": [2, 2, 2, 2], "classes": CLASSES}
    case = Case(pictures, tmp_path, fill(model))
    lines = case.run(program, budget="2 steps", optimizer={"lr": 1e-3})
    losses, norms, _ = train(model.train(), case.pixels, case.labels, 2, lr=1e-3)
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-5)
    assert [line["grad_norm"] for line in lines] == pytest.approx(norms, rel=1e-4)
    model.load_state_dict(load_file(tmp_path / "run/model/model.safetensors"), strict=True)
    case.expect_validation(model, lines[-1])


def test_pictures_are_normalised_as_the_model_knows_them(program, pictures, tmp_path):
    mean, deviation = [0.3, 0.4, 0.5], [0.2, 0.25, 0.3]
    case = Case(pictures, tmp_path, SmallResNet(), image_mean=mean, image_std=deviation)
    line = case.run(program, budget="1 step")[0]
    raw, _ = read_pictures(case.data["train"])
    other = ((raw - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]).float()
    losses, norms, _ = train(case.model.train(), other, case.labels, 1)
    assert (line["loss"], line["grad_norm"]) == pytest.approx((losses[0], norms[0]), rel=1e-5)
    written = json.loads((tmp_path / "run/model/config.json").read_text())
    assert (written["image_mean"], written["image_std"]) == (mean, deviation)


@pytest.mark.parametrize("settings", [{}, {"augment": {"flip": True}}, {"augment": {"shift": 2}}],
                         ids=["none", "flip", "shift"])
def test_views(program, pictures, tmp_path, settings):
    """Each picture of an epoch is one of its views, and over epochs all of them come: with a rate of next to nothing a
    loss tells which it was."""
    case = Case(pictures, tmp_path, SmallResNet(norm="group"))
    epochs = 12
    lines = case.run(program, data=settings, batch={"global": 1, "micro": 1}, budget=f"{epochs} epochs",
                     optimizer={"lr": 1e-30}, evaluate={"every": 0})
    with torch.no_grad():
        views = []
        for shown in (case.pixels, case.pixels.flip(3)) if "flip" in settings.get("augment", {}) else (case.pixels,):
            reach = settings.get("augment", {}).get("shift", 0)
            wide = torch.nn.functional.pad(shown, (reach,) * 4)
            for down in range(2 * reach + 1):
                for right in range(2 * reach + 1):
                    views.append(wide[:, :, down:down + 8, right:right + 8])
        possible = torch.stack([torch.nn.functional.cross_entropy(case.model(view), case.labels, reduction="none")
                                for view in views])  # [views, pictures]
    seen = torch.zeros(len(views), dtype=torch.long)
    for number, line in enumerate(lines):
        distance = (possible[:, number % len(case.labels)] - line["loss"]).abs()
        assert distance.min() < 1e-5 * line["loss"] + 1e-7, number
        seen[distance.argmin()] += 1
    # Each as often as by chance, in four standard deviations.
    expected = len(lines) / len(views)
    assert ((seen - expected).abs() <= 4 * expected ** 0.5).all(), seen


TARGETS = {
    "all": ["conv1", "conv2", "downsample.0", "fc"],
    "some": ["layer1.0.conv2", "conv1"],
    "bottleneck": ["conv1", "conv2", "conv3", "downsample.0", "fc"],
}


def peft_start(folder, model, targets, seed=1, **more):
    """peft's adapter on it, of which no part is zero; the same on the disk."""
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets, **more))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(folder / "start")
    return wrapped.eval()  # the base's norms keep their running state


@pytest.mark.parametrize(("network", "targets", "name", "seed"), [
    ("batch", "all", "sgd", 0), ("batch", "some", "adamw", 2), ("group", "all", "adamw", 1), ("none", "some", "sgd", 1),
    ("batch, grey, large stem", "all", "adamw", 0), ("batch, bottleneck", "bottleneck", "sgd", 4)])
def test_adapters_of_convolutions(program, pictures, tmp_path, network, targets, name, seed):
    parts = {**NETWORKS[network], "seed": seed}
    model, base = SmallResNet(**parts), SmallResNet(**parts)
    case = Case(pictures, tmp_path, base, parts.get("in_channels", 3))
    theirs = peft_start(tmp_path, model, TARGETS[targets])
    adapter = {"type": "lora", "rank": 3, "alpha": 6, "init_from": str(tmp_path / "start")}
    adapter["targets"] = "all-layers" if targets != "some" else TARGETS[targets]
    lines = case.run(program, adapter=adapter, optimizer={"name": name, "lr": LR[name]}, budget="20 steps", batch={"micro": 4})
    start = metrics(tmp_path / "run")[0]
    case.expect_validation(theirs, start)
    margin = Margin(theirs)
    losses, norms, shares = train(theirs, case.pixels, case.labels, 20, name=name, lr=LR[name])
    assert margin.least > CLEAR, "take another seed"
    assert lines[0]["loss"] == pytest.approx(losses[0], rel=1e-5)
    assert lines[0]["grad_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-4)
    assert [line["accuracy"] for line in lines] == pytest.approx(shares, abs=1e-9)
    case.expect_validation(theirs, lines[-1])
    trained = adapter_tensors(tmp_path / "run/adapter")
    expected = {key.replace(".default", ""): value.detach() for key, value in theirs.named_parameters() if "lora_" in key}
    assert set(trained) == set(expected)
    expect_tensors(trained, expected)

    # What was written, in peft and merged.
    read = peft.PeftModel.from_pretrained(base, tmp_path / "run/adapter").eval()
    case.expect_validation(read, lines[-1])
    run(program, "merge", "--model", tmp_path / "base", "--adapter", tmp_path / "run/adapter", "--output", tmp_path / "merged")
    merged = load_file(tmp_path / "merged/model.safetensors")
    plain = SmallResNet(**parts)
    plain.load_state_dict(merged, strict=True)
    case.expect_validation(plain, lines[-1])
    for key, value in read.merge_and_unload().state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.allclose(merged[key], value, rtol=1e-6, atol=1e-7), key


def test_a_new_adapter_changes_nothing_at_first(program, pictures, tmp_path):
    case = Case(pictures, tmp_path, SmallResNet())
    line = case.run(program, adapter={"type": "lora", "rank": 2, "targets": ["conv2"]}, budget="1 step")[0]
    with torch.no_grad():
        logits = case.model.eval()(case.pixels[:8])
    assert line["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, case.labels[:8]).item(), rel=1e-6)
    settings = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert settings["task_type"] is None and settings["target_modules"] == ["conv2"]
    for name, value in adapter_tensors(tmp_path / "run/adapter").items():
        assert name.endswith(("lora_A.weight", "lora_B.weight")) and value.dim() == 4


def test_the_file_is_what_the_pictures_are(pictures):
    """The control of the reader above: pixels as drawn, labels as named."""
    for part, count, seed in (("train3", 48, 0), ("validation3", 21, 1)):
        pixels, labels = make_pictures(count, 8, 3, seed)
        read, read_labels = read_pictures(pictures / f"{part}.h5")
        assert torch.equal((read * 255).round().byte(), torch.from_numpy(pixels).permute(0, 3, 1, 2))
        assert read_labels.tolist() == labels.tolist()
        with h5py.File(pictures / f"{part}.h5") as file:
            assert file["classes/bytes"][:].tobytes() == b"".join(b"class %d" % label for label in range(CLASSES))
