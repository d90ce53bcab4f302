// What layers of a pipeline are called in files of sd-scripts' form.
#pragma once

#include <string>

#include "models/diffusion/pipeline_config.hpp"

namespace lorascale::models::diffusion {

// "unet.down_blocks.0.attentions.0.proj_in" -> "lora_unet_down_blocks_0_attentions_0_proj_in";
// text encoders are lora_te (SDXL: lora_te1, lora_te2). SDXL's UNet goes by LDM's paths.
std::string kohya_name(const std::string& site, const PipelineConfig& config);

// Whether files of the base hold a layer that is linear here as a convolution: of SD 1 the
// projections around transformers.
bool is_convolution_in_files(const std::string& site, const PipelineConfig& config);

}  // namespace lorascale::models::diffusion
