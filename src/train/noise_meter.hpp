// What the noise scale is made of, measured per leaf: the squared norm of each parameter group's
// gradient, raw and in Adam's metric. Everything stays on the device until the update's one
// read-back. Definitions: coordinator/noise/gradient_noise.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "adapters/parameters.hpp"
#include "coordinator/noise/gradient_noise.hpp"
#include "optim/optimizer.hpp"

namespace lorascale::train {

class NoiseMeter {
 public:
  NoiseMeter(const adapters::TrainableParameters& parameters, const optim::Optimizer& optimizer);

  // Numbers per leaf: squares of all groups, raw and then preconditioned.
  [[nodiscard]] std::int64_t columns() const;
  // `hyper` of the update, before which Adam's moments have seen `updates` others. Of fewer than
  // kHistory it has no metric yet: a gradient over the root of k squares of its kind has heavy
  // tails (its square no mean for k = 1 and 2, no variance up to 4), and LoRA's A has no gradient
  // at all in the first update. One such value would outweigh every other in the averages of a
  // whole run.
  static constexpr std::int64_t kHistory = 10;
  void begin(const optim::Hyperparameters& hyper, std::int64_t updates);
  void forget_metric() { metric_ = at::Tensor(); }
  // fp64 [columns] on the device, of a gradient that is a SUM over targets.
  [[nodiscard]] at::Tensor squares(const at::Tensor& gradient) const;
  // `rows`: squares of each leaf, `targets` of each leaf, `whole`: squares of their sum.
  [[nodiscard]] std::vector<coordinator::GroupNorms> facts(
      const std::vector<std::vector<double>>& rows, const std::vector<double>& targets,
      const std::vector<double>& whole) const;

 private:
  const adapters::TrainableParameters& parameters_;
  const optim::Optimizer& optimizer_;
  at::Tensor metric_;  // what a gradient is divided by, fp32 [size]; undefined: none
};

}  // namespace lorascale::train
