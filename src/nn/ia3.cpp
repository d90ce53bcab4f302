#include "nn/ia3.hpp"

#include <ATen/TensorOperators.h>

#include <utility>
#include <vector>

#include "base/error.hpp"
#include "nn/channels.hpp"
#include "nn/product.hpp"

namespace lorascale::nn {

at::Tensor scaling_change(const at::Tensor& weight, const LayerScaling& scaling) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(weight.dim()), 1);
  shape[scaling.of_inputs ? 1 : 0] = -1;
  return weight.to(at::kFloat) * scaling.change.to(weight.device()).view(shape);
}

Ia3::Ia3(LayerScaling scaling, at::Tensor gradient, at::Tensor weight, at::Tensor bias)
    : scaling_(std::move(scaling)), gradient_(std::move(gradient)), weight_(std::move(weight)) {
  if (!scaling_.of_inputs && !scaling_.of_bias) {
    bias_ = std::move(bias);
  }
  LS_ASSERT(!scaling_.of_inputs || weight_.dim() == 2);
}

void Ia3::forward(const at::Tensor& x, at::Tensor& y, const SampleRows* /*rows*/,
                  DeltaSaved* saved) const {
  if (scaling_.of_inputs) {
    y.add_(product(x * of_channels(scaling_.change, x), weight_.t()));
    return;
  }
  const at::Tensor scaled = bias_.defined() ? y - of_channels(bias_, y) : y.clone();
  y.addcmul_(scaled, of_channels(scaling_.change, y));
  if (saved != nullptr) {
    saved->push_back(scaled);
  }
}

void Ia3::to_output_gradient(at::Tensor& dy, const DeltaSaved& /*saved*/) const {
  dy.addcmul_(dy, of_channels(scaling_.change, dy));
}

void Ia3::backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* /*rows*/,
                   const DeltaSaved& saved, at::Tensor& dx) const {
  if (!scaling_.of_inputs) {
    gradient_.add_(sum_of_channels(dy * saved[0]));
    return;
  }
  const at::Tensor of_scaled = product(dy, weight_);  // of l x
  gradient_.add_(sum_of_channels(of_scaled * x));
  if (dx.defined()) {
    dx.addcmul_(of_scaled, of_channels(scaling_.change, dx));
  }
}

}  // namespace lorascale::nn
