"""The safetensors package as an independent reader and writer for safetensors_writer_test.cpp.

read FILE       print "name dtype shape sha256-of-its-bytes" per tensor by name, then the metadata
write FILE      write one tensor of every element type, with the bytes that the test expects
"""

import hashlib
import sys

import safetensors
import safetensors.torch
import torch

# Name in torch; the test has the same list.
DTYPES = [
    "bool",
    "uint8",
    "int8",
    "float8_e5m2",
    "float8_e4m3fn",
    "float8_e8m0fnu",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "int16",
    "uint16",
    "float16",
    "bfloat16",
    "int32",
    "uint32",
    "float32",
    "complex64",
    "float64",
    "int64",
    "uint64",
]


def pattern(name, count):
    """Byte i of a tensor; only 0 and 1, which every type holds, booleans included."""
    return bytes((i * 7 + len(name)) % 2 for i in range(count))


def read(path):
    with open(path, "rb") as file:
        for name, tensor in sorted(safetensors.deserialize(file.read())):
            shape = "x".join(str(size) for size in tensor["shape"])
            digest = hashlib.sha256(bytes(tensor["data"])).hexdigest()
            print(name, tensor["dtype"], f"[{shape}]", digest)
    with safetensors.safe_open(path, framework="pt") as file:
        print(sorted((file.metadata() or {}).items()))


def write(path):
    tensors = {}
    for name in DTYPES:
        dtype = getattr(torch, name)
        data = pattern(name, 6 * dtype.itemsize)
        tensors[name] = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).view(2, 3)
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(2, 0)
    tensors["na\u00efve \"quoted\"\n"] = torch.zeros(1, dtype=torch.uint8)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](sys.argv[2])
