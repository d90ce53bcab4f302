// A whole model as a Hugging Face folder: model.safetensors and the other files of the base's
// folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nn/parameter_slot.hpp"

namespace lorascale::adapters {

// Writes the weights in their own type and copies config.json and the tokenizer's files from
// `base`. Where `answer_end_id` (-1: none) is not among the end tokens that servers would find,
// generation_config.json gets it in front of them.
void write_full_model(const std::filesystem::path& folder,
                      const std::vector<nn::ParameterSlot>& slots,
                      const std::filesystem::path& base, std::int64_t answer_end_id = -1);

// What generation_config.json must say so that servers and transformers stop at `answer_end_id`,
// given the texts of the base's two files (an empty one is not there); nothing where they do.
std::optional<std::string> generation_config_with_end(const std::string& generation_config,
                                                      const std::string& config,
                                                      std::int64_t answer_end_id);

}  // namespace lorascale::adapters
