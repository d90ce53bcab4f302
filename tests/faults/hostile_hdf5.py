"""Ways to spoil a token data set. Each takes the file's path; DATASETS pairs each with words of its message."""
import os
import struct

import h5py
import numpy as np
from harness import as_u16, edit_dataset, flip, replace_dataset


def edit(change):
    return lambda path: edit_dataset(path, change)


def attribute(name, value):
    def change(file):
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value
    return edit(change)


def tokens(make):
    return edit(lambda file: replace_dataset(file, "tokens", make(file["tokens"][:])))


def offsets(make):
    return edit(lambda file: replace_dataset(file, "offsets", make(file["offsets"][:])))


def poke(name, index, value):
    def change(file):
        values = file[name][:]
        values[index] = value
        replace_dataset(file, name, values)
    return edit(change)


def mask(make):
    return edit(lambda file: file.create_dataset("loss_mask", data=make(file["tokens"].shape[0])))


def rewrite(make):
    def spoil(path):
        data = path.read_bytes()
        path.write_bytes(make(data))
    return spoil


def heap_reference(data):
    """The string of the attribute `format` lies at a place of the heap that does not exist."""
    data = bytearray(data)
    data[data.index(struct.pack("<IQ", len("lorascale-tokens"), data.index(b"GCOL"))) + 12] = 255
    return bytes(data)


def external_storage(path):
    with h5py.File(path, "r+") as file:
        count = file["tokens"].shape[0]
        del file["tokens"]
        (path.parent / "secret.bin").write_bytes(b"\0" * 2 * count)
        file.create_dataset("tokens", (count,), np.uint16, external=[(str(path.parent / "secret.bin"), 0, 2 * count)])


def link(make):
    def change(file):
        file["elsewhere"] = file["tokens"][:]
        del file["tokens"]
        file["tokens"] = make
    return edit(change)


def other_file(path):
    other = path.parent / "other.h5"
    with h5py.File(other, "w") as file:
        file["tokens"] = np.zeros(10, np.uint16)
    edit_dataset(path, lambda file: (file.__delitem__("tokens"),
                                     file.__setitem__("tokens", h5py.ExternalLink(str(other), "/tokens"))))


def virtual(path):
    with h5py.File(path, "r+") as file:
        count = file["tokens"].shape[0]
        file["stored"] = file["tokens"][:]
        del file["tokens"]
        layout = h5py.VirtualLayout((count,), np.uint16)
        layout[:] = h5py.VirtualSource(file["stored"])
        file.create_virtual_dataset("tokens", layout)


def unstored(path):
    def change(file):
        del file["tokens"], file["offsets"]
        file.create_dataset("tokens", (1 << 40,), np.uint16, chunks=(1 << 20,))
        file["offsets"] = np.array([0, 1 << 40], np.int64)
    edit_dataset(path, change)


def bomb(path):
    """4096 chunks of zeros in about 4 MB."""
    def change(file):
        del file["tokens"], file["offsets"]
        count = 1 << 29
        made = file.create_dataset("tokens", (count,), np.uint16, chunks=(1 << 24,), compression="gzip",
                                   compression_opts=9, shuffle=True)
        packed = None
        for i in range(0, count, 1 << 24):
            if packed is None:
                made[i:i + (1 << 24)] = np.zeros(1 << 24, np.uint16)
                packed = made.id.read_direct_chunk((0,))[1]
            else:
                made.id.write_direct_chunk((i,), packed)
        file["offsets"] = np.array([0, count], np.int64)
    edit_dataset(path, change)


def checksums(path):
    """Checks that do not belong to the tokens."""
    def change(file):
        file.attrs["checks_block"] = 1 << 18
        file["checks/tokens"] = np.array([12345], np.uint32)
    edit_dataset(path, change)


def empty(file):
    replace_dataset(file, "tokens", np.zeros(0, np.uint16))
    replace_dataset(file, "offsets", np.zeros(1, np.int64))


def lzf(file):
    replace_dataset(file, "tokens", file["tokens"][:], chunks=(64,), compression="lzf")


def group(file):
    del file["tokens"]
    file.create_group("tokens")


# Found when the file is opened: nothing is written, and no run folder is made.
DATASETS = {
    "missing": (lambda path: path.unlink(), "train.h5"),
    "empty-file": (rewrite(lambda data: b""), "HDF5"),
    "text-file": (rewrite(lambda data: b"once upon a time\n" * 100), "HDF5"),
    "truncated-half": (rewrite(lambda data: data[:len(data) // 2]), "train.h5"),
    "truncated-header": (rewrite(lambda data: data[:64]), "HDF5"),
    "truncated-by-a-byte": (rewrite(lambda data: data[:-1]), "train.h5"),
    "superblock-of-the-future": (lambda path: flip(path, 8, 7), "HDF5"),
    "signature": (lambda path: flip(path, 1), "HDF5"),
    "other-version": (attribute("version", 2), "version 2"),
    "version-as-text": (attribute("version", "1"), "version"),
    "version-missing": (attribute("version", None), "version 0"),
    "other-format": (attribute("format", "somebody-tokens"), "no token data set"),
    "format-missing": (attribute("format", None), "no token data set"),
    "format-as-number": (attribute("format", 3), "format"),
    "larger-vocabulary": (edit(lambda file: (file.attrs.__setitem__("vocab_size", 300),
                                             file["tokens"].__setitem__(7, 299))), ["is id 299", "ends at 255"]),
    "no-tokens": (edit(lambda file: file.__delitem__("tokens")), "/tokens is missing"),
    "no-offsets": (edit(lambda file: file.__delitem__("offsets")), "/offsets is missing"),
    "tokens-a-group": (edit(group), "/tokens"),
    "tokens-signed": (tokens(lambda t: t.astype(np.int32)), "u16 or u32"),
    "tokens-float": (tokens(lambda t: t.astype(np.float32)), "u16 or u32"),
    "tokens-big-endian": (tokens(lambda t: t.astype(">u2")), "little-endian"),
    "tokens-two-dimensions": (tokens(lambda t: t[:len(t) // 2 * 2].reshape(-1, 2)), "one dimension"),
    "tokens-scalar": (tokens(lambda t: np.uint16(3)), "one dimension"),
    "offsets-i32": (offsets(lambda o: o.astype(np.int32)), "i64"),
    "offsets-start": (poke("offsets", 0, 1), "begin at 0"),
    "offsets-end": (poke("offsets", -1, 10**6), "end at the number of tokens"),
    "offsets-descend": (poke("offsets", 5, 2), "ascend"),
    "offsets-negative": (poke("offsets", 1, -(2**62)), "ascend"),
    "offsets-repeat": (offsets(lambda o: np.insert(o, 3, o[3])), "ascend"),
    "no-documents": (edit(empty), "empty"),
    "mask-short": (mask(lambda n: np.ones(n - 1, np.uint8)), "loss_mask"),
    "mask-float": (mask(lambda n: np.ones(n, np.float32)), "loss_mask"),
    "external-storage": (external_storage, "another file"),
    "external-link": (other_file, "link"),
    "soft-link": (link(h5py.SoftLink("/elsewhere")), "link"),
    "virtual": (virtual, "virtual"),
    "unstored": (unstored, "damaged"),
    "bomb": (bomb, "damaged"),
    "foreign-filter": (edit(lzf), "filter"),
    "vocabulary-negative": (attribute("vocab_size", -1), "vocab_size -1"),
    "eos-beyond-vocabulary": (attribute("eos_id", 99999), "eos_id 99999"),
    "answer-end-beyond-vocabulary": (attribute("answer_end_id", 99999), "answer_end_id 99999"),
    "heap-reference": (rewrite(heap_reference), "attribute format"),
    "checks-block": (attribute("checks_block", -1), "checks_block"),
}

# Found when a block is first used: the run folder exists by then, and no checkpoint is written.
DAMAGED_BLOCKS = {
    "token-beyond-vocabulary": (poke("tokens", 200, 256), ["id 256", "ends at 255"]),
    "token-65535": (poke("tokens", 0, 65535), ["document 0, token 0", "65535"]),
    "token-u32": (tokens(lambda t: np.where(np.arange(len(t)) == 9, np.uint32(2**32 - 1), t).astype(np.uint32)), "4294967295"),
    "mask-of-twos": (mask(lambda n: np.full(n, 2, np.uint8)), "only 0 and 1"),
    "wrong-checksum": (checksums, "checksum"),
}


def special_file(kind):
    """Something else in a file's place: what a careless copy, mount or script leaves there."""
    def make(path):
        if path.exists() or path.is_symlink():
            path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "dangling-link":
            path.symlink_to(path.parent / "gone")
        elif kind == "link-to-itself":
            path.symlink_to(path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            import socket
            before = os.getcwd()
            os.chdir(path.parent)  # the name of a socket is short
            try:
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(path.name)
            finally:
                os.chdir(before)
        else:
            path.symlink_to(f"/dev/{kind}")
    return make


SPECIAL_FILES = ["folder", "dangling-link", "link-to-itself", "fifo", "socket", "zero", "full", "tty"]
