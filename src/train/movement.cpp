#include "train/movement.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "train/vote.hpp"

namespace lorascale::train {
namespace {

at::Tensor view_of(const adapters::TrainableParameters& parameters, const std::string& name) {
  const auto& entries = parameters.entries();
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const auto& entry) { return entry.name == name; });
  LS_ASSERT(found != entries.end());
  return adapters::TrainableParameters::view(parameters.master(), *found);
}

double square_of_weights(const std::vector<adapters::LoraModule>& modules) {
  double sum = 0;
  for (const auto& module : modules) {
    const auto weight = module.group->member_rows(module.group->weight, module.member);
    const double norm =
        at::linalg_vector_norm(weight, 2, std::nullopt, false, at::kFloat).item<double>();
    sum += norm * norm;
  }
  return sum;
}

}  // namespace

MovementMeter::MovementMeter(const Trainable& trainable) : trainable_(trainable) {
  for (const auto& module : trainable.modules) {
    factors_.push_back({view_of(*trainable.parameters, adapters::lora_a_name(module.name)),
                        view_of(*trainable.parameters, adapters::lora_b_name(module.name)),
                        module.scale});
  }
}

std::optional<double> MovementMeter::ratio() {
  if (factors_.empty()) {
    return std::nullopt;
  }
  const at::NoGradGuard no_grad;
  bool out_of_memory = false;
  double square = 0;
  const auto error = attempt(
      [&] {
        if (!weight_square_) {
          weight_square_ = square_of_weights(trainable_.modules);
        }
        // |B A|^2 = tr(A A' B' B): two small squares of size [rank, rank].
        std::vector<at::Tensor> squares;
        for (const auto& [a, b, scale] : factors_) {
          squares.push_back((at::mm(a, a.t()) * at::mm(b.t(), b)).sum() * (scale * scale));
        }
        square = at::stack(squares).to(at::kDouble).sum().item<double>();
      },
      &out_of_memory);
  if (error) {
    throw Error(*error);
  }
  if (out_of_memory || !(*weight_square_ > 0)) {
    return std::nullopt;
  }
  return std::sqrt(std::max(0.0, square) / *weight_square_);
}

}  // namespace lorascale::train
