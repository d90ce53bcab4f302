#include "train/noise_meter.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <optional>

namespace lorascale::train {

NoiseMeter::NoiseMeter(const adapters::TrainableParameters& parameters,
                       const optim::Optimizer& optimizer)
    : parameters_(parameters), optimizer_(optimizer) {}

std::int64_t NoiseMeter::columns() const {
  return 2 * static_cast<std::int64_t>(parameters_.groups().size());
}

void NoiseMeter::begin(const optim::Hyperparameters& hyper, std::int64_t updates) {
  metric_ = updates < kHistory ? at::Tensor() : optimizer_.metric(hyper);
  if (metric_.defined()) {
    // What never had a gradient has no metric either: it is left out, not divided by eps.
    metric_.masked_fill_(metric_.le(hyper.eps), std::numeric_limits<double>::infinity());
  }
}

at::Tensor NoiseMeter::squares(const at::Tensor& gradient) const {
  const auto square = [&](const at::Tensor& flat, const adapters::ParameterGroup& group) {
    return at::linalg_vector_norm(flat.narrow(0, group.begin, group.end - group.begin), 2,
                                  std::nullopt, false, at::kDouble)
        .square();
  };
  std::vector<at::Tensor> values;
  for (const auto& group : parameters_.groups()) {
    values.push_back(square(gradient, group));
  }
  const at::Tensor preconditioned = metric_.defined() ? gradient / metric_ : at::Tensor();
  for (const auto& group : parameters_.groups()) {
    values.push_back(preconditioned.defined() ? square(preconditioned, group)
                                              : at::zeros({}, values.front().options()));
  }
  return at::stack(values);
}

std::vector<coordinator::GroupNorms> NoiseMeter::facts(const std::vector<std::vector<double>>& rows,
                                                       const std::vector<double>& targets,
                                                       const std::vector<double>& whole) const {
  std::int64_t leaves = 0;
  double weight = 0;
  for (const double count : targets) {
    leaves += count > 0 ? 1 : 0;
    weight += count;
  }
  // A mean gradient is its sum over the targets: n_k |g_k|^2 = |sum_k|^2 / n_k.
  const auto norms = [&](std::size_t column) {
    coordinator::SquareNorms result;
    for (std::size_t leaf = 0; leaf < rows.size(); ++leaf) {
      if (targets[leaf] > 0) {
        result.weighted_leaf_square += rows[leaf][column] / targets[leaf];
      }
    }
    result.mean_square = weight > 0 ? whole[column] / (weight * weight) : 0;
    return result;
  };
  std::vector<coordinator::GroupNorms> groups;
  const auto count = parameters_.groups().size();
  for (std::size_t group = 0; group < count; ++group) {
    const auto& known = parameters_.groups()[group];
    if (known.begin == known.end) {
      continue;
    }
    groups.push_back({known.name, leaves, weight, norms(group), std::nullopt});
    if (metric_.defined()) {
      groups.back().preconditioned = norms(count + group);
    }
  }
  return groups;
}

}  // namespace lorascale::train
