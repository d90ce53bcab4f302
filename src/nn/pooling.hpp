// Pooling of [samples, channels, height, width]: the maximum of 3 x 3 at every second place, and
// the mean of all. Backward adds in a fixed order, on any device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lorascale::nn {

struct MaxPoolSaved {
  std::int64_t height = 0, width = 0;  // of the input
  // uint8 [samples, channels, (height + 1) / 2, (width + 1) / 2]: which of its 3 x 3 inputs was
  // taken, the first of equals.
  at::Tensor place;
};

// 3 x 3, stride 2, padding 1.
at::Tensor max_pool(const at::Tensor& x, MaxPoolSaved* saved);
at::Tensor max_pool_backward(const at::Tensor& dy, const MaxPoolSaved& saved);

// [samples, channels]
at::Tensor mean_pool(const at::Tensor& x);
// Of x [samples, channels, height, width].
at::Tensor mean_pool_backward(const at::Tensor& dy, std::int64_t height, std::int64_t width);

}  // namespace lorascale::nn
