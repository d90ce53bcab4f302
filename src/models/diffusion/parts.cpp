#include "models/diffusion/parts.hpp"

#include <ATen/ops/empty.h>

namespace lorascale::models::diffusion {

nn::LinearGroup linear_group(const std::vector<std::pair<std::string, std::int64_t>>& members,
                             std::int64_t in, bool bias, const at::TensorOptions& options) {
  nn::LinearGroup group;
  std::int64_t out = 0;
  for (const auto& [name, width] : members) {
    group.members.push_back({name, width, out});
    out += width;
  }
  group.weight = at::empty({out, in}, options);
  if (bias) {
    group.bias = at::empty({out}, options);
  }
  return group;
}

nn::LayerNorm layer_norm(const std::string& name, std::int64_t width, double eps,
                         const at::TensorOptions& options) {
  nn::LayerNorm norm;
  norm.name = name;
  norm.weight = at::empty({width}, options);
  norm.bias = at::empty({width}, options);
  norm.eps = eps;
  return norm;
}

nn::GroupNorm group_norm(const std::string& name, std::int64_t channels, std::int64_t groups,
                         double eps, const at::TensorOptions& options) {
  nn::GroupNorm norm;
  norm.name = name;
  norm.weight = at::empty({channels}, options);
  norm.bias = at::empty({channels}, options);
  norm.groups = groups;
  norm.eps = eps;
  return norm;
}

nn::Conv2d convolution(const std::string& name, std::int64_t in, std::int64_t out,
                       std::int64_t kernel, std::int64_t stride, const at::TensorOptions& options) {
  nn::Conv2d conv;
  conv.name = name;
  conv.weight = at::empty({out, in, kernel, kernel}, options);
  conv.bias = at::empty({out}, options);
  conv.geometry = {{stride, stride}, {kernel / 2, kernel / 2}, 1};
  return conv;
}

void add_convolution_slots(nn::Conv2d& conv, std::vector<nn::ParameterSlot>& slots) {
  slots.push_back(
      {{{conv.name + ".weight", conv.weight.sizes().vec()}}, &conv.weight, &conv.weight_grad});
  slots.push_back({{{conv.name + ".bias", conv.bias.sizes().vec()}}, &conv.bias, &conv.bias_grad});
}

}  // namespace lorascale::models::diffusion
