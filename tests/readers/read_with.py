"""Loads LoRA files by the code of another program, and writes what it changes in each layer:

    read_with.py READER MODEL LORA CHANGES [LORA CHANGES]...

MODEL is a folder of thin_model.make, CHANGES a safetensors file: "unet.MODULE" and "text_encoder.MODULE", float64. What a
reader says of keys that it does not know goes to the standard output."""
import pathlib
import sys

import safetensors.torch
import torch
import thin_model


def by_diffusers(model, lora):
    """peft's layers, by the loader of diffusers."""
    import diffusers
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(model, safety_checker=None, feature_extractor=None,
                                                                 requires_safety_checker=False)
    pipeline.load_lora_weights(str(lora), adapter_name="lora")
    changes = {}
    for part in ("unet", "text_encoder"):
        for name, module in getattr(pipeline, part).named_modules():
            if "lora" in getattr(module, "lora_A", {}):
                changes[f"{part}.{name.removeprefix('text_model.')}"] = module.get_delta_weight("lora").detach()
    return changes


class Weights:
    """What ComfyUI's loader asks of a model: its weights by their names."""

    def __init__(self, weights):
        self.weights = weights

    def state_dict(self):
        return self.weights


def by_comfylib(model, lora):
    """ComfyUI of March 2023: patches the weights of the model in its original form."""
    from comfy.hazard import sd
    before = thin_model.weights(model)
    names = {name: ("model.diffusion_model." + thin_model.original_name(name.removeprefix("unet."))
                    if name.startswith("unet.") else "transformer.text_model." + name.removeprefix("text_encoder.")) + ".weight"
             for name in before}
    unet, text = ({names[name]: tensor.clone() for name, tensor in before.items() if name.startswith(part)}
                  for part in ("unet.", "text_encoder."))
    clip = sd.CLIP(no_init=True)
    clip.cond_stage_model = Weights(text)
    clip.target_clip = clip.tokenizer = clip.layer_idx = None
    clip.patcher = sd.ModelPatcher(clip.cond_stage_model)
    patched, patched_clip = sd.load_lora_for_models(sd.ModelPatcher(Weights(unet)), clip, str(lora), 1.0, 1.0)
    patched.patch_model()
    patched_clip.patcher.patch_model()
    after = {**unet, **text}
    changes = {name: after[names[name]] - tensor for name, tensor in before.items()}
    return {name: change for name, change in changes.items() if change.any()}


def by_lycoris(model, lora):
    import diffusers
    import lycoris
    import transformers
    parts = {"unet": diffusers.UNet2DConditionModel.from_pretrained(model / "unet"),
             "text_encoder": transformers.CLIPTextModel.from_pretrained(model / "text_encoder")}
    tensors = safetensors.torch.load_file(lora)
    before, changes = thin_model.weights(model), {}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
        renamed = {"lycoris_" + key.removeprefix(prefix): tensor.float() for key, tensor in tensors.items()
                   if key.startswith(prefix)}
        module = parts[part].double()
        network, _ = lycoris.create_lycoris_from_weights(1.0, None, getattr(module, "text_model", module), renamed)
        network.double().merge_to(1.0)
        for name, layer in module.named_modules():
            key = f"{part}.{name.removeprefix('text_model.')}"
            if key in before and not torch.equal(layer.weight, before[key]):
                changes[key] = layer.weight.detach() - before[key]
    return changes


READERS = {"diffusers": by_diffusers, "comfylib": by_comfylib, "lycoris": by_lycoris}


def main(reader, model, *files):
    with torch.no_grad():
        for lora, changes in zip(files[::2], files[1::2], strict=True):
            found = READERS[reader](pathlib.Path(model), pathlib.Path(lora))
            safetensors.torch.save_file({name: change.double().contiguous() for name, change in found.items()}, changes)


if __name__ == "__main__":
    main(*sys.argv[1:])
