#include "nn/lora_conv2d.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>

#include "base/error.hpp"
#include "nn/convolution.hpp"
#include "nn/dropout.hpp"

namespace lorascale::nn {

LoraConv2d::LoraConv2d(LoraFactors factors, const Conv2dGeometry& geometry)
    : factors_(std::move(factors)), geometry_(geometry) {
  LS_ASSERT(geometry_.groups == 1);
}

bool LoraConv2d::drops(const SampleRows* rows) const {
  return rows != nullptr && factors_.dropout > 0;
}

at::Tensor LoraConv2d::mask(const SampleRows& rows, const at::Tensor& x) const {
  const auto width = x.size(1) * x.size(2) * x.size(3);
  return dropout_scale(rows, factors_.draw, factors_.dropout, width, x.options()).view(x.sizes());
}

void LoraConv2d::forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
                         DeltaSaved* saved) const {
  at::Tensor low_rank = convolve(drops(rows) ? x * mask(*rows, x) : x, factors_.a, {}, geometry_);
  factors_.drop_ranks(rows, low_rank);
  y.add_(convolve(low_rank, factors_.b, {}, {}), factors_.scale);
  if (saved != nullptr) {
    saved->push_back(std::move(low_rank));
  }
}

void LoraConv2d::backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                          const DeltaSaved& saved, at::Tensor& dx) const {
  const at::Tensor& a = factors_.a;
  const at::Tensor& grad_a = factors_.grad_a;
  const double scale = factors_.scale;
  at::Tensor low_rank_grad = convolution_input_gradient(dy, saved[0], factors_.b, {});
  factors_.drop_ranks(rows, low_rank_grad);
  accumulate_convolution(factors_.grad_b, dy, saved[0], {}, scale);
  if (drops(rows)) {
    const at::Tensor scales = mask(*rows, x);
    accumulate_convolution(grad_a, low_rank_grad, x * scales, geometry_, scale);
    if (dx.defined()) {
      dx.addcmul_(scales, convolution_input_gradient(low_rank_grad, x, a, geometry_), scale);
    }
    return;
  }
  accumulate_convolution(grad_a, low_rank_grad, x, geometry_, scale);
  if (dx.defined()) {
    dx.add_(convolution_input_gradient(low_rank_grad, x, a, geometry_), scale);
  }
}

at::Tensor LoraConv2d::weight_change(const at::Tensor& weight) const {
  const at::Tensor a = factors_.a.to(at::kFloat).flatten(1);  // [rank, in * height * width]
  const at::Tensor b = factors_.b.to(at::kFloat).flatten(1);  // [out, rank]
  return at::mm(b, a).mul_(factors_.scale).view(weight.sizes());
}

}  // namespace lorascale::nn
