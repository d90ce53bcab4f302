"""The training loss of models that make pictures, and what LoRA learns by it, beside diffusers, transformers and peft fed
the same latents, captions, noise and times."""
import json
import subprocess

import peft
import pytest
import safetensors.torch
import torch
import yaml

import diffusion_reference as reference
from reference import metrics

SIZES = [(40, 32), (32, 32), (32, 40), (33, 47), (64, 64), (48, 32)]


def write(folder, **more):
    config = {
        "run": {"output_dir": str(folder / "run"), "threads": 1, "device": "cpu"},
        "model": {"path": str(folder / "model"), "dtype": "fp32"},
        "adapter": {"rank": 3, "alpha": 2},
        "data": {"train": str(folder / "train.h5"), "shuffle": False},
        "batch": {"global": len(SIZES), "micro": 3},
        "optimizer": {"name": "sgd", "lr": 1e-9},
        "schedule": {"name": "constant", "warmup": 0},
        "budget": "1 steps",
    }
    for section, values in more.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def train(program, config):
    done = subprocess.run([program, "train", str(config)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def world(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind)
    model = reference.make_pipeline(folder / "model", kind, "v" if kind == "sd2" else "epsilon")
    reference.prepare(reference.make_pictures(folder / "pictures", SIZES), folder / "model", folder / "train.h5")
    return folder, model, reference.Pictures(folder / "train.h5")


def test_the_loss_is_that_of_diffusers(program, world):
    folder, model, pictures = world
    train(program, write(folder, run={"output_dir": str(folder / "loss")}))
    with torch.no_grad():
        expected = [reference.sample_loss(model, pictures, i)[0].item() for i in range(len(pictures))]
    assert metrics(folder / "loss")[0]["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
