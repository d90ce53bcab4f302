#include "optim/weight_average.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace lorascale::optim {

WeightAverage::WeightAverage(std::unique_ptr<Optimizer> inner, const at::Tensor& parameters)
    : inner_(std::move(inner)),
      average_(at::zeros_like(parameters)),
      mass_(at::zeros({}, parameters.options())) {}

void WeightAverage::step(at::Tensor& parameters, at::Tensor& gradient, const Hyperparameters& hyper,
                         const GradientFacts& facts) {
  inner_->step(parameters, gradient, hyper, facts);
  const auto& [keep, add] = hyper.average;
  if (add == 0) {
    return;
  }
  const at::Tensor skip = facts.skip > 0;
  at::where_out(mass_, skip, mass_, mass_ * keep + add);
  // 1 exactly for the first one; not finite, and not used, where that is skipped.
  const at::Tensor share = at::full_like(mass_, add) / mass_;
  at::where_out(average_, skip, average_, at::lerp(average_, parameters, share));
}

std::vector<Optimizer::NamedTensor> WeightAverage::state() const {
  auto tensors = inner_->state();
  tensors.push_back({"average", average_});
  tensors.push_back({"average_mass", mass_});
  return tensors;
}

bool WeightAverage::begun() const {
  return mass_.item<float>() > 0;
}

void WeightAverage::exchange(at::Tensor& parameters, at::Tensor& scratch) {
  scratch.copy_(parameters);
  parameters.copy_(average_);
  average_.copy_(scratch);
}

}  // namespace lorascale::optim
