// A delta that scales what it is given, as IA3 does: y' = (1 + l) y, with a number for each
// channel.
#pragma once

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "nn/delta.hpp"

namespace lorascale::nn {

class Scaling : public Delta {
 public:
  // [channels]. The gradient is added to `grad`, where that is defined.
  explicit Scaling(at::Tensor l, at::Tensor grad = {}) : l_(std::move(l)), grad_(std::move(grad)) {}

  void forward(const at::Tensor& /*x*/, at::Tensor& y, const SampleRows* /*rows*/,
               DeltaSaved* saved) const override {
    if (saved != nullptr) {
      saved->push_back(y.clone());
    }
    y.mul_(over_channels(y.dim(), 1) + 1);
  }
  [[nodiscard]] bool changes_output_gradient() const override { return true; }
  void to_output_gradient(at::Tensor& dy, const DeltaSaved& /*saved*/) const override {
    dy.mul_(over_channels(dy.dim(), 1) + 1);
  }
  void backward(const at::Tensor& dy, const at::Tensor& /*x*/, const SampleRows* /*rows*/,
                const DeltaSaved& saved, at::Tensor& /*dx*/) const override {
    if (grad_.defined()) {
      at::Tensor(grad_).add_((dy * saved[0]).transpose(0, 1).flatten(1).sum(1));
    }
  }
  [[nodiscard]] at::Tensor weight_change(const at::Tensor& weight) const override {
    return over_channels(weight.dim(), 0) * weight;
  }
  [[nodiscard]] std::int64_t kept_width() const override { return l_.numel(); }

 private:
  [[nodiscard]] at::Tensor over_channels(std::int64_t dimensions, std::int64_t at) const {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(dimensions), 1);
    shape[static_cast<std::size_t>(at)] = -1;
    return l_.view(shape);
  }

  at::Tensor l_, grad_;
};

}  // namespace lorascale::nn
