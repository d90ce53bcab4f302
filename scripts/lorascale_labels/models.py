"""What kind of model a folder holds, and loading it. Nothing is fetched, no code of the folder is run."""

import json
import os
import re
import warnings

from lorascale_data.errors import BAD_INPUT, USAGE, PrepareError

from .captions import digest

ARCHITECTURES = {"blip": "BlipForConditionalGeneration", "clip": "CLIPModel"}
_WANTED = "give the folder of a BLIP model for captions or of a whole CLIP model"


def kind_of(folder):
    """ "blip" or "clip", by the folder's config.json."""
    if not folder.is_dir():
        raise PrepareError(BAD_INPUT, f"--model {folder}: there is no such folder; nothing is downloaded, {_WANTED}")
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise PrepareError(BAD_INPUT, f"{path}: there is no such file, so this is no model; {_WANTED}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise PrepareError(BAD_INPUT, f"{path}: cannot be read ({str(error)[:80]}), fetch it again") from error
    config = config if isinstance(config, dict) else {}
    kind, names = config.get("model_type"), config.get("architectures")
    if kind not in ARCHITECTURES:
        raise PrepareError(BAD_INPUT, f"{path}: the model is of type {str(kind)[:40]}; {_WANTED}")
    if isinstance(names, list) and names and ARCHITECTURES[kind] not in names:
        raise PrepareError(BAD_INPUT, f"{path}: the model is a {str(names[0])[:60]}; {_WANTED}")
    return kind


def fingerprint(folder):
    """Another one where files of the model were changed; its weights are not read for it."""
    files = [entry for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith(".")]
    return digest(sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in files))


def device_of(name):
    import torch

    if name != "cpu" and torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        return "cuda"
    if name == "cuda":
        raise PrepareError(USAGE, "--device cuda: torch finds no GPU that it can use, give --device cpu")
    return "cpu"


def load(folder, kind, device):
    """(model, processor), in fp32."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    import transformers

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    processors = {"blip": transformers.BlipProcessor, "clip": transformers.CLIPProcessor}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            processor = processors[kind].from_pretrained(folder, local_files_only=True)
            model, info = getattr(transformers, ARCHITECTURES[kind]).from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:  # whatever missing and damaged files make the readers stumble over
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise PrepareError(BAD_INPUT, f"{folder}: cannot be loaded ({reason}); fetch the folder again") from error
    if info["missing_keys"]:
        raise PrepareError(
            BAD_INPUT,
            f"{folder}: lacks weights ({len(info['missing_keys'])}, such as {min(info['missing_keys'])}); {_WANTED}",
        )
    return model.eval().to(device), processor


def refusal(error, folder, device, batch):
    """What an error of the model's is to the user."""
    reason = " ".join(str(error).split())[:160]
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", reason):
        remedy = f"give --batch {batch // 2}" if batch > 1 else "give --device cpu or a smaller model"
        return PrepareError(USAGE, f"--batch {batch}: does not fit into the memory of {device}, {remedy}")
    return PrepareError(
        BAD_INPUT,
        f"{folder}: cannot work on pictures ({reason}); its files do not fit together, fetch the folder again",
    )
