// Group normalisation (Wu & He 2018) of [samples, channels, height, width]: each sample by itself,
// by the mean and variance of `groups` sets of channels. Arithmetic is fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace lorascale::nn {

struct GroupNormSaved {
  at::Tensor input;       // [samples, channels, height, width]
  at::Tensor mean, rstd;  // [samples, groups] fp32
};

class GroupNorm {
 public:
  std::string name;         // module path in the checkpoint
  at::Tensor weight, bias;  // [channels]
  at::Tensor weight_grad;   // fp32 [channels]; defined when the layer is trained
  at::Tensor bias_grad;
  std::int64_t groups = 1;  // divides the channels
  double eps = 1e-5;

  [[nodiscard]] bool trains() const { return weight_grad.defined(); }

  at::Tensor forward(const at::Tensor& x, GroupNormSaved* saved) const;
  // y again, from what was saved.
  [[nodiscard]] at::Tensor apply(const GroupNormSaved& saved) const;
  // Adds the parameters' gradients; returns dx, or nothing when it is not needed. dy stays as it
  // is.
  at::Tensor backward(const at::Tensor& dy, const GroupNormSaved& saved, bool need_dx) const;
};

}  // namespace lorascale::nn
