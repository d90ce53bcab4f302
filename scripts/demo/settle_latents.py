"""Gives an autoencoder latents of mean 0 and deviation 1 in each channel, which a UNet learns best on: files of Stable
Diffusion 1 know one scale and no shift, so mean and deviation go into the last layer of the encoder (quant_conv) and
the first of the decoder (post_quant_conv). Pictures and what becomes of them stay the same.

    settle_latents.py MODEL PICTURES.h5

MODEL is a diffusers folder, whose vae/ is changed; PICTURES are prepared ones (scripts/prepare_images.py).
"""
import sys
from pathlib import Path

import diffusers
import h5py
import numpy
import torch

PICTURES = 2048


@torch.no_grad()
def settle(model: Path, pictures: Path):
    vae = diffusers.AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32)
    means = torch.cat([vae.encode(batch).latent_dist.mean for batch in batches(pictures)])
    mean, deviation = means.mean((0, 2, 3)), means.std((0, 2, 3))
    print("latents before: mean", *(f"{value:.3f}" for value in mean), "deviation",
          *(f"{value:.3f}" for value in deviation))
    channels = len(mean)
    sample = next(batches(pictures))[:8]
    before = vae.decode(vae.encode(sample).latent_dist.mean).sample
    quant, back = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.bias[channels:] -= 2 * deviation.log()  # of the logarithm of the variance
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= deviation[None, :, None, None]
    after = vae.decode(vae.encode(sample).latent_dist.mean).sample
    print(f"pictures differ by {(before - after).abs().max():.1e}")
    vae.register_to_config(scaling_factor=1.0)
    vae.save_pretrained(model / "vae")


def batches(path: Path):
    """[n, 3, height, width] in [-1, 1], evenly from a file of one bucket."""
    with h5py.File(path) as file:
        (height,), (width,) = file["bucket_heights"][:], file["bucket_widths"][:]
        size = 3 * int(height) * int(width)
        count = len(file["pixels"]) // size
        chosen = numpy.linspace(0, count - 1, min(PICTURES, count)).astype(int)
        for first in range(0, len(chosen), 64):
            part = numpy.stack([file["pixels"][size * i:size * (i + 1)] for i in chosen[first:first + 64]])
            yield torch.from_numpy(part).view(-1, 3, int(height), int(width)).float() / 127.5 - 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    settle(Path(sys.argv[1]), Path(sys.argv[2]))
