// What the models of a diffusion pipeline are made of: layers without values, and their slots.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "nn/conv2d.hpp"
#include "nn/group_norm.hpp"
#include "nn/layer_norm.hpp"
#include "nn/linear_group.hpp"
#include "nn/parameter_slot.hpp"

namespace lorascale::models::diffusion {

// Members with the widths of their outputs.
nn::LinearGroup linear_group(const std::vector<std::pair<std::string, std::int64_t>>& members,
                             std::int64_t in, bool bias, const at::TensorOptions& options);
nn::LayerNorm layer_norm(const std::string& name, std::int64_t width, double eps,
                         const at::TensorOptions& options);
nn::GroupNorm group_norm(const std::string& name, std::int64_t channels, std::int64_t groups,
                         double eps, const at::TensorOptions& options);
// A square kernel; padding that keeps the sides but for the stride.
nn::Conv2d convolution(const std::string& name, std::int64_t in, std::int64_t out,
                       std::int64_t kernel, std::int64_t stride, const at::TensorOptions& options);

void add_convolution_slots(nn::Conv2d& conv, std::vector<nn::ParameterSlot>& slots);
// Of a LayerNorm or a GroupNorm.
template <class Norm>
void add_norm_slots(Norm& norm, std::vector<nn::ParameterSlot>& slots) {
  slots.push_back(
      {{{norm.name + ".weight", norm.weight.sizes().vec()}}, &norm.weight, &norm.weight_grad});
  slots.push_back({{{norm.name + ".bias", norm.bias.sizes().vec()}}, &norm.bias, &norm.bias_grad});
}

}  // namespace lorascale::models::diffusion
