// Numbers of a layer's channels beside its rows, [rows, channels] or [rows, channels, height,
// width].
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lorascale::nn {

// `values` [channels] in the type of y, shaped so that they multiply its channels.
inline at::Tensor of_channels(const at::Tensor& values, const at::Tensor& y) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(y.dim()), 1);
  shape[1] = values.size(0);
  return values.to(y.scalar_type()).view(shape);
}

// fp32 [channels]: sums of all else.
inline at::Tensor sum_of_channels(const at::Tensor& y) {
  std::vector<std::int64_t> dimensions = {0};
  for (std::int64_t i = 2; i < y.dim(); ++i) {
    dimensions.push_back(i);
  }
  return y.sum(dimensions, /*keepdim=*/false, at::kFloat);
}

}  // namespace lorascale::nn
