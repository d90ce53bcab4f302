"""safetensors files without torch, digests of them, and the distances that checks are made of."""
import hashlib
import json
import math
import pathlib

import numpy as np


def load(path: pathlib.Path):
    """{name: float32 array}. Knows the types that lorascale writes: F32, F16 and BF16."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin:8 + size + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
        found[name] = values.reshape(entry["shape"])
    return found


def load_folder(folder: pathlib.Path):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load(path)
    if not found:
        raise FileNotFoundError(f"{folder} holds no .safetensors file")
    return found


def digest(folder: pathlib.Path):
    """Of all tensors of a folder, bit for bit; the order of files and their headers do not count."""
    total = hashlib.sha256()
    for name, values in sorted(load_folder(folder).items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def relative(actual, expected):
    """|a - e| / |e|: 0 where both are 0, infinite where something is not a number."""
    a, e = (np.asarray(x, dtype=np.float64).ravel() for x in (actual, expected))
    if a.shape != e.shape or not np.isfinite(a).all() or not np.isfinite(e).all():
        return math.inf
    norm = float(np.linalg.norm(e))
    distance = float(np.linalg.norm(a - e))
    return distance / norm if norm > 0 else (0.0 if distance == 0 else math.inf)


def cosine(actual, expected):
    a, e = (np.asarray(x, dtype=np.float64).ravel() for x in (actual, expected))
    norm = float(np.linalg.norm(a) * np.linalg.norm(e))
    value = float(a @ e) / norm if norm > 0 else 0.0
    return value if math.isfinite(value) else -1.0


def worst_relative(actual: dict, expected: dict):
    """The largest relative distance over all tensors; infinite where their names differ."""
    if set(actual) != set(expected):
        return math.inf
    return max(relative(actual[name], expected[name]) for name in expected)


def worst_cosine(actual: dict, expected: dict):
    if set(actual) != set(expected):
        return -1.0
    return min(cosine(actual[name], expected[name]) for name in expected)


def differences(after: dict, before: dict):
    """before - after: the gradient that an SGD update of rate 1 has subtracted."""
    return {name: before[name].astype(np.float64) - after[name] for name in after}
