// What a LoRA's file says of the model that it is for, in the words of sd-scripts and ModelSpec, by
// which interfaces tell models apart.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "models/diffusion/pipeline_config.hpp"

namespace lorascale::workloads::diffusion {

// `velocity`: it predicts v.
std::map<std::string, std::string> tags_of_model(const models::diffusion::PipelineConfig& pipeline,
                                                 bool velocity, const std::filesystem::path& model);

}  // namespace lorascale::workloads::diffusion
