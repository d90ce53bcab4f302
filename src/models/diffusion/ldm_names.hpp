// What the weights of a pipeline are called in one file of all its parts, as the authors of Stable
// Diffusion publish them: from diffusers' and transformers' names, which the models here have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lorascale::models::diffusion {

// "down_blocks.0.resnets.0.norm1.weight" -> "model.diffusion_model.input_blocks.1.0.in_layers.0.
// weight". `has_attention`: of each level, from the finest to the coarsest map.
std::string unet_name_in_ldm(const std::string& name, std::int64_t layers_per_level,
                             const std::vector<bool>& has_attention);

// "encoder.down_blocks.0.resnets.0.norm1.weight" ->
// "first_stage_model.encoder.down.0.block.0.norm1.weight"
std::string vae_name_in_ldm(const std::string& name, std::int64_t levels);

// "text_model.encoder.layers.0.mlp.fc1.weight" -> "transformer.resblocks.0.mlp.c_fc.weight", as
// OpenCLIP has it. q, k and v stand together there: all three become "...attn.in_proj_weight".
std::string text_name_in_open_clip(const std::string& name);

}  // namespace lorascale::models::diffusion
