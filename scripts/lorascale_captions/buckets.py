"""Buckets: sizes that pictures of one form share, as kohya's sd-scripts makes and uses them."""

import dataclasses
import functools
import math

from lorascale_images.decoding import MAX_PIXELS, PictureError


def sizes(resolution, smallest, largest, step):
    """[(width, height)] of all buckets: what make_bucket_resolutions gives, in its order."""
    area = math.prod(resolution)
    square = math.isqrt(area) // step * step
    found = {(square, square)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, area // width // step * step)
        if height >= smallest:
            found |= {(width, height), (height, width)}
    return sorted(found)


@dataclasses.dataclass(frozen=True)
class Buckets:
    """`resolution` (width, height) is the area of a bucket; or, where there is but one (`fixed`), its size."""

    resolution: tuple[int, int]
    step: int
    smallest: int
    largest: int
    fixed: bool = False
    upscale: bool = False

    @functools.cached_property
    def sizes(self):
        if self.fixed:
            return [self.resolution]
        return sizes(self.resolution, self.smallest, self.largest, self.step)

    def plan(self, width, height):
        """(bucket, covering) of a picture: (width, height) of its bucket and of itself once it covers that."""
        bucket = self._bucket_of(width, height)
        covering = _covering(width, height, bucket)
        if math.prod(covering) > MAX_PIXELS:
            raise PictureError(f"is {width} x {height}, too long for a bucket, cut it up")
        return bucket, covering

    def _bucket_of(self, width, height):
        if self.fixed or self.upscale or width * height > math.prod(self.resolution):
            bucket = self._nearest(width, height)
            if self.upscale or (width >= bucket[0] and height >= bucket[1]):
                return bucket
            if self.fixed:
                raise PictureError(
                    f"is {width} x {height}, smaller than --resolution {bucket[0]}x{bucket[1]}; --upscale enlarges it"
                )
            width, height = min(width, bucket[0]), min(height, bucket[1])
        bucket = tuple(side // self.step * self.step for side in (width, height))
        if not all(bucket):
            raise PictureError(
                f"is {width} x {height}, and a side of it smaller than --bucket-step {self.step}; --upscale enlarges it"
            )
        return bucket

    def _nearest(self, width, height):
        """By the ratio of the ratios; of equally near ones the largest."""
        if (width, height) in self.sizes:
            return width, height

        def distance(size):
            ratios = sorted([width * size[1], height * size[0]])
            return ratios[1] / ratios[0], -math.prod(size)

        return min(self.sizes, key=distance)


def _covering(width, height, bucket):
    if width * bucket[1] >= height * bucket[0]:
        return _rounded(width * bucket[1], height), bucket[1]
    return bucket[0], _rounded(height * bucket[0], width)


def _rounded(numerator, denominator):
    return (2 * numerator + denominator) // (2 * denominator)
