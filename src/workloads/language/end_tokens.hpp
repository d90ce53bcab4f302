// Where text ends: the end tokens of a model, of its data and of the files that servers read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/tokens/token_dataset.hpp"
#include "models/decoder/config.hpp"

namespace lorascale::workloads::language {

// Where text that the model writes ends: at its own end tokens, and at that of the data set, where
// there is one.
std::vector<std::int64_t> end_ids(const models::decoder::DecoderConfig& model,
                                  const data::TokenDataset* dataset);

// A line where servers and transformers' generate() would not stop at the token that ends the
// answers of the data (`answer_end_id`, -1: none; `text` is what it reads).
std::optional<std::string> warning_of_end_token(const models::decoder::DecoderConfig& model,
                                                std::int64_t answer_end_id,
                                                const std::string& text);

}  // namespace lorascale::workloads::language
