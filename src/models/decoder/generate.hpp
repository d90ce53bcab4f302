// Text generation with a key-value cache: greedy, or temperature with nucleus (top-p) sampling
// (Holtzman et al. 2020). Draws come from a counter-based generator: the same seed gives the same
// text.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/decoder/decoder.hpp"

namespace lorascale::models::decoder {

struct GenerationSettings {
  std::int64_t max_tokens = 128;
  double temperature = 0.0;  // 0: greedy, the lowest id among equals
  double top_p = 1.0;
  std::uint64_t seed = 0;
  std::vector<std::int64_t> stop_ids;  // generation ends before one of these is returned
};

// Continues `prompt` (at least one token); returns the new tokens.
std::vector<std::int32_t> generate(const Decoder& model, std::span<const std::int32_t> prompt,
                                   const GenerationSettings& settings);

// The token that a draw u in [0, 1) takes from the logits.
std::int32_t sample_token(std::span<const float> logits, double temperature, double top_p,
                          double u);

}  // namespace lorascale::models::decoder
