"""LoRA files for pictures in the hands of other programs: what each layer changes there is what it changes here. Their
packages are scripts/requirements-readers.txt, in a folder of their own; scripts/test.sh --readers runs this."""
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import diffusion_reference as reference
import pytest
import safetensors
import safetensors.torch
import thin_model
import yaml
from reference import run

pytestmark = pytest.mark.readers
HERE = pathlib.Path(__file__).resolve().parent
READERS = ["diffusers", "comfylib", "lycoris"]
KNOW_DORA = ["lycoris"]
CASES = {
    "attention": {"rank": 4, "alpha": 4, "targets": r"^unet\..*(to_[qkv]|to_out\.0)$"},
    "text-encoder": {"rank": 4, "alpha": 1},  # and all transformers of the UNet
    "convolutions": {"rank": 4, "alpha": 2, "targets": "all-layers", "rank_pattern": {"conv1": 2, "^unet.mid_block.*to_q": 6}},
    "dora": {"rank": 4, "alpha": 2, "targets": "all-layers", "dora": True},
}
LAYERS = {"attention": 16 * 8, "text-encoder": 192 + 18, "convolutions": 192 + 18 + 85, "dora": 192 + 18 + 85}


@pytest.fixture(scope="session")
def packages():
    """The folder with them, beside the Python environment. Without what they depend on: what of that is asked for is there."""
    wanted = reference.ROOT / "scripts/requirements-readers.txt"
    folder = pathlib.Path(sys.prefix).parent / f"readers-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                            "--target", f"{made}/site", "--requirement", wanted], check=True)
            os.rename(f"{made}/site", folder)
    return folder


@pytest.fixture(scope="module")
def world(program, tmp_path_factory):
    """A folder with the model, and CASE.safetensors and CASE-merged of each case."""
    folder = tmp_path_factory.mktemp("readers")
    thin_model.make(folder / "model")
    reference.prepare(reference.make_pictures(folder / "pictures", [(64, 64)] * 2), folder / "model", folder / "train.h5",
                      "--resolution", "64")
    for case, adapter in CASES.items():
        (folder / "run.yaml").write_text(yaml.safe_dump({
            "run": {"output_dir": str(folder / case), "threads": 1, "device": "cpu"},
            "model": {"path": str(folder / "model"), "dtype": "fp32"}, "adapter": adapter,
            "data": {"train": str(folder / "train.h5")}, "batch": {"global": 2}, "budget": "3 steps",
            "optimizer": {"lr": 2e-2}, "schedule": {"name": "constant", "warmup": 0}}))
        run(program, "train", folder / "run.yaml")
        (folder / case / "adapter/lora.safetensors").rename(folder / f"{case}.safetensors")
    with safetensors.safe_open(folder / "convolutions.safetensors", "pt") as file:  # as people shrink them
        safetensors.torch.save_file({key: file.get_tensor(key).bfloat16() for key in file.keys()},
                                    folder / "bf16.safetensors", file.metadata())
    for case in [*CASES, "bf16"]:
        run(program, "merge", "--model", folder / "model", "--adapter", folder / f"{case}.safetensors",
            "--output", folder / f"{case}-merged")
    return folder


@pytest.fixture(scope="module", params=READERS)
def reading(request, packages, world):
    """(reader, {case: changes}, what it said)"""
    files = {case: world / f"{request.param}-{case}.safetensors" for case in [*CASES, "bf16"]}
    command = [sys.executable, HERE / "read_with.py", request.param, world / "model"]
    for case, file in files.items():
        command += [world / f"{case}.safetensors", file]
    paths = [str(packages), str(HERE), str(HERE.parent / "parity")]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return request.param, {case: safetensors.torch.load_file(file) for case, file in files.items()}, done.stdout


def require_equal(changes, expected):
    assert changes.keys() == expected.keys()
    for module, change in expected.items():
        assert change.norm() > 0, module
        assert (changes[module] - change).norm() / change.norm() < 1e-5, module


@pytest.mark.parametrize("case", [*CASES, "bf16"])
def test_merge_adds_what_the_file_says(world, case):
    """What the readers are compared with is what this program makes of the file."""
    expected = thin_model.changes(world / "model", world / f"{case}.safetensors")
    assert len(expected) == LAYERS[case if case != "bf16" else "convolutions"]
    before, after = (thin_model.weights(folder) for folder in (world / "model", world / f"{case}-merged"))
    require_equal({module: after[module] - before[module] for module in expected}, expected)
    assert all(after[module].equal(before[module]) for module in before.keys() - expected.keys())


def test_layers_have_ranks_and_alphas_of_their_own(world):
    """So the cases are what they are called."""
    tensors = safetensors.torch.load_file(world / "convolutions.safetensors")
    ranks = {name: len(tensor) for name, tensor in tensors.items() if name.endswith("lora_down.weight")}
    assert set(ranks.values()) == {2, 4, 6}
    assert {tensors[name.replace("lora_down.weight", "alpha")].item() / rank for name, rank in ranks.items()} == {1, 0.5, 1 / 3}
    assert {tensor.shape[2:] for name, tensor in tensors.items() if name in ranks and tensor.dim() == 4} == {(1, 1), (3, 3)}


@pytest.mark.parametrize("case", ["attention", "text-encoder", "convolutions", "bf16"])
def test_each_layer_changes_as_in_this_program(world, reading, case):
    reader, changes, said = reading
    require_equal(changes[case], thin_model.changes(world / "model", world / f"{case}.safetensors"))
    assert {name.rsplit(".", 1)[1] for name in re.findall("lora key not loaded (.*)", said)} <= {"dora_scale"}


def test_what_is_made_of_dora(world, reading):
    """Where the lengths are not known, the factors are taken as those of a LoRA."""
    reader, changes, _ = reading
    expected = thin_model.changes(world / "model", world / "dora.safetensors", lengths=reader in KNOW_DORA)
    require_equal(changes["dora"], expected)
