// Captions that no data file holds, as of sample.prompts, in tokens of the model's own tokenizer: a
// script's work, as a child process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "data/pictures/caption_rows.hpp"

namespace lorascale::workloads::diffusion {

struct EncodedCaptions {
  data::CaptionTokens tokens;
  std::vector<std::vector<std::int32_t>> ids;  // of each caption
};

// Error(kBadInput) where there is no Python with the library, or no tokenizer.
EncodedCaptions encode_captions(const config::RunConfig& config,
                                const std::vector<std::string>& captions);

}  // namespace lorascale::workloads::diffusion
