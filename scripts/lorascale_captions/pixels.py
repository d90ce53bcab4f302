"""A picture's file to what is stored of it."""

import dataclasses
import hashlib
import struct
import warnings
from typing import NamedTuple

import numpy
from lorascale_images import decoding
from PIL import Image

from . import colours
from .buckets import Buckets


@dataclasses.dataclass(frozen=True)
class Rules:
    buckets: Buckets
    background: tuple[int, int, int] = (255, 255, 255)
    masks: bool = False  # keep alpha as the fourth channel
    keep_margin: bool = False

    @property
    def channels(self):
        return 4 if self.masks else 3


class Prepared(NamedTuple):
    pixels: numpy.ndarray  # u8 [c, h, w]
    bucket: tuple[int, int]  # (width, height)
    original: tuple[int, int]  # (width, height), upright
    is_enlarged: bool
    is_without_profile: bool  # it has one that is of no use
    digest: bytes


def prepare(path, rules):
    with decoding.legible(path), warnings.catch_warnings(action="ignore"):  # odd metadata and the like
        image = decoding.upright(path)
        bucket, covering = rules.buckets.plan(*image.size)
        colour, alpha, unusable = colours.parts_of(image, rules.background)
        layers = [colour]
        if rules.masks:
            layers.append(Image.new("L", image.size, 255) if alpha is None else alpha)
        pixels = _stacked([_fitted(layer, bucket, covering, rules.keep_margin) for layer in layers])
    is_enlarged = any(wanted > found for wanted, found in zip(covering, image.size, strict=True))
    return Prepared(pixels, bucket, image.size, is_enlarged, unusable, digest_of(pixels))


def digest_of(pixels):
    _, height, width = pixels.shape
    return hashlib.sha256(struct.pack("<qq", height, width) + pixels.tobytes()).digest()


def middle(pixels, bucket):
    """Of u8 [c, h, w] what lies in the middle, as large as the bucket."""
    width, height = bucket
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]


def _fitted(layer, bucket, covering, keep_margin):
    if layer.size != covering:
        layer = layer.resize(covering, Image.Resampling.LANCZOS)
    values = numpy.asarray(layer)
    values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return values if keep_margin else middle(values, bucket)


def _stacked(layers):
    return numpy.ascontiguousarray(numpy.concatenate(layers))


class Preparer:
    """What works in the other processes."""

    def __init__(self, rules):
        self._rules = rules

    def process(self, batch):
        """For each (index, path) what `prepare` gives, or what is wrong with it."""
        results = []
        for _, path in batch:
            try:
                results.append(prepare(path, self._rules))
            except decoding.PictureError as error:
                results.append(str(error))
        return results
