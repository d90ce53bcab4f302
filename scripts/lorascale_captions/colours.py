"""What a picture's stored values are as red, green and blue of sRGB, and its alpha."""

import functools
import io

from lorascale_images import decoding
from PIL import Image, ImageCms

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # space of a profile -> mode of the picture that it can be for
_GREY = frozenset(["1", "L", "LA", "La"])


def parts_of(image, background):
    """(image of mode RGB upon `background`, its alpha of mode L or None, whether its colour profile is of no use)."""
    profile = image.info.get("icc_profile")
    image, alpha = _without_alpha(decoding.of_8_bits(image))
    unusable = False
    if profile:
        try:
            image = _in_srgb(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError):
            unusable = True
    image = image.convert("RGB")
    if alpha is not None:
        layer = image.copy()
        layer.putalpha(alpha)
        under = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(under, layer).convert("RGB")
    return image, alpha, unusable


def _without_alpha(image):
    """(image of mode L, RGB or CMYK, alpha or None). What lies beneath is kept as it is."""
    grey, alpha = image.mode in _GREY, None
    if image.mode in decoding.WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode != "CMYK":
        image = image.convert("RGB")
    return (image.convert("L") if grey else image), alpha


@functools.cache
def _srgb():
    return ImageCms.createProfile("sRGB")


def _in_srgb(image, raw):
    profile = ImageCms.ImageCmsProfile(io.BytesIO(raw))
    mode = _MODES.get(profile.profile.xcolor_space.strip())
    if mode == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if mode != image.mode:
        raise ValueError("a profile of other colours than the picture's")
    if ImageCms.getProfileDescription(profile).startswith("sRGB"):
        return image
    return ImageCms.profileToProfile(
        image,
        profile,
        _srgb(),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
