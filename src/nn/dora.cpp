#include "nn/dora.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>

#include <utility>

#include "nn/channels.hpp"

namespace lorascale::nn {

at::Tensor row_squares(const at::Tensor& weight) {
  return weight.to(at::kFloat).flatten(1).square().sum(1);
}

at::Tensor row_lengths(const at::Tensor& weight, const at::Tensor& weight_squares,
                       const LoraFactors& factors) {
  const at::Tensor a = factors.a.to(at::kFloat).flatten(1);
  const at::Tensor b = factors.b.to(at::kFloat).flatten(1);
  // |w + s b a|^2 = |w|^2 + b (2 s a w' + s^2 a a' b')
  const at::Tensor beside =
      at::mm(weight.to(at::kFloat).flatten(1), a.t()).mul_(2 * factors.scale) +
      at::mm(b, at::mm(a, a.t())).mul_(factors.scale * factors.scale);
  return (weight_squares + (b * beside).sum(1)).clamp_min_(0).sqrt_();
}

at::Tensor dora_change(const at::Tensor& weight, const LoraFactors& factors,
                       const at::Tensor& magnitude) {
  const at::Tensor whole = weight.to(at::kFloat).flatten(1);
  const at::Tensor low_rank =
      at::mm(factors.b.to(at::kFloat).flatten(1), factors.a.to(at::kFloat).flatten(1))
          .mul_(factors.scale);
  const at::Tensor part = magnitude / row_lengths(weight, row_squares(weight), factors);
  return ((whole + low_rank) * part.unsqueeze(1) - whole).view(weight.sizes());
}

Dora::Dora(std::unique_ptr<Delta> lora, LoraFactors factors, at::Tensor weight, at::Tensor bias,
           at::Tensor magnitude, at::Tensor magnitude_grad)
    : lora_(std::move(lora)),
      factors_(std::move(factors)),
      weight_(std::move(weight)),
      bias_(std::move(bias)),
      weight_squares_(row_squares(weight_)),
      magnitude_(std::move(magnitude)),
      magnitude_grad_(std::move(magnitude_grad)) {}

void Dora::forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
                   DeltaSaved* saved) const {
  const at::Tensor lengths = row_lengths(weight_, weight_squares_, factors_);
  DeltaSaved of_lora;
  if (bias_.defined()) {
    y.sub_(of_channels(bias_, y));
  }
  lora_->forward(x, y, rows, saved != nullptr ? &of_lora : nullptr);
  if (saved != nullptr) {
    *saved = std::move(of_lora);
    saved->push_back(y.clone());
    saved->push_back(lengths);
  }
  y.mul_(of_channels(magnitude_ / lengths, y));
  if (bias_.defined()) {
    y.add_(of_channels(bias_, y));
  }
}

void Dora::to_output_gradient(at::Tensor& dy, const DeltaSaved& saved) const {
  dy.mul_(of_channels(magnitude_ / saved.back(), dy));
}

void Dora::backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                    const DeltaSaved& saved, at::Tensor& dx) const {
  const at::Tensor& lengths = saved.back();
  const at::Tensor& turned = saved[saved.size() - 2];  // W x + s B A x
  at::Tensor(magnitude_grad_).add_(sum_of_channels(dy * turned) / lengths);
  const DeltaSaved of_lora(saved.begin(), saved.end() - 2);
  lora_->backward(dy * of_channels(magnitude_ / lengths, dy), x, rows, of_lora, dx);
}

at::Tensor Dora::weight_change(const at::Tensor& weight) const {
  return dora_change(weight, factors_, magnitude_);
}

}  // namespace lorascale::nn
