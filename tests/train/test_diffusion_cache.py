"""Latents and captions that are kept on disk from run to run: filled once, by any number of ranks, noticed when what they
follow from changes, and never trusted where they are damaged."""
import shutil

import diffusion_reference as reference
import h5py
import pytest
import yaml
from harness import execute
from reference import metrics, run

SIZES = [(32, 32)] * 4 + [(48, 32)] * 2 + [(32, 64)]
CANNOT_WRITE = 73


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    reference.make_pipeline(folder / "model")
    reference.prepare(reference.make_pictures(folder / "train", SIZES), folder / "model", folder / "train.h5",
                      "--no-deduplicate")
    return folder


def settings(inputs, folder, model=None, **data):
    config = {
        "run": {"output_dir": str(folder / "run"), "threads": 1, "device": "cpu"},
        "model": {"path": str(model or inputs / "model"), "dtype": "fp32"},
        "adapter": {"rank": 2, "targets": "^unet.*to_q"},
        "data": {"train": str(inputs / "train.h5"), "augment": {"flip": True}, **data},
        "batch": {"global": 4, "micro": 2},
        "optimizer": {"lr": 1e-3},
        "budget": "4 steps",
    }
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def cache(program, path, ranks=1):
    return run(program, "cache", path, ranks=ranks).stdout


def parts(folder, kind):
    return sorted((folder / "cache").glob(f"{kind}-*/part-*.h5"))


def keys(files):
    found = []
    for file in files:
        with h5py.File(file) as part:
            text = part["keys"][...].tobytes().decode()
            assert len(part["offsets"]) == len(part["checks"]) + 1 == len(text) // 64 + 1
            found += [text[i:i + 64] for i in range(0, len(text), 64)]
    return found


def losses(folder):
    return [line["loss"] for line in metrics(folder / "run") if line["step"] > 0]


def test_filled_once_and_read_by_every_later_run(program, inputs, tmp_path):
    path = settings(inputs, tmp_path)
    captions = 5  # of seven pictures
    assert f"7 images, {2 * 7 + captions} values made now" in cache(program, path)
    assert len(keys(parts(tmp_path, "latents"))) == 14
    assert "7 images, 0 values made now" in cache(program, path)
    run(program, "train", path)
    assert len(keys(parts(tmp_path, "latents"))) == 14
    run(program, "train", settings(inputs, tmp_path / "without", cache={"enabled": False}))
    assert not (tmp_path / "without/cache").exists()
    assert losses(tmp_path) == losses(tmp_path / "without")  # to the last bit


def test_training_fills_it_by_itself(program, inputs, tmp_path):
    run(program, "train", settings(inputs, tmp_path))
    assert len(keys(parts(tmp_path, "latents"))) == 14
    assert "7 images, 0 values made now" in cache(program, tmp_path / "run.yaml")


def test_ranks_share_the_work(program, inputs, tmp_path):
    said = cache(program, settings(inputs, tmp_path), ranks=3)
    assert "7 images" in said
    found = keys(parts(tmp_path, "latents"))
    assert len(found) == len(set(found)) == 14
    assert len(parts(tmp_path, "latents")) == 3
    run(program, "train", tmp_path / "run.yaml", ranks=2)
    run(program, "train", settings(inputs, tmp_path / "without", cache={"enabled": False}), ranks=2)
    assert losses(tmp_path) == losses(tmp_path / "without")


def test_another_autoencoder_or_picture_is_noticed(program, inputs, tmp_path):
    cache(program, settings(inputs, tmp_path))
    model = tmp_path / "other-model"
    shutil.copytree(inputs / "model", model)
    pipeline = reference.diffusers.AutoencoderKL.from_pretrained(model / "vae")
    pipeline.quant_conv.bias.data += 0.5
    pipeline.save_pretrained(model / "vae")
    assert "7 images, 14 values made now" in cache(program, settings(inputs, tmp_path, model=model))
    # One picture becomes another of the same size, with the caption that it had.
    pictures = tmp_path / "train"
    shutil.copytree(inputs / "train", pictures)
    picture = reference.Image.open(pictures / "001.png")
    reference.Image.eval(picture, lambda value: 255 - value).save(pictures / "001.png")
    changed = reference.prepare(pictures, inputs / "model", tmp_path / "train.h5", "--no-deduplicate")
    path = settings(inputs, tmp_path, train=str(changed))
    assert "7 images, 2 values made now" in cache(program, path)


def test_what_is_damaged_is_made_again(program, inputs, tmp_path):
    path = settings(inputs, tmp_path)
    cache(program, path)
    (part,) = parts(tmp_path, "latents")
    with h5py.File(part, "r+") as file:
        file["values"][100] ^= 1
    said = run(program, "train", path).stderr
    assert "a value is damaged, and made again" in said
    run(program, "train", settings(inputs, tmp_path / "without", cache={"enabled": False}))
    assert losses(tmp_path) == losses(tmp_path / "without")
    part.write_bytes(part.read_bytes()[:1000])
    assert "7 images, 14 values made now" in cache(program, path)


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(program, inputs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = settings(inputs, tmp_path, cache={"folder": str(tmp_path / "file/cache")})
    done = execute([program, "train", str(path)])
    assert done.code == 0 and "are computed anew by each run" in done.stderr


def test_crops_by_chance_are_not_kept(program, inputs, tmp_path):
    path = settings(inputs, tmp_path, augment={"crop": True})
    assert "latents" not in cache(program, path)
    assert not parts(tmp_path, "latents") and len(parts(tmp_path, "captions")) == 1
