"""A Stable Diffusion 1 model of few channels, but with the layers and names of the real one, by which readers of LoRA files
know them: four levels of two blocks, attention on three."""
import json

import diffusers
import diffusion_reference as reference
import safetensors.torch
import torch

RESNET = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}


def make(folder):
    """Saves it in diffusers' form."""
    torch.manual_seed(0)
    tokenizer = reference.make_tokenizer(folder / "tokenizer")
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=[32, 32, 64, 64], layers_per_block=2,
        down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, norm_num_groups=8, cross_attention_dim=16,
        attention_head_dim=8)
    vae = diffusers.AutoencoderKL(
        block_out_channels=[8, 8], norm_num_groups=4, layers_per_block=1, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
    parts = {"unet": unet, "vae": vae, "text_encoder": reference.text_encoder(len(tokenizer), 16)}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                            clip_sample=False, set_alpha_to_one=False).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__,
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"]}))
    return folder


def weights(folder):
    """float64, by "unet.MODULE" and "text_encoder.MODULE" in diffusers' names, without "text_model."; matrices and
    convolutions alone."""
    files = {"unet": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}
    found = {}
    for part, file in files.items():
        for name, tensor in safetensors.torch.load_file(folder / part / file).items():
            name = name.removeprefix("text_model.")
            if name.endswith(".weight") and tensor.dim() > 1 and "embedding.weight" not in name:
                found[f"{part}.{name.removesuffix('.weight')}"] = tensor.double()
    return found


def changes(folder, lora, lengths=True):
    """What the LoRA of a file changes, by the formulas alone: {module: float64}; without `lengths` as if DoRA had none."""
    tensors = {key: tensor.double() for key, tensor in safetensors.torch.load_file(lora).items()}
    starts = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    found = {}
    for module, weight in weights(folder).items():
        part, _, path = module.partition(".")
        name = starts[part] + path.replace(".", "_")
        if name + ".alpha" not in tensors:
            continue
        up, down = tensors.pop(name + ".lora_up.weight"), tensors.pop(name + ".lora_down.weight")
        change = tensors.pop(name + ".alpha") / len(down) * (up.flatten(1) @ down.flatten(1)).view(weight.shape)
        scale = tensors.pop(name + ".dora_scale", None)
        if scale is not None and lengths:
            after = weight + change
            change = after * (scale.flatten() / after.flatten(1).norm(dim=1)).view(-1, *[1] * (after.dim() - 1)) - weight
        found[module] = change
    assert not tensors, sorted(tensors)
    return found


def original_names():
    """{module of diffusers' UNet: module of the original one}, but for what is within attention, whose names are equal:
    a prefix stands for all below it."""
    names = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
             "time_embedding.linear_2": "time_embed.2", "mid_block.attentions.0": "middle_block.1"}
    for block, number in (("0", 0), ("1", 2)):
        names |= _resnet(f"mid_block.resnets.{block}", f"middle_block.{number}")
    for level in range(4):
        for block in range(2):
            first = 1 + 3 * level + block
            names |= _resnet(f"down_blocks.{level}.resnets.{block}", f"input_blocks.{first}.0")
            names[f"down_blocks.{level}.attentions.{block}"] = f"input_blocks.{first}.1"
        names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{3 + 3 * level}.0.op"
        for block in range(3):
            first = 3 * level + block
            names |= _resnet(f"up_blocks.{level}.resnets.{block}", f"output_blocks.{first}.0")
            names[f"up_blocks.{level}.attentions.{block}"] = f"output_blocks.{first}.1"
        names[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{3 * level + 2}.{2 if level else 1}.conv"
    return names


def _resnet(theirs, original):
    return {f"{theirs}.{word}": f"{original}.{name}" for word, name in RESNET.items()}


def original_name(module):
    """Of a module of diffusers' UNet."""
    names = original_names()
    start = max((known for known in names if module == known or module.startswith(known + ".")), key=len)
    return names[start] + module.removeprefix(start)
