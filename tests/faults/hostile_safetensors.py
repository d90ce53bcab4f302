"""Ways to spoil a safetensors file, a sharded model and config.json. Each takes the model's folder; SAFETENSORS,
SHARDS and MODEL_CONFIG pair each with words of the message it must meet."""
import json
import struct

import numpy as np
from safetensors.numpy import load_file, save_file

FILE = "model.safetensors"


def read(folder):
    data = (folder / FILE).read_bytes()
    length, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + length]), data[8 + length:]


def write(folder, header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / FILE).write_bytes(struct.pack("<Q", len(text)) + text + body)


def raw(data):
    return lambda folder: (folder / FILE).write_bytes(data)


def header_text(text, body=b"\0" * 16):
    """A file with this header and nothing else that is right."""
    return lambda folder: write(folder, text if isinstance(text, bytes) else text.encode(), body)


def entry(**change):
    """The file as it was, with one entry of its header changed; a value of ... removes the field."""
    def spoil(folder):
        header, body = read(folder)
        target = header["model.norm.weight"]
        for key, value in change.items():
            if value is ...:
                del target[key]
            else:
                target[key] = value
        write(folder, header, body)
    return spoil


def tensors(change):
    """A sound file whose tensors differ from what the model needs."""
    def spoil(folder):
        stored = load_file(folder / FILE)
        change(stored)
        save_file(stored, folder / FILE, metadata={"format": "pt"})
    return spoil


def cut(count):
    return lambda folder: (folder / FILE).write_bytes((folder / FILE).read_bytes()[:count])


def duplicate_key(folder):
    header, body = read(folder)
    name = json.dumps("model.norm.weight")
    text = json.dumps(header)[:-1] + f", {name}: {json.dumps(header['model.norm.weight'])}}}"
    write(folder, text.encode(), body)


def hole(folder):
    header, body = read(folder)
    last = max((info for name, info in header.items() if name != "__metadata__"), key=lambda i: i["data_offsets"])
    last["data_offsets"] = [offset + 4 for offset in last["data_offsets"]]
    write(folder, header, body + b"\0" * 4)


def overlapping(count):
    one = '{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}'
    return header_text("{" + ",".join(f'"t{i}":{one}' for i in range(count)) + "}")


def single(dtype="F32", shape="[4]", offsets="[0,16]", more=""):
    return header_text(f'{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}{more}}}}}')


def set_value(name, value):
    def change(stored):
        stored[name].reshape(-1)[3] = value
    return tensors(change)


def put(name, value):
    def change(stored):
        stored[name] = value(stored[name]) if callable(value) else value
    return tensors(change)


UP = "model.layers.1.mlp.up_proj.weight"
U64 = 2**64

SAFETENSORS = {
    "empty": (raw(b""), "too few"),
    "seven-bytes": (raw(b"\0" * 7), "too few"),
    "length-beyond-limit": (raw(b"\x3c\0\0\0\0\xff\xff\xff"), "too large"),
    "length-beyond-end": (raw(struct.pack("<Q", 60)), "cut short"),
    "length-over-cap": (raw(struct.pack("<Q", 100_000_001) + b"{}"), "too large"),
    "header-not-utf8": (header_text(b"\xff"), FILE),
    "header-not-json": (header_text("{"), FILE),
    "header-a-list": (header_text("[]"), "no JSON object"),
    "header-deep": (header_text("[" * 100_000), FILE),
    "header-bom": (header_text(b"\xef\xbb\xbf{}"), FILE),
    "data-truncated": (cut(-2), "cut short"),
    "header-truncated": (cut(100), "cut short"),
    "tail-appended": (lambda f: (f / FILE).write_bytes((f / FILE).read_bytes() + b"xy"), "follow the last tensor"),
    "overlap": (overlapping(10), "overlaps"),
    "overlap-100000": (overlapping(100_000), "overlaps"),
    "hole": (hole, "hole"),
    "duplicate-key": (duplicate_key, "twice"),
    "duplicate-metadata": (header_text('{"__metadata__":{},"__metadata__":{}}'), "twice"),
    "duplicate-field": (single(more=',"dtype":"F32"'), "twice"),
    "metadata-not-text": (header_text('{"__metadata__":{"a":1}}'), "number"),
    "begin-after-end": (single(offsets="[16,0]"), "begins after"),
    "offset-negative": (single(offsets="[-16,0]"), "negative"),
    "offset-fraction": (single(offsets="[0,4.5]"), "whole"),
    "offset-exponent": (single(offsets="[0,1e3]"), "whole"),
    "offset-2^64": (single(offsets=f"[0,{U64}]"), "64 bits"),
    "three-offsets": (single(offsets="[0,8,16]"), "two numbers"),
    "shape-overflow": (single(shape=f"[2,{U64 - 2}]"), "overflow"),
    "shape-overflow-2^47": (single(shape=f"[{2**47},{2**47},{2**47}]"), "overflow"),
    "shape-mismatch": (single("I32", "[2,2]", "[0,4]"), "offsets give"),
    "fp4-misaligned": (single("F4", "[3]", "[0,2]"), "within a byte"),
    "dtype-unknown": (entry(dtype="F33"), "F33"),
    "dtype-missing": (entry(dtype=...), "lacks"),
    "field-extra": (entry(note="x"), "note"),
    "name-nul": (header_text('{"a\\u0000b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'), "NUL"),
    "name-climbs": (put("../../etc/passwd", np.zeros(4, np.float32)), "no place"),
    "tensor-missing": (tensors(lambda stored: stored.pop(UP)), ["no tensor", UP]),
    "tensor-extra": (put("model.surprise", np.zeros(4, np.float32)), ["model.surprise", "no place"]),
    "tensor-i64": (put(UP, lambda t: t.astype(np.int64)), ["I64", "only F32"]),
    "tensor-f64": (put(UP, lambda t: t.astype(np.float64)), "F64"),
    "tensor-transposed": (put(UP, lambda t: np.ascontiguousarray(t.T)), ["has shape [64, 128]", UP]),
    "tensor-scalar": (put(UP, np.zeros((), np.float32)), "has shape []"),
    "tensor-empty": (put("model.embed_tokens.weight", np.zeros((0, 64), np.float32)), "has shape [0, 64]"),
    "weight-nan": (set_value(UP, np.nan), ["NaN", UP]),
    "weight-inf": (set_value("model.norm.weight", np.inf), "infinite"),
    "weight-infs-of-both-signs": (put(UP, lambda t: np.where(np.eye(*t.shape) > 0, -np.inf, np.inf).astype(t.dtype)), "NaN"),
    "git-lfs-pointer": (raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "git lfs pull"),
    "web-page": (raw(b"<!DOCTYPE html><html></html>"), "web page"),
    "pickle-inside": (raw(b"PK\x03\x04" + b"\0" * 100), "pickle"),
    "missing": (lambda folder: (folder / FILE).unlink(), "holds no model"),
    "only-a-pickle": (lambda folder: (folder / FILE).rename(folder / "pytorch_model.bin"), "pickle"),
}


def sharded(change=lambda folder, index: None):
    """Two shards and an index, which `change` then spoils."""
    def spoil(folder):
        stored = load_file(folder / FILE)
        (folder / FILE).unlink()
        names = sorted(stored)
        parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for shard, keys in parts.items():
            save_file({key: stored[key] for key in keys}, folder / shard)
        index = {"metadata": {}, "weight_map": {key: shard for shard, keys in parts.items() for key in keys}}
        result = change(folder, index)
        (folder / f"{FILE}.index.json").write_text(result if isinstance(result, str) else json.dumps(index))
    return spoil


def remap(name):
    return sharded(lambda folder, index: index["weight_map"].update({"lm_head.weight": name}))


def in_both(folder, index):
    stored = {**load_file(folder / "a.safetensors"), "lm_head.weight": np.zeros((256, 64), np.float32)}
    save_file(stored, folder / "a.safetensors")
    save_file({**load_file(folder / "b.safetensors"), "lm_head.weight": stored["lm_head.weight"]},
              folder / "b.safetensors")


SHARDS = {
    "shard-missing": (sharded(lambda f, index: (f / "b.safetensors").unlink()), ["1 of 2 shards", "b.safetensors"]),
    "shard-outside": (remap("../a.safetensors"), "plain name"),
    "shard-absolute": (remap("/etc/passwd"), "plain name"),
    "shard-nul": (remap("a\0.safetensors"), "plain name"),
    "shard-a-number": (remap(3), "shard"),
    "shard-wrong": (sharded(lambda f, index: index["weight_map"].update(
        {"lm_head.weight": {"a.safetensors": "b.safetensors", "b.safetensors": "a.safetensors"}[
            index["weight_map"]["lm_head.weight"]]})), "different downloads"),
    "tensor-in-both": (sharded(in_both), "different downloads"),
    "shard-truncated": (sharded(lambda f, index: (f / "b.safetensors").write_bytes(
        (f / "b.safetensors").read_bytes()[:-1])), ["b.safetensors", "cut short"]),
    "index-empty": (sharded(lambda f, index: '{"weight_map": {}}'), "empty"),
    "index-no-json": (sharded(lambda f, index: "{"), "index.json"),
    "index-duplicate": (sharded(lambda f, index: '{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}'), "a"),
    "index-deep": (sharded(lambda f, index: "[" * 100_000), "index.json"),
}


def config(**change):
    """config.json with keys changed; ... removes one."""
    def spoil(folder):
        settings = json.loads((folder / "config.json").read_text())
        for key, value in change.items():
            if value is ...:
                settings.pop(key, None)
            else:
                settings[key] = value
        (folder / "config.json").write_text(json.dumps(settings))
    return spoil


def config_text(text):
    return lambda folder: (folder / "config.json").write_text(text)


MODEL_CONFIG = {
    "missing": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "empty": (config_text(""), "config.json"),
    "no-json": (config_text("{"), "config.json"),
    "a-list": (config_text("[]"), "config.json"),
    "deep": (config_text("[" * 100_000), "config.json"),
    "large": (config_text(" " * (1 << 21)), "config.json"),
    "duplicate-key": (config_text('{"model_type": "llama", "model_type": "qwen2"}'), "model_type"),
    "other-family": (config(model_type="gpt2"), ["model_type", "gpt2"]),
    "no-family": (config(model_type=...), "model_type"),
    "quantised": (config(quantization_config={"bits": 4}), "quantis"),
    "experts": (config(num_experts=8), "num_experts"),
    "size-as-text": (config(hidden_size="64"), "hidden_size"),
    "size-negative": (config(hidden_size=-64), "hidden_size"),
    "size-fraction": (config(hidden_size=64.5), "hidden_size"),
    "size-zero": (config(vocab_size=0), "vocab_size"),
    "size-missing": (config(intermediate_size=...), "intermediate_size"),
    "size-2^64": (config(hidden_size=U64), "hidden_size"),
    "hidden-huge": (config(hidden_size=2**39), "hidden_size"),
    "hidden-large": (config(hidden_size=2**23), "has shape"),
    "intermediate-large": (config(intermediate_size=2**24), "has shape"),
    "vocabulary-huge": (config(vocab_size=2**39), "vocab_size"),
    "vocabulary-large": (config(vocab_size=2**30), "has shape"),
    "layers-huge": (config(num_hidden_layers=2**39), "num_hidden_layers"),
    "layers-one-more": (config(num_hidden_layers=3), "model.layers.2"),
    "layers-one-less": (config(num_hidden_layers=1), "model.layers.1"),
    "heads-beyond-hidden": (config(num_attention_heads=128, num_key_value_heads=128, head_dim=...), "num_attention_heads"),
    "heads-uneven": (config(num_attention_heads=3, num_key_value_heads=3, head_dim=...), "num_attention_heads"),
    "kv-heads": (config(num_key_value_heads=3), "num_key_value_heads"),
    "head-dim-odd": (config(head_dim=15), "head_dim"),
    "head-dim-huge": (config(head_dim=2**39), "head_dim"),
    "head-dim-large": (config(head_dim=2**16), "has shape"),
    "eps-zero": (config(rms_norm_eps=0), "rms_norm_eps"),
    "eps-as-text": (config(rms_norm_eps="small"), "rms_norm_eps"),
    "theta-negative": (config(rope_theta=-1, rope_parameters=...), "rope_theta"),
    "rope-unknown": (config(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}), "spiral"),
    "rope-a-list": (config(rope_parameters=[1]), "rope_parameters"),
    "activation": (config(hidden_act="gelu"), "gelu"),
    "eos-as-text": (config(eos_token_id="</s>"), "eos_token_id"),
}
