"""What a picture LoRA's file says of the pictures that it learnt from, as WebUIs show it; and what `inspect` makes of such
words, true or not."""
import collections
import json

import diffusion_reference as reference
import pytest
import safetensors
import safetensors.torch
import yaml
from reference import run

CAPTIONS = ["a red Cat, on grass", "cat, dog,red sky", "", "Étude, red sky, ON grass, cat", "dog, " + "long " * 60]
SIZES = [(32, 32), (32, 64), (32, 32), (64, 32), (32, 32)]


@pytest.fixture(scope="module")
def lora(program, tmp_path_factory):
    """Five pictures shown three times, and two for regularisation."""
    folder = tmp_path_factory.mktemp("facts")
    reference.make_pipeline(folder / "model")
    reference.make_pictures(folder / "more", [(48, 48)] * 2, captions=["a dog, of others", "a cat"])
    for number, path in enumerate(sorted((folder / "more").glob("*.png"))):  # unlike those below
        path.with_suffix(".txt").write_text(["a dog, of others", "cat"][number])
    (folder / "more/metadata.csv").unlink()
    reference.prepare(reference.make_pictures(folder / "pictures", SIZES, CAPTIONS), folder / "model", folder / "cats.h5",
                      "--prefix", "sks", "--repeats", "3", "--regularisation", folder / "more")
    (folder / "run.yaml").write_text(yaml.safe_dump({
        "run": {"output_dir": str(folder / "run"), "threads": 1, "device": "cpu"},
        "model": {"path": str(folder / "model"), "dtype": "fp32"}, "adapter": {"rank": 1, "alpha": 1, "targets": ["to_q"]},
        "data": {"train": str(folder / "cats.h5")}, "batch": {"global": 2}, "optimizer": {"lr": 1e-3}, "budget": "1 step"}))
    run(program, "train", folder / "run.yaml")
    return folder / "run/adapter/lora.safetensors"


def metadata_of(path):
    with safetensors.safe_open(path, "np") as file:
        return file.metadata()


def test_tags_and_pictures_are_counted_as_sd_scripts_does(lora):
    told = metadata_of(lora)
    counts = collections.Counter()
    for caption in CAPTIONS:
        counts.update(tag.strip().lower() for tag in f"sks, {caption}".split(",") if 0 < len(tag.strip()) < 256)
    counts["Étude"] = counts.pop("étude")  # only A to Z become small
    tags = json.loads(told["ss_tag_frequency"])
    assert tags == {"cats": dict(counts)}
    assert list(tags["cats"].values()) == sorted(counts.values(), reverse=True)
    assert json.loads(told["ss_dataset_dirs"]) == {"cats": {"img_count": 5, "n_repeats": 3}}
    assert (told["ss_num_train_images"], told["ss_num_reg_images"]) == ("15", "2")
    buckets = json.loads(told["ss_bucket_info"])["buckets"].values()
    buckets = {tuple(bucket["resolution"]): bucket["count"] for bucket in buckets}
    sizes = {(bucket[0] > bucket[1]) - (bucket[0] < bucket[1]): count for bucket, count in buckets.items()}
    assert sizes == {1: 3, -1: 3, 0: 11} and (32, 32) in buckets  # width before height, with repeats


def test_inspect_shows_the_tags(program, lora):
    assert 'most used tags: "sks" 5, "cat" 2, "dog" 2, "on grass" 2, "red sky" 2, ' in run(program, "inspect", lora).stdout


@pytest.mark.parametrize("words", ["{", "[[[[[[[[", "None", '{"a": {"x": -1}}', '{"a": {"x": "<b>"}}',
                                   '{"a": {"' + "x" * 100_000 + '": 1}}'])
def test_words_that_are_no_tags_are_passed_over(program, lora, tmp_path, words):
    tensors = safetensors.torch.load_file(lora)
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", {**metadata_of(lora), "ss_tag_frequency": words})
    said = run(program, "inspect", tmp_path / "a.safetensors").stdout
    assert "most used tags" not in said and "lora_unet_mid_block_attentions_0" in said
