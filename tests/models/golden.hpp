// Published pseudo-random tensors (FNV-1a of the key, splitmix64), so that implementations compare
// without a file of weights.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "base/rng.hpp"

namespace lorascale::models {

// Uniform in [-0.5, 0.5), as it follows from key and place.
inline double golden_number(std::uint64_t key, std::int64_t place) {
  return static_cast<double>(mix64(key + static_cast<std::uint64_t>(place)) >> 40) * 0x1p-24 - 0.5;
}

// Uniform with variance 1 / fan-in for matrices, around 1 for norms, around 0 for biases.
inline at::Tensor golden_tensor(const std::string& key, const std::vector<std::int64_t>& shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  double fan_in = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) {
    fan_in *= static_cast<double>(shape[i]);
  }
  const auto hash = fnv1a64(key);
  const double scale = 2.0 * std::sqrt(3.0 / fan_in);
  float* data = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    const double u = golden_number(hash, i);
    const double value = shape.size() > 1        ? u * scale
                         : key.ends_with("bias") ? 0.1 * u
                                                 : 1.0 + 0.2 * u;
    data[i] = static_cast<float>(value);
  }
  return tensor;
}

// Inputs: variance 1.
inline at::Tensor golden_input(const std::string& key, const std::vector<std::int64_t>& shape) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  const auto hash = fnv1a64(key);
  float* data = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    data[i] = static_cast<float>(golden_number(hash, i) * 2.0 * std::sqrt(3.0));
  }
  return tensor;
}

}  // namespace lorascale::models
