"""A small network that tells which noun a picture shows, and whether in ink, also where the picture is far from
perfect: it learns from pictures that are moved, bent, blurred and noisy."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import judge_material
import safetensors.torch
import torch
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Settings:
    layers: tuple = ((24, 2), (48, 2), (48, 1), (96, 2), (96, 1), (192, 2), (64, 1))  # (channels, stride)
    updates: int = 1200
    batch: int = 64
    ink: float = 0.35  # share of drawings in training: of each noun there is one, and a dozen other looks
    lr: float = 4e-3
    seed: int = 0


class Judge(torch.nn.Module):
    """[n, 3, size, size] in 0 to 1 -> (scores of the nouns [n, nouns], score of ink [n]). What is where counts: all
    pictures are as large as their square, or small on purpose."""

    def __init__(self, nouns, size, layers):
        super().__init__()
        body, before = [], 3
        for after, stride in layers:
            convolution = torch.nn.Conv2d(before, after, 3, stride, 1, bias=False)
            body += [convolution, torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
            before, size = after, -(-size // stride)
        self.body = torch.nn.Sequential(*body, torch.nn.Flatten())
        self.noun, self.ink = (torch.nn.Linear(before * size * size, wide) for wide in (nouns, 1))

    def forward(self, pictures):
        seen = self.body(2 * pictures - 1)
        return self.noun(seen), self.ink(seen)[:, 0]


def distorted(pictures, generator):
    """As imperfect as what a small model makes: each picture in its own way."""
    count, _, size, _ = pictures.shape

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(count, *(shape or (1, 1, 1)), generator=generator)

    angle, scale = uniform(-0.15, 0.15)[:, 0, 0, 0], uniform(0.85, 1.2)[:, 0, 0, 0]
    mirror = torch.where(uniform(0, 1)[:, 0, 0, 0] < 0.5, -1.0, 1.0)
    rows = torch.stack([mirror * scale * angle.cos(), -scale * angle.sin(), mirror * scale * angle.sin(),
                        scale * angle.cos()], 1).reshape(-1, 2, 2)  # fmt: skip
    rows = torch.cat([rows, uniform(-0.12, 0.12, 2, 1)], 2)
    places = functional.affine_grid(rows, pictures.shape, align_corners=False)
    bends = functional.interpolate(uniform(-0.1, 0.1, 2, 5, 5), size=(size, size), mode="bicubic")
    places = places + bends.permute(0, 2, 3, 1)
    moved = functional.grid_sample(pictures, places, padding_mode="border", align_corners=False)
    soft = moved + uniform(0, 1) * (blurred(moved) - moved)
    lit = (soft - 0.5) * uniform(0.7, 1.2) + 0.5 + uniform(-0.1, 0.1)
    noisy = lit + uniform(0, 0.1) * torch.randn(lit.shape, generator=generator)
    return patched(noisy, uniform).clamp(0, 1)


def blurred(pictures):
    weights = torch.exp(-0.5 * (torch.arange(-3, 4) / 1.3) ** 2)
    kernel = (weights / weights.sum()).expand(3, 1, 1, 7)
    pictures = functional.pad(pictures, (3, 3, 3, 3), mode="replicate")
    return functional.conv2d(functional.conv2d(pictures, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def patched(pictures, uniform):
    """Every other picture lacks a part, which has the colour of its corner."""
    size = pictures.shape[2]
    along = torch.arange(size) / size
    half = uniform(-0.15, 0.15)
    inside = ((along.reshape(1, 1, -1, 1) - uniform(0, 1)).abs() < half) & ((along - uniform(0, 1)).abs() < half)
    return torch.where(inside, pictures[:, :, :1, :1], pictures)


def train(material, settings, say):
    """(the judge, {what: how well it tells pictures that it did not learn from})."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    learned = [shown for shown in material.pictures if not shown.kept]
    pixels = shown_in([shown.path for shown in learned], material.size)
    nouns = torch.tensor([shown.noun for shown in learned])
    ink = torch.tensor([shown.ink for shown in learned])
    weights = torch.where(ink, settings.ink / ink.sum(), (1 - settings.ink) / (~ink).sum())
    judge = Judge(len(material.nouns), material.size, settings.layers)
    optimizer = torch.optim.AdamW(judge.parameters(), settings.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=settings.updates)
    for update in range(1, settings.updates + 1):
        batch = torch.multinomial(weights, settings.batch, replacement=True, generator=generator)
        scores, ink_score = judge(distorted(pixels[batch] / 255, generator))
        loss = functional.cross_entropy(scores, nouns[batch], label_smoothing=0.1)
        loss = loss + functional.binary_cross_entropy_with_logits(ink_score, ink[batch].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if update % 100 == 0 or update == settings.updates:
            say(f"learning to judge, update {update} of {settings.updates}: loss {loss.item():.2f}")
    return judge.eval(), accuracies(judge.eval(), material)


def shown_in(paths, size):
    return torch.from_numpy(judge_material.pixels_of(paths, size))


def accuracies(judge, material):
    """{"colour" or "ink": [pictures, first, among the likeliest, ink told right], each whole and distorted}."""
    found = {}
    for name, is_ink in (("colour", False), ("ink", True)):
        kept = [shown for shown in material.pictures if shown.kept and shown.ink == is_ink]
        if not kept:
            continue
        pictures = shown_in([shown.path for shown in kept], material.size) / 255
        nouns = torch.tensor([shown.noun for shown in kept])
        for way, seen in (("whole", pictures), ("distorted", distorted(pictures, torch.Generator().manual_seed(1)))):
            shares, ink = told(judge, seen)
            ranks = ranks_of(shares, nouns)
            shares_right = [ranks < 1, ranks < judge_material.KEPT, (ink > 0.5) == is_ink]
            found[f"{name}, {way}"] = [len(kept), *(float(right.double().mean()) for right in shares_right)]
    return found


@torch.no_grad()
def told(judge, pictures):
    """(probability of each noun [n, nouns], of ink [n])."""
    parts = [judge(part) for part in pictures.split(256)]
    return torch.cat([nouns for nouns, _ in parts]).softmax(1), torch.cat([ink for _, ink in parts]).sigmoid()


def ranks_of(shares, nouns):
    """How many nouns are likelier than the one asked for."""
    return (shares > shares.gather(1, nouns[:, None])).sum(1)


def trained(material, folder, settings, say):
    """The judge of this material, from `folder` where it was trained before."""
    source = b"".join((Path(__file__).parent / name).read_bytes() for name in ("judge_network.py", "judge_material.py"))
    told_apart = f"{material.digest()} {dataclasses.astuple(settings)} {torch.__version__}".encode()
    path = folder / f"{hashlib.sha256(told_apart + source).hexdigest()[:16]}.safetensors"
    if path.exists():
        with safetensors.safe_open(path, "pt") as file:
            accuracy = json.loads(file.metadata()["accuracy"])
        judge = Judge(len(material.nouns), material.size, settings.layers)
        judge.load_state_dict(safetensors.torch.load_file(path))
        return judge.eval(), accuracy
    judge, accuracy = train(material, settings, say)
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        safetensors.torch.save_file(judge.state_dict(), partial, {"accuracy": json.dumps(accuracy)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return judge, accuracy


def judged(judge, paths, nouns, size):
    """[(rank of the noun asked for, likeliest noun, its share, probability of ink)]; `nouns` as their numbers."""
    shares, ink = told(judge, shown_in(paths, size) / 255)
    ranks, likeliest = ranks_of(shares, torch.tensor(nouns)), shares.max(1)
    return list(zip(ranks.tolist(), likeliest.indices.tolist(), likeliest.values.tolist(), ink.tolist(), strict=True))
