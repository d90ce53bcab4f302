// Layer normalisation (Ba et al. 2016) of [rows, d]: each row by its own mean and variance.
// Arithmetic is fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace lorascale::nn {

struct LayerNormSaved {
  at::Tensor input;       // [rows, d]
  at::Tensor mean, rstd;  // [rows, 1] fp32
};

class LayerNorm {
 public:
  std::string name;         // module path in the checkpoint
  at::Tensor weight, bias;  // [d]
  at::Tensor weight_grad;   // fp32 [d]; defined when the layer is trained
  at::Tensor bias_grad;
  double eps = 1e-5;

  [[nodiscard]] bool trains() const { return weight_grad.defined(); }

  at::Tensor forward(const at::Tensor& x, LayerNormSaved* saved) const;
  // y again, from what was saved.
  [[nodiscard]] at::Tensor apply(const LayerNormSaved& saved) const;
  // Adds the parameters' gradients, and where `dx` is defined the input's to it.
  void backward(const at::Tensor& dy, const LayerNormSaved& saved, at::Tensor& dx) const;
};

}  // namespace lorascale::nn
