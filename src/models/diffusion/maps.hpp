// Maps [samples, channels, height, width] as tokens and back (views where channels stand last), and
// the rows that draws of tokens follow from.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "nn/sample_rows.hpp"

namespace lorascale::models::diffusion {

// [samples * height * width, channels]
inline at::Tensor to_tokens(const at::Tensor& map) {
  return map.permute({0, 2, 3, 1}).reshape({-1, map.size(1)});
}

// Rows of draws where each sample has `each` rows, from those of samples, which are null where
// nothing is drawn.
inline std::optional<nn::SampleRows> rows_of(const nn::SampleRows* samples, std::int64_t each) {
  if (samples == nullptr) {
    return std::nullopt;
  }
  nn::SampleRows rows{samples->key, samples->sample_ids, {}};
  for (std::size_t i = 0; i <= rows.sample_ids.size(); ++i) {
    rows.offsets.push_back(static_cast<std::int32_t>(static_cast<std::int64_t>(i) * each));
  }
  return rows;
}

// A map of the sides of `like`.
inline at::Tensor to_map(const at::Tensor& tokens, const at::Tensor& like) {
  return tokens.view({like.size(0), like.size(2), like.size(3), tokens.size(1)})
      .permute({0, 3, 1, 2});
}

}  // namespace lorascale::models::diffusion
