// Maps [samples, channels, height, width] as tokens and back: views where channels stand last.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorascale::models::diffusion {

// [samples * height * width, channels]
inline at::Tensor to_tokens(const at::Tensor& map) {
  return map.permute({0, 2, 3, 1}).reshape({-1, map.size(1)});
}

// A map of the sides of `like`.
inline at::Tensor to_map(const at::Tensor& tokens, const at::Tensor& like) {
  return tokens.view({like.size(0), like.size(2), like.size(3), tokens.size(1)})
      .permute({0, 3, 1, 2});
}

}  // namespace lorascale::models::diffusion
