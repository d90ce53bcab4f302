"""Writes the small Stable Diffusion model of the demonstration with random weights: the start of its pre-training
(scripts/demo/pretrain_pictures.sh).

    make_random_pipeline.py VOCABULARY FOLDER

VOCABULARY is a folder with the tokenizer that its captions need (scripts/demo/emoji.py). FOLDER is then one of
diffusers' form.
"""
import json
import shutil
import sys
from pathlib import Path

import diffusers
import torch
import transformers

WIDTH = 96  # of the text encoder


def text_encoder(tokenizer):
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3,
        num_attention_heads=4, hidden_act="quick_gelu", bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=WIDTH))


def unet():
    """Attention on maps of 8 x 8 and 4 x 4: on 16 x 16, the latents of 64 pixels, it cost more than it gave."""
    return diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=[48, 96, 128], layers_per_block=1,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        norm_num_groups=8, cross_attention_dim=WIDTH, attention_head_dim=4)


def autoencoder():
    """A latent is 4 x 4 pixels. Its scale is settled after it has learned (scripts/demo/settle_latents.py)."""
    return diffusers.AutoencoderKL(
        block_out_channels=[24, 48, 64], norm_num_groups=8, layers_per_block=1, latent_channels=4, sample_size=64,
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, scaling_factor=1.0)


def main(vocabulary: Path, folder: Path):
    torch.manual_seed(0)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(vocabulary)
    parts = {"text_encoder": text_encoder(tokenizer), "unet": unet(), "vae": autoencoder()}
    folder.mkdir(parents=True)
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        print(f"{name}: {sum(parameter.numel() for parameter in part.parameters()):,} parameters")
    shutil.copytree(vocabulary, folder / "tokenizer")
    scheduler = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                        steps_offset=1, clip_sample=False, set_alpha_to_one=False)
    scheduler.save_pretrained(folder / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__,
             "feature_extractor": [None, None], "safety_checker": [None, None], "requires_safety_checker": False,
             "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
             "vae": ["diffusers", "AutoencoderKL"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
