// Optimizers on flat fp32 vectors: one call per update, nothing waits for the device. What depends
// on the data (divisor of the gradient, whether the update is applied) comes as device scalars.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lorascale::optim {

// What an update is to the average of the weights (weight_average.hpp): with mass' = keep mass +
// add its weights enter with add / mass'. add = 0: it does not take part.
struct AverageShare {
  double keep = 0, add = 0;
};

struct Hyperparameters {
  double lr = 0;
  double beta1 = 0.9, beta2 = 0.999;  // sgd and lars: beta1 is the momentum
  double eps = 1e-8;
  double weight_decay = 0;
  AverageShare average = {};
};

// A contiguous part of the vector with its own rate and decay.
struct Segment {
  std::int64_t begin = 0, end = 0;
  double lr_ratio = 1.0;
  bool decays = true;
  // lamb and lars: coefficient c of the trust ratios; 0: none, as if every ratio were 1. They are
  // per tensor; sizes of the tensors, which lie back to back and fill the segment.
  double trust = 0;
  std::vector<std::int64_t> tensors = {};

  // Its part of a vector, as a view.
  [[nodiscard]] at::Tensor of(const at::Tensor& flat) const {
    return flat.narrow(0, begin, end - begin);
  }
};

// Vectors of the gradient's size that a step of an optimizer, or a norm, holds at a time, at most.
inline constexpr std::int64_t kStepTemporaries = 4;

// What is common to a step, on the device of the vector.
struct GradientFacts {
  at::Tensor divisor;  // fp32 scalar: gradient / divisor is the clipped mean gradient
  at::Tensor skip;     // fp32 scalar: 1 where the update must not be applied, else 0
  at::Tensor norm;     // fp32 scalar: norm of the mean gradient before clipping
};

// Mean gradient = sum / count; clipped to `clip_norm` (0: not) as torch.nn.utils.clip_grad_norm_
// does; skipped where the norm is not finite. `count` is an fp64 scalar on the device.
GradientFacts gradient_facts(const at::Tensor& gradient_sum, const at::Tensor& count,
                             double clip_norm);

class WeightAverage;

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // The average of the weights that it keeps; null: none.
  virtual WeightAverage* average() { return nullptr; }
  // Updates `parameters` in place. `gradient` may be overwritten.
  virtual void step(at::Tensor& parameters, at::Tensor& gradient, const Hyperparameters& hyper,
                    const GradientFacts& facts) = 0;
  // What it divides a gradient by, element by element (Adam: sqrt(v) + eps, from before the
  // update); undefined for optimizers that have no metric of their own.
  [[nodiscard]] virtual at::Tensor metric(const Hyperparameters& /*hyper*/) const { return {}; }
  // Named state tensors, for checkpoints; the same tensors for the optimizer's whole life.
  struct NamedTensor {
    std::string name;
    at::Tensor tensor;
  };
  [[nodiscard]] virtual std::vector<NamedTensor> state() const = 0;
};

}  // namespace lorascale::optim
