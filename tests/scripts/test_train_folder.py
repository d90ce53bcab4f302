"""From a folder of pictures and a configuration of another trainer's style to a file for WebUIs, end to end with tiny
models; that it does again only what has changed; and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import diffusion_reference as reference
import prepare_folder
import pytest
import safetensors
import yaml
from captioned import CaptionedFile, tokenizer_folder
from conftest import outcome_of
from pictures import noise, write_tree

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs/pictures-lora-scripts-style.yaml"
SMALL = {"resolution": 32, "bucket_reso_steps": 8, "lora_rank": 2, "batch_size": 2, "mixed_precision": "no",
         "max_train_steps": 2, "save_steps": 1}  # fmt: skip
BAD_INPUT, STOPPED, BAD_CONFIG = 65, 75, 78


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "sd15"
    reference.make_pipeline(folder)
    return folder


class Place:
    """A folder that the script is started in, to which all paths are relative."""

    def __init__(self, folder, program, model):
        self.folder, self.program = folder, str(Path(program).resolve())
        (folder / "sd15").symlink_to(model)
        self.run, self.data = folder / "output/cat", folder / "output/cat-data"

    def command(self, *arguments):
        return ["bash", ROOT / "scripts/train_folder.sh", *map(str, arguments)]

    @property
    def environment(self):
        return {**os.environ, "LORASCALE_PROGRAM": self.program, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

    def start(self, *arguments, code=0):
        done = subprocess.run(self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True,
                              text=True, timeout=240, check=False)  # fmt: skip
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
        return done

    def write(self, **keys):
        settings = {"train_data_dir": "pictures", "base_model": "sd15", "output_dir": "output/cat", **SMALL, **keys}
        settings = {key: value for key, value in settings.items() if value is not None}
        (self.folder / "lora.yaml").write_text(yaml.safe_dump(settings))

    def prepare(self, *arguments, config="lora.yaml"):
        """The preparation alone, in this process."""
        here = os.getcwd()
        os.chdir(self.folder)
        try:
            return outcome_of(prepare_folder.main, [config, *map(str, arguments)])
        finally:
            os.chdir(here)

    def prepared(self):
        return CaptionedFile(self.data / "train.h5")

    def metrics(self):
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]

    def times(self):
        files = {path: path.stat().st_mtime_ns for path in (self.folder / "output").rglob("*") if path.is_file()}
        return {path: when for path, when in files.items() if path.name.split(".")[0] not in ("report", "plan")}


def make_pictures(folder, header="filename,prompt"):
    reference.make_pictures(folder, [(32, 32)] * 4 + [(32, 48)] * 2)
    table = (folder / "metadata.csv").read_text().split("\n", 1)[1]
    (folder / "metadata.csv").write_text(f"{header}\n{table}")
    return folder


@pytest.fixture
def place(tmp_path, program, model):
    return Place(tmp_path, program, model)


@pytest.fixture
def pictures(place):
    make_pictures(place.folder / "pictures")
    place.write()
    return place


@pytest.fixture(scope="module")
def done(program, model, tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("folder"), program, model)
    make_pictures(place.folder / "pictures")
    place.write(output_name="my cat", metadata_path="pictures/metadata.csv", enable_bucket=True, keep_tokens=1,
                sample_prompts=["a red cat"], sample_every_n_steps=2)  # fmt: skip
    return place, place.start("lora.yaml", "--ranks", 2)


def names_in(file):
    with safetensors.safe_open(file, "pt") as opened:
        return list(opened.keys())


def test_from_a_folder_to_a_file_for_webuis(done):
    place, said = done
    data = place.prepared()
    assert data.captions[:2] == ["a red cat", "a dog, on grass"] and set(data.buckets) == {(32, 32), (24, 40)}
    names = names_in(place.run / "my cat.safetensors")
    assert {name.split("_")[1] for name in names} == {"unet", "te"}
    assert {name.split(".", 1)[1] for name in names} == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert place.metrics()[-1]["step"] == 2 and place.metrics()[-1]["world_size"] == 2
    assert (place.run / "report.html").is_file() and (place.run / "samples").is_dir()
    assert (place.data / "sheet.png").is_file() and list((place.folder / "output/cache").glob("latents-*/*.h5"))
    assert "<lora:my cat:0.8>" in said.stdout
    assert "not set, and so as lorascale has it: bucket_no_upscale true" in said.stdout


def test_again_it_does_nothing(done):
    place, _ = done
    before = place.times()
    said = place.start("lora.yaml", "--ranks", 2)
    assert "train.h5 (made before)" in said.stdout and "output/cat is finished" in said.stdout
    assert place.times() == before


def test_a_changed_caption_is_prepared_again(done):
    """What the run has learnt from other captions is not mixed with them: it goes on once they are back."""
    place, _ = done
    table, result = place.folder / "pictures/metadata.csv", (place.run / "my cat.safetensors").read_bytes()
    text = table.read_text()
    table.write_text(text.replace("a red cat", "a cat"))
    said = place.start("lora.yaml", "--ranks", 2, code=BAD_CONFIG)
    assert "preparing pictures again: metadata.csv changed" in said.stdout
    assert "is not the one it began with" in said.stderr
    assert place.prepared().captions[0] == "a cat"
    table.write_text(text)
    said = place.start("lora.yaml", "--ranks", 2)
    assert place.prepared().captions[0] == "a red cat"
    assert (place.run / "my cat.safetensors").read_bytes() == result
    assert place.metrics()[-1]["step"] == 2


def test_toml_of_kohya_with_a_model_of_one_file(program, tmp_path):
    """Under headings of its own, with values that are empty, as its GUIs write them; folders N_class."""
    reference.make_pipeline(tmp_path / "model", "sd1-file")
    reference.to_one_file(tmp_path / "model", tmp_path / "v1-5.safetensors")
    place = Place(tmp_path, program, tmp_path / "model")
    write_tree(tmp_path / "train", {"2_red cat/a.png": noise(1, 32, 32), "2_red cat/b.png": noise(2, 32, 32),
                                    "2_red cat/a.txt": b"a cat, red\n", "1_dog/c.png": noise(3, 32, 32),
                                    "2_red cat/a.npz": b"a cache of another trainer"})  # fmt: skip
    (tmp_path / "lora.toml").write_text("""
[model]
pretrained_model_name_or_path = "v1-5.safetensors"
vae = ""
[dataset]
train_data_dir = "train"
reg_data_dir = ""
resolution = "32,32"
enable_bucket = true
min_bucket_reso = 20
max_bucket_reso = 50
bucket_reso_steps = 8
caption_extension = ".txt"
shuffle_caption = true
[network]
network_module = "networks.lora"
network_dim = 2
network_alpha = 1.0
network_args = []
[training]
unet_lr = "0.0002"
text_encoder_lr = 0.0001
train_batch_size = 2
max_train_steps = 1
mixed_precision = "no"
sample_prompts = "a cat"
sample_every_n_steps = 1
xformers = true
save_model_as = "safetensors"
output_dir = "./output/cat"
output_name = ""
""")
    said = place.start("lora.toml", "--tokenizer", "model/tokenizer", "--set", "sample.steps=1")
    assert "output/cat-data/config.yaml is what the trainer reads of lora.toml" in said.stdout
    data = place.prepared()
    assert dict(zip(data.captions, data.repeats, strict=True)) == {"a cat, red": 2, "red cat": 2, "dog": 1}
    assert {name.split("_")[1] for name in names_in(place.run / "cat.safetensors")} == {"unet", "te"}


def test_the_preset_as_it_stands(program, model, tmp_path):
    """Its paths are relative to where it is started; pictures of 64 x 64 keep their size."""
    place = Place(tmp_path, program, model)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/stable-diffusion-v1-5").symlink_to(model)
    reference.make_pictures(tmp_path / "data/my_pictures", [(64, 64)] * 3)
    said = place.start(PRESET, "--set", "sample.steps=1", "--set", "budget=2 steps")
    assert names_in(tmp_path / "output/my_lora/my_lora.safetensors")
    assert "not set" not in said.stdout


@pytest.mark.slow
def test_a_model_writes_captions_where_there_are_none(place):
    from test_auto_label import make_blip

    make_blip(place.folder / "blip")
    write_tree(place.folder / "pictures", {f"{i}.png": noise(i, 32, 32) for i in range(3)})
    place.write()
    said = place.start("lora.yaml", "--label", "blip", "--prefix", "sks dog", "--plan")
    captions = place.prepared().captions
    assert len(captions) == 3 and all(caption.startswith("sks dog, ") for caption in captions)
    assert "read and mend pictures/metadata.csv" in said.stdout and "batch" in said.stdout
    assert not (place.run / "metrics.jsonl").exists()
    before = place.times()
    assert "(made before)" in place.start("lora.yaml", "--label", "blip", "--plan").stdout
    assert place.times() == before


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["group", "script"])
def test_a_stopped_training_goes_on(pictures, whom):
    """By Ctrl-C, which the whole group gets, or a request to the script alone."""
    pictures.write(max_train_steps=60, save_steps=4)
    with subprocess.Popen(pictures.command("lora.yaml"), cwd=pictures.folder, env=pictures.environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not list((pictures.run / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        (os.killpg if whom == "group" else os.kill)(process.pid, signal.SIGINT if whom == "group" else signal.SIGTERM)
        said = process.communicate(timeout=120)[0]
    assert process.returncode == STOPPED, said
    assert "run the same command again to go on" in said
    steps = pictures.metrics()[-1]["step"]
    assert 4 <= steps < 60
    pictures.start("lora.yaml")
    assert [line["step"] for line in pictures.metrics() if line["step"]] == list(range(1, 61))
    assert names_in(pictures.run / "cat.safetensors")


# --- what it takes, and what not: the preparation alone ---------------------------------------------------------------


def test_keys_are_options(pictures):
    reference.make_pictures(pictures.folder / "cats", [(40, 40)] * 2, ["a cat"])
    pictures.write(resolution="64, 32", min_bucket_reso=20, max_bucket_reso=90, bucket_no_upscale="no",
                   dataset_repeats=3, reg_data_dir="cats", random_crop="true", masked_loss=True)  # fmt: skip
    outcome = pictures.prepare()
    assert outcome.code == 0, outcome.err
    data = pictures.prepared()
    assert data.repeats == [3] * 6 + [1] * 2 and data.regularisation == [0] * 6 + [1] * 2 and data.channels == 4
    settings = json.loads(data.attributes["settings"])
    assert (settings["resolution"], settings["bucket_min"], settings["bucket_max"]) == ([64, 32], 16, 96)
    assert settings["upscale"] and settings["keep_margin"] and settings["masks"]


def test_without_buckets_every_picture_is_scaled(pictures):
    pictures.write(enable_bucket="False", resolution=[40, 40])
    assert pictures.prepare().code == 0
    assert set(pictures.prepared().buckets) == {(40, 40)}


def test_sections_other_keys_and_settings(pictures):
    """Nested keys, this trainer's own, and --set above them."""
    (pictures.folder / "nested.yaml").write_text(
        "model_config: {base_model: nowhere}\ndata_config: {train_data_dir: pictures, resolution: 32}\n"
        "dataset_config: {bucket_reso_steps: 8}\nrun: {output_dir: elsewhere}\n"
    )
    settings = ["--set", "model.path=sd15", "--set", "run.output_dir=a/b/"]
    outcome = pictures.prepare("--facts", *settings, config="nested.yaml")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == ["nested.yaml", "a/b", "a/b-data", "b", "pictures", "keep"]


def test_what_lies_beside_pictures_makes_nothing_anew(pictures):
    assert pictures.prepare().code == 0
    (pictures.folder / "pictures/notes.md").write_text("for me")
    (pictures.folder / "pictures/.hidden.png").write_text("")
    assert "(made before)" in pictures.prepare().out
    pictures.write(resolution=40)
    assert "again: other settings" in pictures.prepare().out
    (pictures.data / "train.h5").unlink()
    assert "preparing pictures\n" in pictures.prepare().out
    make_pictures(pictures.folder / "more")
    pictures.write(resolution=40, train_data_dir="more")
    assert "again: other pictures" in pictures.prepare().out


def refused(place, code, words, *arguments, config="lora.yaml"):
    for step in ([], ["--facts"]):
        outcome = place.prepare(*arguments, *step, config=config)
        assert outcome.code == code, outcome.err
        assert outcome.err.startswith("train_folder: ") and outcome.err.count("\n") == 1 and words in outcome.err
    assert not (place.folder / "output").exists()


@pytest.mark.parametrize(("key", "value", "words"), [
    ("resolution", "big", "lora.yaml: resolution: big is no size up to 8192, such as 512 or 512,768"),
    ("resolution", "512,", "resolution: 512, is no size"),
    ("resolution", {"a": 1}, "resolution: a map is no size"),
    ("resolution", [1, 2, 3], "resolution: a list is no size"),
    ("enable_bucket", "maybe", "enable_bucket: maybe is neither true nor false"),
    ("bucket_no_upscale", [True], "bucket_no_upscale: a list is neither true nor false"),
    ("random_crop", 2, "random_crop: 2 is neither true nor false"),
    ("bucket_reso_steps", "8.5", "bucket_reso_steps: 8.5 is no whole number from 1"),
    ("dataset_repeats", -1, "dataset_repeats: -1 is no whole number from 1"),
    ("caption_extension", "txt", "caption_extension: txt is no extension, such as .txt"),
    ("output_name", "a/b", "output_name: a/b is no name of a file"),
    ("output_dir", "..", "output_dir: .. is no folder of its own"),
    ("output_dir", "", "output_dir is missing"),
    ("output_dir", "pictures/lora", "lies among the pictures of pictures"),
    ("train_data_dir", None, "train_data_dir is missing"),
    ("base_model", "null", "base_model is missing"),
    ("in_json", "meta.json", "in_json: meta.json is not read"),
    ("base_model_path", "sd15", "base_model and base_model_path mean the same"),
])  # fmt: skip
def test_wrong_keys_cost_one_line(pictures, key, value, words):
    pictures.write(**{key: value})
    refused(pictures, BAD_CONFIG, words)


@pytest.mark.parametrize(("key", "value", "words"), [
    ("train_data_dir", "nowhere", "train_data_dir nowhere: there is no such folder"),
    ("train_data_dir", "lora.yaml", "is a file; name the folder of the pictures"),
    ("metadata_path", "pictures/captions.csv", "captions.csv: there is no such file"),
    ("metadata_path", "lora.yaml", "names files relative to its folder; move it to pictures"),
    ("base_model", "runwayml/stable-diffusion-v1-5", "nothing is downloaded"),
    ("base_model", "pictures", "holds no model_index.json"),
    ("base_model", "lora.yaml", "is no .safetensors file"),
    ("reg_data_dir", "nowhere", "reg_data_dir nowhere: there is no such folder"),
])  # fmt: skip
def test_what_is_not_there_costs_one_line(pictures, key, value, words):
    pictures.write(**{key: value})
    refused(pictures, BAD_INPUT, words)


@pytest.mark.parametrize(("name", "text", "code", "words"), [
    ("a.yaml", None, BAD_INPUT, "there is no such configuration"),
    ("a.yaml", "a: [1", BAD_CONFIG, "is no YAML ("),
    ("a.yaml", "- a\n", BAD_CONFIG, "is no configuration"),
    ("a.toml", "a = \n", BAD_CONFIG, "is no TOML ("),
    ("a.toml", '[a]\noutput_dir = "a"\n[b]\noutput_dir = "b"\ntrain_data_dir = "pictures"\nbase_model = "sd15"\n',
     BAD_CONFIG, "a.output_dir and b.output_dir mean the same"),
])  # fmt: skip
def test_no_configuration(pictures, name, text, code, words):
    if text is not None:
        (pictures.folder / name).write_text(text)
    refused(pictures, code, words, config=name)


def test_no_captions(pictures):
    (pictures.folder / "pictures/metadata.csv").unlink()
    refused(pictures, BAD_INPUT, "pictures: 6 pictures have no caption; --label MODEL_FOLDER has a model write them")
    (pictures.folder / "pictures/000.caption").write_text("a cat")
    refused(pictures, BAD_INPUT, "1 .caption files lie beside them, which caption_extension: .caption takes")
    pictures.write(caption_extension=".caption")
    assert pictures.prepare().code == 0
    assert pictures.prepared().captions == ["a cat", "", "", "", "", ""]


def test_when_a_model_may_write_captions(pictures):
    def to_label():
        outcome = pictures.prepare("--facts", "--label")
        return outcome.out.splitlines()[5] if outcome.code == 0 else outcome.err

    folder = pictures.folder / "pictures"
    assert to_label() == "label"  # the table may lack some
    (folder / "metadata.csv").rename(folder / "mine.csv")
    assert to_label() == "label"
    pictures.write(metadata_path="pictures/mine.csv")
    assert to_label() == "keep"
    pictures.write()
    (folder / "000.txt").write_text("a cat")
    assert to_label() == "keep"
    (folder / "2_cat").mkdir()
    assert "--label writes metadata.csv, which knows no folders N_class" in to_label()


def test_no_pictures(pictures):
    shutil.rmtree(pictures.folder / "pictures")
    (pictures.folder / "pictures").mkdir()
    refused(pictures, BAD_INPUT, "pictures: holds no picture")


def test_tokenizers_of_a_model_of_one_file(pictures):
    (pictures.folder / "v1-5.safetensors").write_bytes(b"")
    pictures.write(base_model="v1-5.safetensors")
    assert not [name for name in ("open_clip", "clip") if prepare_folder.settings.util.find_spec(name)]
    refused(pictures, BAD_INPUT, "v1-5.safetensors is one file and holds no tokenizer: --tokenizer PATH names CLIP's")
    refused(pictures, BAD_INPUT, "nowhere: there is no such file or folder", "--tokenizer", "nowhere")
    refused(pictures, BAD_INPUT, "pictures: holds neither vocab.json with merges.txt", "--tokenizer", "pictures")
    tokenizer_folder(pictures.folder / "clip")
    facts = pictures.prepare("--facts", "--tokenizer", "clip").out.splitlines()
    assert facts[6:] == ["model.tokenizer=clip"]
    facts = pictures.prepare("--facts", "--set", "model.tokenizer=clip").out.splitlines()
    assert facts[6:] == []
    pictures.write()
    refused(pictures, 64, "is for a model of one file, and sd15 is a folder", "--tokenizer", "clip")


def test_folders_of_others_are_left_alone(pictures):
    pictures.data.mkdir(parents=True)
    (pictures.data / "thesis.txt").write_text("thesis")
    outcome = pictures.prepare()
    assert outcome.code == 73 and "is not of this program's making" in outcome.err
    assert [path.name for path in pictures.data.iterdir()] == ["thesis.txt"]
    (pictures.data / "thesis.txt").unlink()
    assert pictures.prepare().code == 0
    pictures.run.mkdir()
    (pictures.run / "metrics.jsonl").write_text("")
    make_pictures(pictures.folder / "more")
    pictures.write(train_data_dir="more")
    outcome = pictures.prepare("--facts")
    assert outcome.code == BAD_CONFIG and "output/cat is of the pictures in" in outcome.err


def test_a_damaged_picture_leaves_what_was_there(pictures):
    assert pictures.prepare().code == 0
    before = (pictures.data / "train.h5").read_bytes()
    (pictures.folder / "pictures/000.png").write_bytes(b"no picture")
    outcome = pictures.prepare()
    assert outcome.code == BAD_INPUT and "000.png" in outcome.err
    assert (pictures.data / "train.h5").read_bytes() == before
    assert pictures.prepare().code == BAD_INPUT


# --- the script -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "code", "words"), [
    ([], 64, "which CONFIG?"),
    (["--what", "lora.yaml"], 64, "unknown argument '--what'"),
    (["lora.yaml", "--ranks"], 64, "--ranks needs a value"),
    (["lora.yaml", "--ranks", "0"], 64, "whole number from 1"),
    (["lora.yaml", "other.yaml"], 64, "one CONFIG at a time"),
    (["lora.yaml", "--prefix", "sks"], 64, "--prefix is for the captions that --label writes"),
    (["lora.yaml", "--set", "data.train=x"], 64, "train_data_dir of CONFIG says what is trained on"),
    (["nowhere.yaml"], BAD_INPUT, "nowhere.yaml: there is no such configuration"),
    (["lora.yaml"], BAD_INPUT, "train_data_dir pictures: there is no such folder"),
])  # fmt: skip
def test_wrong_usage_costs_one_line(place, arguments, code, words):
    place.write()
    said = place.start(*arguments, code=code)
    assert said.stderr.startswith("train_folder: ") and words in said.stderr and said.stderr.count("\n") == 1
    assert said.stdout == "" and not (place.folder / "output").exists()


def test_wrong_settings_are_told_before_pictures_are_prepared(pictures):
    pictures.write(optimizer="AdamW8bit")
    said = pictures.start("lora.yaml", code=BAD_CONFIG)
    assert "optimizer state is not quantised" in said.stderr
    assert said.stderr.endswith("train_folder: lora.yaml does not fit, see above; nothing was prepared\n")
    assert not (pictures.folder / "output").exists()


def test_help_names_every_option():
    line = ["bash", ROOT / "scripts/train_folder.sh", "--help"]
    said = subprocess.run(line, capture_output=True, text=True, check=True)
    options = ("CONFIG", "--ranks", "--label", "--prefix", "--tokenizer", "--set", "--plan")
    assert all(option in said.stdout for option in options)
    assert "set -e" not in said.stdout and "shellcheck" not in said.stdout
