"""Small Stable Diffusion models as diffusers saves them, captioned pictures, and the training loss as diffusers and
transformers compute it for the noise that this program draws (a generator of its own here, from the published one)."""
import json
import math
import pathlib
import subprocess
import sys

import diffusers
import h5py
import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 1000
FIRST_DRAW = 0x80000100  # time, latents, noise, offset, perturbation: models/diffusion/draws.hpp
MASK = 0xFFFFFFFFFFFFFFFF


# --- models -----------------------------------------------------------------------------------------------------------

def make_tokenizer(folder, pad=None):
    """CLIP's kind with bytes and a few merges."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "r e", "re d</w>"]
    tokens = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"),
                                           pad_token=pad or "<|endoftext|>", model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


def text_encoder(vocabulary, width, projection=None, activation="quick_gelu"):
    config = transformers.CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3, num_attention_heads=2,
        hidden_act=activation, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
        projection_dim=projection or width)
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return kind(config).float().eval()


def unet(kind, context):
    if kind.endswith("-file"):  # of one file, where heads are 8, of SD 2 64 wide, and groups 32
        form = dict(attention_head_dim=8) if kind == "sd1-file" else dict(attention_head_dim=1, use_linear_projection=True)
        return diffusers.UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=[64, 64],
            down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
            layers_per_block=2, norm_num_groups=32, cross_attention_dim=context, **form).float().eval()
    form = {
        "sd1": dict(attention_head_dim=2),
        "sd2": dict(attention_head_dim=[1, 2], use_linear_projection=True),
        "sdxl": dict(attention_head_dim=[1, 2], use_linear_projection=True, transformer_layers_per_block=[1, 2],
                     addition_embed_type="text_time", addition_time_embed_dim=256,
                     projection_class_embeddings_input_dim=16 + 6 * 256),
    }[kind]
    down = ["CrossAttnDownBlock2D", "DownBlock2D"] if kind == "sd1" else ["DownBlock2D", "CrossAttnDownBlock2D"]
    up = ["UpBlock2D", "CrossAttnUpBlock2D"] if kind == "sd1" else ["CrossAttnUpBlock2D", "UpBlock2D"]
    if kind == "sd1":
        down, up = ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"], ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2
    channels = [16, 32, 32] if kind == "sd1" else [16, 32]
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=channels, down_block_types=down, up_block_types=up,
        layers_per_block=1 if kind == "sd1" else 2, norm_num_groups=8, cross_attention_dim=context, **form).float().eval()


def make_pipeline(folder, kind="sd1", prediction="epsilon", halvings=1):
    """Saves it; returns its parts as diffusers has them. Weights are larger than a fresh model's, so that all matter.
    `halvings`: how often the autoencoder halves the sides, three times in real models."""
    torch.manual_seed(0)
    folder = pathlib.Path(folder)
    tokenizer = make_tokenizer(folder / "tokenizer", pad="!" if kind.startswith("sd2") else None)
    of_file = kind.endswith("-file")
    width = 128 if of_file else 16
    activation = "gelu" if kind == "sd2-file" else "quick_gelu"
    parts = {"tokenizer": tokenizer, "text_encoder": text_encoder(len(tokenizer), width, activation=activation)}
    if kind == "sdxl":
        parts["tokenizer_2"] = make_tokenizer(folder / "tokenizer_2", pad="!")
        parts["text_encoder_2"] = text_encoder(len(tokenizer), 24, projection=16, activation="gelu")
    parts["unet"] = unet(kind, width + (24 if kind == "sdxl" else 0))
    parts["vae"] = diffusers.AutoencoderKL(
        block_out_channels=[32, 64] if of_file else [8] + [16] * halvings, norm_num_groups=32 if of_file else 4,
        layers_per_block=1, latent_channels=4, down_block_types=["DownEncoderBlock2D"] * (halvings + 1),
        up_block_types=["UpDecoderBlock2D"] * (halvings + 1),
        scaling_factor=0.18215 if of_file else 0.6).float().eval()
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if name in parts:
            torch.manual_seed(len(name))
            with torch.no_grad():
                for parameter in parts[name].parameters():
                    if parameter.dim() == 1:
                        parameter.add_(0.1 * torch.randn_like(parameter))
            parts[name].save_pretrained(folder / name)
    scheduler = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                                        clip_sample=False, set_alpha_to_one=False,
                                        prediction_type="v_prediction" if prediction == "v" else "epsilon")
    scheduler.save_pretrained(folder / "scheduler")
    of = {"unet": "diffusers", "vae": "diffusers", "scheduler": "diffusers"}
    parts["scheduler"] = scheduler
    index = {"_class_name": "StableDiffusionXLPipeline" if kind == "sdxl" else "StableDiffusionPipeline",
             "_diffusers_version": diffusers.__version__,
             **{name: [of.get(name, "transformers"), type(part).__name__] for name, part in parts.items()}}
    (folder / "model_index.json").write_text(json.dumps(index))
    return {**parts, "kind": kind, "prediction": prediction}


def to_open_clip(text):
    """A text encoder as OpenCLIP has it: q, k and v in one tensor, and a last layer that SD 2 does not use."""
    prefix = "cond_stage_model.model."
    tensors = {prefix + "positional_embedding": text["embeddings.position_embedding.weight"],
               prefix + "token_embedding.weight": text["embeddings.token_embedding.weight"],
               prefix + "ln_final.weight": text["final_layer_norm.weight"],
               prefix + "ln_final.bias": text["final_layer_norm.bias"],
               prefix + "text_projection": torch.randn(128, 128), prefix + "logit_scale": torch.tensor(4.6)}
    layers = 1 + max(int(name.split(".")[2]) for name in text if name.startswith("encoder.layers."))
    words = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}
    for layer in range(layers + 1):
        start, to = f"encoder.layers.{min(layer, layers - 1)}.", f"{prefix}transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            for ours, theirs in words.items():
                tensors[f"{to}{theirs}.{kind}"] = text[f"{start}{ours}.{kind}"].clone()
            tensors[f"{to}attn.in_proj_{kind}"] = torch.cat([text[f"{start}self_attn.{x}_proj.{kind}"] for x in "qkv"])
    return tensors


def to_one_file(folder, path):
    """The parts of an SD 1 or 2 folder as one LDM file, by the tables of its names (layers_per_block 2, two levels)."""
    import safetensors.torch
    tensors = {}
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
              "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    blocks = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
              "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
              "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
              "mid_block.resnets.1": "middle_block.2", "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
              "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv"}
    for block, first in ((0, 1), (1, 4)):
        for j in range(2):
            blocks[f"down_blocks.{block}.resnets.{j}"] = f"input_blocks.{first + j}.0"
            blocks[f"down_blocks.{block}.attentions.{j}"] = f"input_blocks.{first + j}.1"
    for block in range(2):
        for j in range(3):
            blocks[f"up_blocks.{block}.resnets.{j}"] = f"output_blocks.{3 * block + j}.0"
            blocks[f"up_blocks.{block}.attentions.{j}"] = f"output_blocks.{3 * block + j}.1"
    for name, tensor in safetensors.torch.load_file(folder / "unet/diffusion_pytorch_model.safetensors").items():
        start = max((known for known in blocks if name.startswith(known + ".")), key=len)
        rest = name[len(start) + 1:]
        if "resnets" in start:
            word = rest.split(".")[0]
            rest = rest.replace(word, resnet[word], 1)
        tensors["model.diffusion_model." + blocks[start] + "." + rest] = tensor
    vae = {"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut", "mid_block.resnets.0": "mid.block_1",
           "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1", "group_norm": "norm",
           "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "down_blocks.0.resnets": "down.0.block",
           "down_blocks.1.resnets": "down.1.block", "down_blocks.0.downsamplers.0": "down.0.downsample",
           "up_blocks.0.resnets": "up.1.block", "up_blocks.1.resnets": "up.0.block",
           "up_blocks.0.upsamplers.0": "up.1.upsample"}
    for name, tensor in safetensors.torch.load_file(folder / "vae/diffusion_pytorch_model.safetensors").items():
        for ours, theirs in vae.items():
            name = name.replace(ours, theirs)
        attention = ".mid.attn_1." in name and tensor.dim() == 2
        tensors["first_stage_model." + name] = tensor[:, :, None, None].contiguous() if attention else tensor
    text = {name.removeprefix("text_model."): tensor for name, tensor in
            safetensors.torch.load_file(folder / "text_encoder/model.safetensors").items()}
    if json.loads((folder / "text_encoder/config.json").read_text())["hidden_act"] == "gelu":
        tensors.update(to_open_clip(text))
    else:
        tensors.update({"cond_stage_model.transformer.text_model." + name: tensor for name, tensor in text.items()})
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["alphas_cumprod"] = torch.ones(1000)  # such files hold the schedule, too
    safetensors.torch.save_file(tensors, path)
    return path


# --- data -------------------------------------------------------------------------------------------------------------

CAPTIONS = ["a red cat", "a dog, on grass", "", "cat, dog, red sky", "the quick brown fox, jumping high"]


def make_pictures(folder, sizes, captions=CAPTIONS):
    """Smooth pictures of (width, height), and metadata.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file_name,text"]
    for i, (width, height) in enumerate(sizes):
        y, x = np.mgrid[0:height, 0:width]
        values = [127 + 120 * np.sin((x * (1 + i % 3) + y * c) / (5 + i) + i) for c in range(3)]
        Image.fromarray(np.stack(values, -1).astype(np.uint8)).save(folder / f"{i:03}.png")
        caption = captions[i % len(captions)]
        lines.append(f'{i:03}.png,"{caption}"')
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepare(pictures, model, output, *more):
    command = [sys.executable, ROOT / "scripts/prepare_images.py", pictures, "--model", model, "--output", output,
               "--resolution", "32", "--bucket-step", "8", "--workers", "1", *more]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


class Pictures:
    """What a file of captioned pictures holds, read by h5py."""

    def __init__(self, path):
        with h5py.File(path) as file:
            self.all = {name: file[name][...] for name in file if isinstance(file[name], h5py.Dataset)}
            self.attributes = dict(file.attrs)
        sizes = self.all["heights"].astype(int) * self.all["widths"].astype(int) * int(self.attributes["channels"])
        self.first = np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self):
        return len(self.all["heights"])

    def pixels(self, i):
        """[1, 3, height, width] in [-1, 1]: the middle, of the bucket's size."""
        height, width = int(self.all["heights"][i]), int(self.all["widths"][i])
        values = self.all["pixels"][self.first[i]:self.first[i + 1]].reshape(-1, height, width)[:3]
        bucket = self.all["bucket"][i]
        to_height, to_width = int(self.all["bucket_heights"][bucket]), int(self.all["bucket_widths"][bucket])
        top, left = (height - to_height) // 2, (width - to_width) // 2
        cut = values[:, top:top + to_height, left:left + to_width].astype(np.float32)
        return torch.tensor(cut / 127.5 - 1)[None]

    def mask(self, i, factor):
        """[1, 1, height, width] of the latents: the mean of the fourth channel."""
        height, width = int(self.all["heights"][i]), int(self.all["widths"][i])
        values = self.all["pixels"][self.first[i]:self.first[i + 1]].reshape(-1, height, width)[3]
        return torch.nn.functional.avg_pool2d(torch.tensor(values.astype(np.float32) / 255)[None, None], factor)

    def ids(self, i, pad, rows=1):
        """[rows, 77]: what is beyond 75 words goes into the next row."""
        tags, words = self.all["tags"], []
        first, last = self.all["caption_tags"][i], self.all["caption_tags"][i + 1]
        for tag in range(first, last):
            form = 2 * tag + (tag + 1 == last)  # with its comma, or without
            words += list(self.all["tokens"][tags[form]:tags[form + 1]])
        words = [int(word) for word in words]
        made = []
        for first in range(0, 75 * rows, 75):
            row = [int(self.attributes["begin_token"]), *words[first:first + 75], int(self.attributes["end_token"])]
            made.append(row + [pad] * (77 - len(row)))
        return torch.tensor(made)

    def sizes(self, i):
        bucket = self.all["bucket"][i]
        height, width = int(self.all["bucket_heights"][bucket]), int(self.all["bucket_widths"][bucket])
        return [int(self.all["original_heights"][i]), int(self.all["original_widths"][i]),
                (int(self.all["heights"][i]) - height) // 2, (int(self.all["widths"][i]) - width) // 2, height, width]


# --- draws ------------------------------------------------------------------------------------------------------------

def mix64(z):
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def philox(counters, key):
    """Philox4x32-10: counters u64 [n, 4] -> u64 [n, 4] of 32 bits."""
    c = counters.astype(np.uint64).copy()
    k = [np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[:, 0], np.uint64(0xCD9E8D57) * c[:, 2]
        c = np.stack([(p1 >> np.uint64(32)) ^ c[:, 1] ^ k[0], p1 & low, (p0 >> np.uint64(32)) ^ c[:, 3] ^ k[1], p0 & low], 1)
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return c


class Draws:
    def __init__(self, seed, epoch, sample):
        self.key, self.sample = mix64(seed ^ mix64(epoch)), sample

    def blocks(self, use, count, first=0):
        counters = np.zeros((count, 4), np.uint64)
        counters[:, 0] = np.arange(first, first + count)
        counters[:, 1], counters[:, 2], counters[:, 3] = FIRST_DRAW + use, self.sample & 0xFFFFFFFF, self.sample >> 32
        return philox(counters, self.key)

    def time(self, part=0, parts=1):
        first, end = STEPS * part // parts, STEPS * (part + 1) // parts
        return first + (int(self.blocks(0, 1, part)[0, 0]) * (end - first) >> 32)

    def normal(self, use, shape, part=0):
        count = math.prod(shape)
        bits = self.blocks(use, (count + 1) // 2, part << 20).reshape(-1, 2).astype(np.float64)
        values = np.sqrt(-2 * np.log((bits[:, 0] + 1) * 2.0**-32)) * np.cos(np.pi * bits[:, 1] * 2.0**-32)
        return torch.tensor(values[:count].astype(np.float32)).reshape(shape)[None]


# --- the loss ---------------------------------------------------------------------------------------------------------

def context_of(model, pictures, i, clip_skip=0, rows=1):
    """The caption as the UNet sees it, and what SDXL adds to the time."""
    pads = [int(pictures.attributes["pad_token"])]
    if model["kind"] != "sdxl":
        encoder = model["text_encoder"]
        out = encoder(pictures.ids(i, pads[0], rows), output_hidden_states=True)
        context = out.last_hidden_state
        if clip_skip > 1:
            text = getattr(encoder, "text_model", encoder)
            context = text.final_layer_norm(out.hidden_states[-clip_skip])
        # As sd-scripts joins rows: the first beginning, all words, the last end.
        return torch.cat([context[:1, :1], context[:, 1:76].reshape(1, 75 * rows, -1), context[-1:, 76:]], 1), None
    pads.append(int(pictures.attributes["pad_token_2"]))
    first = model["text_encoder"](pictures.ids(i, pads[0]), output_hidden_states=True)
    second = model["text_encoder_2"](pictures.ids(i, pads[1]), output_hidden_states=True)
    context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
    return context, {"text_embeds": second.text_embeds, "time_ids": torch.tensor([pictures.sizes(i)], dtype=torch.float32)}


def sample_loss(model, pictures, row, *, seed=0, epoch=0, part=0, parts=1, clip_skip=0, weight=lambda t, snr: 1.0, offset=0.0,
                perturbation=0.0, masked=False, rows=1):
    """Of one picture: (loss with its weight, mean squared error, t). Rows are pictures: no repeats."""
    draws = Draws(seed, epoch, row)
    t = draws.time(part, parts)
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2, 0)
    alpha = float(alphas[t])
    with torch.no_grad():
        distribution = model["vae"].encode(pictures.pixels(row)).latent_dist
    shape = distribution.mean.shape[1:]
    latents = (distribution.mean + distribution.std * draws.normal(1, shape, part)) * model["vae"].config.scaling_factor
    noise = draws.normal(2, shape, part)
    if offset:
        noise = noise + offset * draws.normal(3, (shape[0], 1, 1), part)
    seen = noise + perturbation * draws.normal(4, shape, part) if perturbation else noise
    noisy = math.sqrt(alpha) * latents + math.sqrt(1 - alpha) * seen
    target = noise if model["prediction"] == "epsilon" else math.sqrt(alpha) * noise - math.sqrt(1 - alpha) * latents
    context, added = context_of(model, pictures, row, clip_skip, rows)
    told = model["unet"](noisy, torch.tensor([float(t)]), encoder_hidden_states=context, added_cond_kwargs=added).sample
    squares = (told - target) ** 2
    if masked:
        squares = squares * pictures.mask(row, pictures.pixels(row).shape[2] // noise.shape[2])
    error = squares.mean()
    return error * weight(t, alpha / (1 - alpha)), error, t
