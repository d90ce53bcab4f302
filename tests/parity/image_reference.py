"""What the tests of image classification share: small pictures as image files, torchvision's residual networks as model
folders, and training in torch."""
import json
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import torch
from PIL import Image
from reference import write_config
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLASSES = 5
MOMENTUM = 0.9


def make_pictures(count, side, channels, seed=0):
    """u8 [count, side, side, channels] and labels: a grey level and a gradient of each class under noise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    labels[:CLASSES] = range(CLASSES)
    down, across = np.mgrid[0:side, 0:side] / side
    slope = np.stack([np.cos(labels), np.sin(labels)], 1)
    signal = 60 * (slope[:, 0, None, None] * down + slope[:, 1, None, None] * across) + 12 * labels[:, None, None]
    pixels = 80 + signal[..., None] + generator.normal(0, 25, (count, side, side, channels))
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


def write_pictures(folder, name, pixels, labels, classes_from=None):
    """folder/name.h5, made from PNGs and a table by scripts/prepare_images.py, in the order given."""
    source = folder / f"{name}-pictures"
    source.mkdir()
    rows = ["file,label"]
    for number, (picture, label) in enumerate(zip(pixels, labels)):
        Image.fromarray(picture if picture.shape[2] == 3 else picture[:, :, 0]).save(source / f"{number}.png")
        rows.append(f"{number}.png,class {label}")
    (source / "labels.csv").write_text("\n".join(rows) + "\n")
    path = folder / f"{name}.h5"
    more = ["--classes-from", classes_from] if classes_from else ["--channels", str(pixels.shape[3])]
    subprocess.run([sys.executable, ROOT / "scripts/prepare_images.py", source / "labels.csv", "--output", path,
                    "--workers", "1", *more], check=True, capture_output=True)
    return path


def read_pictures(path):
    """([n, c, h, w] values of 0 to 1, labels), by the layout in docs/images.md."""
    with h5py.File(path) as file:
        shape = [int(file.attrs[name]) for name in ("channels", "height", "width")]
        pixels = torch.from_numpy(file["pixels"][:].reshape(-1, *shape)).double() / 255
        return pixels, torch.from_numpy(file["labels"][:].astype(np.int64))


def normalised(pixels, of=None):
    """By the mean and the standard deviation of all values of a channel in the training set."""
    of = pixels if of is None else of
    mean, deviation = of.mean((0, 2, 3), keepdim=True), of.std((0, 2, 3), keepdim=True, correction=0)
    return ((pixels - mean) / deviation).float()


class GhostNorm(nn.BatchNorm2d):
    """Batch normalisation of each `size` samples by themselves; the state moves to the mean over all of them."""

    size = 0

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        out, means, variances = [], [], []
        for chunk in x.split(self.size or len(x)):
            mean, variance = chunk.mean((0, 2, 3)), chunk.var((0, 2, 3), correction=0)
            out.append((chunk - mean[:, None, None]) * (variance[:, None, None] + self.eps).rsqrt())
            values = chunk.numel() / chunk.shape[1]
            means.append(mean.detach() * len(chunk))
            variances.append(variance.detach() * len(chunk) * values / (values - 1))
        with torch.no_grad():
            self.running_mean.lerp_(sum(means) / len(x), self.momentum)
            self.running_var.lerp_(sum(variances) / len(x), self.momentum)
        return torch.cat(out) * self.weight[:, None, None] + self.bias[:, None, None]


class SmallResNet(ResNet):
    """torchvision's network, its blocks and its order of things, with few channels and stages."""

    def __init__(self, block="basic", layers=(1, 1), width=8, norm="batch", groups=4, ghost_batch=0, stem="small",
                 in_channels=3, seed=0):
        make_norm = {"batch": nn.BatchNorm2d, "group": lambda channels: nn.GroupNorm(groups, channels),
                     "none": lambda _: nn.Identity()}[norm]
        if ghost_batch:
            make_norm = type("Ghost", (GhostNorm,), {"size": ghost_batch})
        kind = {"basic": BasicBlock, "bottleneck": Bottleneck}[block]
        super().__init__(kind, [1, 1, 1, 1], num_classes=CLASSES, norm_layer=make_norm)
        self.inplanes = width
        self.conv1 = (nn.Conv2d(in_channels, width, 7, 2, 3, bias=False) if stem == "large" else
                      nn.Conv2d(in_channels, width, 3, 1, 1, bias=False))
        self.bn1 = make_norm(width)
        if stem == "small":
            self.maxpool = nn.Identity()
        for stage in range(4):
            planes = width << stage
            layer = (self._make_layer(kind, planes, layers[stage], stride=1 if stage == 0 else 2)
                     if stage < len(layers) else nn.Identity())
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = nn.Linear(self.inplanes, CLASSES)
        if norm == "none":
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    module.bias = nn.Parameter(torch.zeros(module.out_channels))
        self.settings = {"model_type": "resnet", "block": block, "layers": list(layers), "width": width, "norm": norm,
                         "groups": groups, "ghost_batch": ghost_batch, "stem": stem, "in_channels": in_channels,
                         "classes": CLASSES}
        fill(self, seed)


def fill(model, seed=0):
    """Random weights of which every part matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            noise = torch.randn(value.shape, generator=generator)
            if value.dim() > 1:
                value.copy_(noise * (1 if name == "fc.weight" else 2) ** 0.5 / value[0].numel() ** 0.5)
            elif name.endswith("running_var") or name.endswith("weight"):
                value.copy_((1 + 0.1 * noise).abs())
            elif value.is_floating_point():
                value.copy_(0.1 * noise)
    return model


def save_model(model, folder, **settings):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**model.settings, **settings}))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")


def write_settings(folder, output, settings):
    """A configuration with what all these runs have in common; those of `settings` go before."""
    config = {
        "run": {"output_dir": str(folder / output), "threads": 1, "deadline_seconds": 20, "device": "cpu"},
        "model": {"path": str(folder / "base"), "dtype": "fp32"},
        "adapter": {"type": "full"},
        "data": {"train": str(folder / "train.h5"), "validation": str(folder / "validation.h5"), "shuffle": False},
        "batch": {"global": 8, "micro": 8},
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": MOMENTUM, "clip_norm": 0},
        "schedule": {"name": "constant", "warmup": "0 samples"},
        "budget": "50 steps",
    }
    for section, values in settings.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    path = folder / f"{output}.yaml"
    write_config(path, config)
    return path


def make_optimizer(parameters, name, lr, decay):
    """Weights of one dimension do not decay."""
    groups = [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
              {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0}]
    return torch.optim.AdamW(groups, lr=lr) if name == "adamw" else torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM)


class Margin:
    """How near to zero any ReLU of a model comes: where rounding decides on which side it is, two sound trainings part for
    good, and comparing them proves nothing."""

    def __init__(self, model):
        self.least = float("inf")
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(self._look)

    def _look(self, _, inputs):
        self.least = min(self.least, inputs[0].detach().abs().min().item())


def train(model, pixels, labels, steps, batch=8, name="sgd", lr=0.02, decay=0.0, smoothing=0.0):
    """(losses, norms of gradients, shares of correct answers) of a loop over batches in order."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(parameters, name, lr, decay)
    losses, norms, shares = [], [], []
    for step in range(steps):
        rows = torch.arange(step * batch, (step + 1) * batch) % len(labels)
        logits = model(pixels[rows])
        loss = nn.functional.cross_entropy(logits, labels[rows], label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.sqrt(sum((p.grad.double() ** 2).sum() for p in parameters)).item())
        optimizer.step()
        losses.append(loss.item())
        shares.append((logits.argmax(1) == labels[rows]).double().mean().item())
    return losses, norms, shares


def evaluate(model, pixels, labels):
    """(loss, share of correct answers) as validation has them."""
    model.eval()
    with torch.no_grad():
        logits = model(pixels)
    return (nn.functional.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).double().mean().item())
