"""What a configuration says about preparing pictures, as options of prepare_images.py, and where the results go."""

import dataclasses
import os
import re
from importlib import util
from pathlib import Path

from lorascale_captions import layouts, vocabulary
from lorascale_data.errors import BAD_INPUT, CANNOT_WRITE, USAGE, PrepareError

from . import buckets
from .document import BAD_CONFIG, text

MODEL = ("base_model", "base_model_path", "model_name_or_path", "pretrained_model_name_or_path", "model.path")
PICTURES, OUTPUT = ("train_data_dir", "data.train"), ("output_dir", "run.output_dir")


@dataclasses.dataclass(frozen=True)
class Settings:
    pictures: Path
    source: Path  # of prepare_images.py: the folder, or the table in it
    regularisation: Path | None
    extension: str
    tokenizer: Path  # a folder of several or one of them, or a file
    run: Path
    data: Path  # beside the run's folder
    name: str  # of the LoRA's file, without its extension
    options: tuple[str, ...]  # of prepare_images.py
    trainer: tuple[str, ...]  # KEY=VALUE that the trainer needs beside the configuration
    left: str  # which keys are not there, and what that means


def read(document, tokenizer=None):
    """The Settings of a Document. `tokenizer`: the path that the command line gives."""
    for name in ("in_json", "dataset_config"):
        given = document.find(name)
        if given is not None:
            raise given.refused(
                "not read: write train_data_dir, and captions into metadata.csv (file_name,text) there or beside each "
                "picture"
            )
    pictures = _folder_of(document.find(*PICTURES), "train_data_dir", document)
    table = _table_of(document.find("metadata_path"), pictures)
    regularisation = document.find("reg_data_dir")
    regularisation = regularisation and _folder_of(regularisation, "reg_data_dir", document)
    model = _model_of(document)
    of_prompts = text(document.find("model.tokenizer"), "path")
    words = _tokenizer_of(model, tokenizer or of_prompts)
    run = _run_of(document)
    data = run.with_name(run.name + "-data")
    for folder in filter(None, (pictures, regularisation)):
        for place in (run, data):
            if place.resolve().is_relative_to(folder.resolve()):
                raise PrepareError(
                    BAD_CONFIG, f"{document.path}: output_dir {run} lies among the pictures of {folder}, choose another"
                )
    extension = text(document.find("caption_extension"), "extension") or layouts.Reading.extension
    if not re.fullmatch(r"\.[^/]+", extension):
        raise document.find("caption_extension").refused("no extension, such as .txt")
    options = ["--model", str(model)] if words is None else ["--tokenizer", str(words)]
    options += ["--caption-extension", extension, *buckets.options(document)]
    if regularisation is not None:
        options += ["--regularisation", str(regularisation)]
    # A folder has its tokenizers in it; where the model is one file, sampled prompts need one, too.
    trainer = () if words is None or of_prompts else (f"model.tokenizer={words}",)
    source = table if table is not None and table.name not in layouts.METADATA else pictures
    return Settings(pictures, source, regularisation, extension, words or model, run, data, _name_of(document, run),
                    tuple(options), trainer, buckets.left(document))  # fmt: skip


def _folder_of(given, name, document):
    if given is None:
        raise PrepareError(BAD_CONFIG, f"{document.path}: {name} is missing; write the folder of the pictures")
    path = Path(text(given, "path"))
    if path.is_file():
        raise PrepareError(BAD_INPUT, f"{given.spelled} {path}: is a file; name the folder of the pictures")
    if not path.is_dir():
        raise PrepareError(BAD_INPUT, f"{given.spelled} {path}: there is no such folder, check the path")
    return path


def _table_of(given, pictures):
    if given is None:
        return None
    path = Path(text(given, "path"))
    if not path.is_file():
        raise PrepareError(BAD_INPUT, f"{given.spelled} {path}: there is no such file, check the path")
    if path.resolve().parent != pictures.resolve():
        raise PrepareError(
            BAD_INPUT, f"{given.spelled} {path}: names files relative to its folder; move it to {pictures}"
        )
    return path


def _model_of(document):
    given = document.find(*MODEL)
    if given is None:
        raise PrepareError(BAD_CONFIG, f"{document.path}: base_model is missing; write the model's folder or file")
    path = Path(text(given, "path"))
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise PrepareError(
                BAD_INPUT, f"{given.spelled} {path}: holds no model_index.json, so it is no folder in diffusers' form"
            )
    elif not path.is_file():
        raise PrepareError(
            BAD_INPUT, f"{given.spelled} {path}: there is no such file or folder, check the path; nothing is downloaded"
        )
    elif path.suffix != ".safetensors":
        raise PrepareError(
            BAD_INPUT, f"{given.spelled} {path}: is no .safetensors file, and other forms are not read; convert it"
        )
    return path


def _tokenizer_of(model, chosen):
    """Of a model of one file; None where the model is a folder, which has its own."""
    if model.is_dir():
        if chosen is not None:
            raise PrepareError(
                USAGE, f"--tokenizer (model.tokenizer) is for a model of one file, and {model} is a folder"
            )
        return None
    path = _installed() if chosen is None else Path(chosen)
    if path is None:
        raise PrepareError(
            BAD_INPUT,
            f"{model} is one file and holds no tokenizer: --tokenizer PATH names CLIP's, a tokenizer's folder or "
            f"{vocabulary.BPE_FILE} of the package open_clip_torch",
        )
    vocabulary.read(path)  # refuses what is none
    return path


def _installed():
    """CLIP's file in a package that has it."""
    for package in ("open_clip", "clip"):
        found = util.find_spec(package)
        for folder in (found.submodule_search_locations or ()) if found else ():
            if (path := Path(folder) / vocabulary.BPE_FILE).is_file():
                return path
    return None


def _run_of(document):
    given = document.find(*OUTPUT)
    if given is None:
        raise PrepareError(BAD_CONFIG, f"{document.path}: output_dir is missing; write the folder of the results")
    path = Path(os.path.normpath(text(given, "path")))
    if path.name in ("", ".."):
        raise given.refused("no folder of its own, as output/my_lora is")
    if path.exists() and not path.is_dir():
        raise PrepareError(CANNOT_WRITE, f"{given.spelled} {path}: is no folder, choose another")
    return path


def _name_of(document, run):
    given = document.find("output_name")
    name = text(given, "name") or run.name
    if "/" in name or name.startswith("."):
        raise given.refused("no name of a file; write output_name: my_lora")
    return name
