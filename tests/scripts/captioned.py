"""What the tests of pictures with captions share: small tokenizers of CLIP's kind, and a reader of the files."""

import itertools
import json

import h5py
import numpy
from lorascale_data.vocabulary import byte_of_character
from pictures import run_images

SPECIALS = ["<|startoftext|>", "<|endoftext|>"]
MERGES = ["c a", "ca t</w>", "p h", "o t", "ph ot", "phot o</w>", "d o", "do g</w>", "s k", "sk s</w>", "a n",
          "! ,</w>", "Ã ©</w>", ", ,</w>"]  # fmt: skip


def vocabulary(merges=MERGES, specials=SPECIALS):
    symbols = list(byte_of_character())
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(merge.split()) for merge in merges)]
    return {name: index for index, name in enumerate([*names, *specials])}


def tokenizer_folder(folder, merges=MERGES, specials=SPECIALS, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges, specials)))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def run_captioned(source, output, *options, tokenizer=None, resolution=64, step=8):
    """With buckets for small pictures; the tokenizer lies beside the output unless one is named."""
    if tokenizer is None:
        tokenizer = output.parent / "clip"
        tokenizer_folder(tokenizer)
    sizes = ["--resolution", resolution, "--bucket-step", step]
    return run_images(source, "--tokenizer", tokenizer, "--output", output, *sizes, *options)


class CaptionedFile:
    """A captioned image file, read by its layout alone."""

    def __init__(self, path):
        with h5py.File(path) as file:
            self.attributes = dict(file.attrs)
            data = {name: item[:] for name, item in file.items() if isinstance(item, h5py.Dataset)}
            self.captions, self.names = (self._table(file[name]) for name in ("captions", "names"))
        self.data = data
        self.sizes = list(zip(data["widths"].tolist(), data["heights"].tolist(), strict=True))
        self.originals = list(zip(data["original_widths"].tolist(), data["original_heights"].tolist(), strict=True))
        buckets = list(zip(data["bucket_widths"].tolist(), data["bucket_heights"].tolist(), strict=True))
        self.buckets = [buckets[index] for index in data["bucket"]]
        self.repeats, self.regularisation = data["repeats"].tolist(), data["regularisation"].tolist()
        self.channels = int(self.attributes["channels"])

    @staticmethod
    def _table(group):
        raw, ends = group["bytes"][:].tobytes(), group["offsets"][:].tolist()
        return [raw[begin:end].decode() for begin, end in itertools.pairwise(ends)]

    def pixels(self, name):
        """[h, w, c]"""
        sizes = [self.channels * width * height for width, height in self.sizes]
        row = self.names.index(name)
        part = self.data["pixels"][sum(sizes[:row]) : sum(sizes[: row + 1])]
        width, height = self.sizes[row]
        return part.reshape(self.channels, height, width).transpose(1, 2, 0)

    def tags(self, name):
        """[tags] lists of ids, without the commas behind them."""
        row = self.names.index(name)
        first, last = self.data["caption_tags"][row : row + 2]
        ends = self.data["tags"][2 * first : 2 * last + 1].tolist()
        forms = [self.data["tokens"][begin:end].tolist() for begin, end in itertools.pairwise(ends)]
        return forms[1::2]


def smooth(height, width, seed=0):
    """A picture that survives scaling: slopes of its own."""
    slopes = numpy.random.default_rng(seed).uniform(0, 1, (3, 2))
    y, x = numpy.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return numpy.stack([(127 * (a * y + b * x)).astype(numpy.uint8) for a, b in slopes], axis=-1)
