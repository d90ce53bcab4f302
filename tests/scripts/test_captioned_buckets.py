"""Which bucket a picture falls into, beside sd-scripts' own words and closed forms."""

import math

import numpy
import pytest
from lorascale_captions.buckets import Buckets, sizes
from lorascale_images.decoding import PictureError


def kohya_sizes(resolution, smallest, largest, step):
    """sd-scripts' make_bucket_resolutions, in its own words."""
    area, found = resolution[0] * resolution[1], set()
    side = int(math.sqrt(area) // step) * step
    found.add((side, side))
    width = smallest
    while width <= largest:
        height = min(largest, int((area // width) // step) * step)
        if height >= smallest:
            found.add((width, height))
            found.add((height, width))
        width += step
    return sorted(found)


@pytest.mark.parametrize("resolution", [(512, 512), (512, 768), (768, 768), (1024, 1024), (500, 500), (64, 64)])
@pytest.mark.parametrize("step", [8, 32, 64])
def test_buckets_are_those_of_kohya(resolution, step):
    smallest, largest = max(step, 256 if resolution[0] > 64 else 32) // step * step, 1024
    assert sizes(resolution, smallest, largest, step) == kohya_sizes(resolution, smallest, largest, step)


def test_buckets_of_512():
    widths = {256: 1024, 320: 768, 384: 640, 448: 576, 512: 512, 576: 448, 640: 384, 704: 320, 768: 320, 832: 256,
              896: 256, 960: 256, 1024: 256}  # fmt: skip
    expected = set(widths.items()) | {(h, w) for w, h in widths.items()}
    assert set(sizes((512, 512), 256, 1024, 64)) == expected


@pytest.mark.parametrize(
    ("size", "bucket", "covering"),
    [
        ((1000, 1000), (512, 512), (512, 512)),
        ((1600, 1200), (576, 448), (597, 448)),  # 4:3, between 1.29 and 1.67
        ((1200, 1600), (448, 576), (448, 597)),
        ((1920, 1080), (640, 384), (683, 384)),
        ((5000, 1000), (1024, 256), (1280, 256)),
        ((300, 200), (256, 192), (288, 192)),  # smaller than the area: its own size, rounded down
        ((512, 512), (512, 512), (512, 512)),
        ((100, 2000), (64, 1984), (99, 1984)),
        ((2048, 128), (2048, 128), (2048, 128)),  # of the area itself
        ((9000, 100), (1024, 64), (5760, 64)),  # over the area, and thinner than any bucket
    ],
)
def test_bucket_of_a_picture(size, bucket, covering):
    buckets = Buckets((512, 512), 64, 256, 1024)
    assert buckets.plan(*size) == (bucket, covering)
    mirrored = buckets.plan(*size[::-1])
    assert mirrored == (bucket[::-1], covering[::-1])


def test_nearest_is_by_the_ratio_of_ratios():
    """Of 1.2 and 1.5 is 1.345 nearer to 1.5 (1.115 against 1.121), though the difference says 1.2."""
    buckets = Buckets((60, 60), 1, 1, 60, upscale=True)
    object.__setattr__(buckets, "sizes", [(30, 20), (60, 50), (60, 40)])
    assert buckets.plan(1345, 1000)[0] == (60, 40)
    assert buckets.plan(30, 20)[0] == (30, 20)


def test_upscale_and_one_bucket():
    assert Buckets((512, 512), 64, 256, 1024, upscale=True).plan(30, 20) == ((640, 384), (640, 427))
    assert Buckets((512, 512), 64, 256, 1024, upscale=True).plan(576, 448)[0] == (576, 448)
    fixed = Buckets((96, 64), 32, 32, 192, fixed=True)
    assert fixed.sizes == [(96, 64)] and fixed.plan(300, 100) == ((96, 64), (192, 64))
    with pytest.raises(PictureError, match="is 95 x 100, smaller than --resolution 96x64; --upscale enlarges it"):
        fixed.plan(95, 100)
    assert Buckets((96, 64), 32, 32, 192, True, True).plan(48, 64) == ((96, 64), (96, 128))
    with pytest.raises(PictureError, match="a side of it smaller than --bucket-step 64; --upscale enlarges it"):
        Buckets((512, 512), 64, 256, 1024).plan(63, 400)
    with pytest.raises(PictureError, match="too long for a bucket"):
        Buckets((512, 512), 64, 256, 1024, upscale=True).plan(1 << 20, 1)


def test_what_covers_is_never_smaller():
    generator = numpy.random.default_rng(0)
    for upscale in (False, True):
        buckets = Buckets((512, 512), 64, 256, 1024, upscale=upscale)
        for width, height in generator.integers(64, 3000, (300, 2)).tolist():
            bucket, covering = buckets.plan(width, height)
            assert all(c >= b for b, c in zip(bucket, covering, strict=True))
            assert bucket in buckets.sizes or not upscale
            assert any(c == b for b, c in zip(bucket, covering, strict=True))
            if not upscale:
                assert covering[0] <= width and covering[1] <= height
