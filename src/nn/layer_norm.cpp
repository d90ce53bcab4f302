#include "nn/layer_norm.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>

#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

at::Tensor wide(const at::Tensor& x) {
  return x.to(sum_type(x));
}

}  // namespace

at::Tensor LayerNorm::forward(const at::Tensor& x, LayerNormSaved* saved) const {
  auto [y, mean, rstd] = at::native_layer_norm(wide(x), {x.size(1)}, wide(weight), wide(bias), eps);
  if (saved != nullptr) {
    *saved = {x, std::move(mean), std::move(rstd)};
  }
  return y.to(x.scalar_type());
}

at::Tensor LayerNorm::apply(const LayerNormSaved& saved) const {
  const at::Tensor normed = (wide(saved.input) - saved.mean).mul_(saved.rstd);
  return normed.mul_(wide(weight)).add_(wide(bias)).to(saved.input.scalar_type());
}

void LayerNorm::backward(const at::Tensor& dy, const LayerNormSaved& saved, at::Tensor& dx) const {
  const at::Tensor& x = saved.input;
  const auto [input, weights, biases] = at::native_layer_norm_backward(
      wide(dy).contiguous(), wide(x), {x.size(1)}, saved.mean, saved.rstd, wide(weight), wide(bias),
      {dx.defined(), trains(), trains()});
  if (trains()) {
    weight_grad.add_(weights);
    bias_grad.add_(biases);
  }
  if (dx.defined()) {
    dx.add_(input.to(dx.scalar_type()));
  }
}

}  // namespace lorascale::nn
