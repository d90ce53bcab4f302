// What stands beside a decoder's weights in a Hugging Face folder.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace lorascale::models::decoder {

// Copies config.json, which then names the type `stored`, and the tokenizer's files from `base`.
// Where `answer_end_id` (-1: none) is not among the end tokens that servers would find,
// generation_config.json gets it in front of them.
void write_companions(const std::filesystem::path& folder, const std::filesystem::path& base,
                      at::ScalarType stored, std::int64_t answer_end_id = -1);

// What generation_config.json must say so that servers and transformers stop at `answer_end_id`,
// given the texts of the base's two files (an empty one is not there); nothing where they do.
std::optional<std::string> generation_config_with_end(const std::string& generation_config,
                                                      const std::string& config,
                                                      std::int64_t answer_end_id);

}  // namespace lorascale::models::decoder
