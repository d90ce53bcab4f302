// A whole model as a Hugging Face folder: model.safetensors and the other files of the base's
// folder.
#pragma once

#include <filesystem>
#include <vector>

#include "nn/parameter_slot.hpp"

namespace lorascale::adapters {

// Writes the weights in their own type and copies config.json and the tokenizer's files from
// `base`.
void write_full_model(const std::filesystem::path& folder,
                      const std::vector<nn::ParameterSlot>& slots,
                      const std::filesystem::path& base);

}  // namespace lorascale::adapters
