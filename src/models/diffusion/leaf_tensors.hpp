// What a leaf of pictures holds, as tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/error.hpp"
#include "data/pictures/picture_leaf.hpp"

namespace lorascale::models::diffusion {

inline const data::PictureLeaf& pictures_of(const data::Leaf& leaf) {
  const auto* pictures = dynamic_cast<const data::PictureLeaf*>(&leaf);
  LS_ASSERT(pictures != nullptr);
  return *pictures;
}

// On the CPU; the values must outlive it and stay as they are.
template <class T>
at::Tensor borrowed(const std::vector<T>& values, std::vector<std::int64_t> shape,
                    at::ScalarType type) {
  return at::from_blob(
      const_cast<T*>(values.data()),  // NOLINT(cppcoreguidelines-pro-type-const-cast)
      shape, at::TensorOptions().dtype(type));
}

// [samples, 3, height, width]
inline at::Tensor pixels_of(const data::PictureGroup& group) {
  const auto samples = std::ssize(group.samples);
  LS_ASSERT(std::ssize(group.pixels) == samples * 3 * group.height * group.width);
  return borrowed(group.pixels, {samples, 3, group.height, group.width}, at::kFloat);
}

// [samples, 1, height, width]; undefined where everything counts.
inline at::Tensor mask_of(const data::PictureGroup& group) {
  if (group.mask.empty()) {
    return {};
  }
  return borrowed(group.mask, {std::ssize(group.samples), 1, group.height, group.width},
                  at::kFloat);
}

// Samples' values as a column that meets [samples, channels, height, width].
inline at::Tensor column(const std::vector<double>& values, const at::TensorOptions& options) {
  at::Tensor host = at::empty({std::ssize(values), 1, 1, 1}, at::kFloat);
  std::ranges::transform(values, host.data_ptr<float>(),
                         [](double value) { return static_cast<float>(value); });
  return host.to(options);
}

}  // namespace lorascale::models::diffusion
