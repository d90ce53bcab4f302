"""The runs that the CPU does beforehand (material.py) and the GPU does on the day: configurations alone."""
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCABULARY = 512
ROW = 160
UPDATES = 5
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
PROMPT_TEXT = "pi"  # what train.h5 calls it

# name -> what differs from `base`
PARITY = {
    "packed rows": {},
    "one document a row": {"data": {"packing": False}},
    "dropout": {"adapter": {"dropout": 0.1}},
    "recompute": {"model": {"recompute": True}},
    "q and k norms": {"model": {"path": "qwen3"}},
    "window": {"model": {"path": "mistral"}},
    "label smoothing": {"loss": {"label_smoothing": 0.1}},
    "a leaf without targets": {"data": {"train": "masked.h5", "packing": False}, "batch": {"micro": 1}},
    "full training": {"adapter": {"type": "full"}},
}
# What one update's gradient is read off: before - after.
GRADIENT = {"optimizer": {"name": "sgd", "lr": 1.0, "clip_norm": 0.0, "weight_decay": 0.0}, "budget": "1 steps"}

RULES = {
    "adamw": {"optimizer": {"name": "adamw", "lr": 3e-3}},
    "sgd": {"optimizer": {"name": "sgd", "lr": 0.3, "momentum": 0.9}},
    "lamb": {"optimizer": {"name": "lamb", "lr": 1e-2}},
    "lars": {"optimizer": {"name": "lars", "lr": 3.0}},
    "ema": {"average": {"name": "ema", "half_life": "2 steps"}},
    "swa": {"average": {"name": "swa", "start": "2 steps"}},
    "a skipped update": {"faults": ["nan step=2 phase=backward"]},
}
VALIDATED = {"evaluate": {"every": "2 steps"}, "data": {"validation": "validation.h5"}}


def merged(*settings):
    """Later ones win, section by section."""
    result = {}
    for each in settings:
        for key, value in each.items():
            result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def base(material, *changes):
    """A configuration of small runs; the paths in it are names of files in `material`."""
    settings = merged({
        "run": {"threads": 1},
        "model": {"path": "llama", "dtype": "fp32"},
        "adapter": {"rank": 4, "alpha": 8, "targets": LINEARS},
        "data": {"train": "train.h5", "sequence_length": ROW, "packing": True, "shuffle": False},
        "batch": {"global": 4, "micro": 2},
        "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.01},
        "schedule": {"name": "constant", "warmup": 0},
        "checkpoint": {"every": 0},
        "advice": False,
        "budget": f"{UPDATES} steps",
    }, *changes)
    if settings["adapter"].get("type") == "full":
        settings["adapter"] = {"type": "full"}
    else:
        settings["adapter"]["init_from"] = str(material / f"{settings['model']['path']}-adapter")
    settings["model"]["path"] = str(material / settings["model"]["path"])
    for key in ("train", "validation"):
        if key in settings["data"]:
            settings["data"][key] = str(material / settings["data"][key])
    return settings


def result_of(folder, settings):
    """Where a run leaves its weights."""
    return folder / ("model" if settings["adapter"].get("type") == "full" else "adapter")


def key_of(name, kind):
    return f"{kind}-{name.replace(' ', '-')}"
