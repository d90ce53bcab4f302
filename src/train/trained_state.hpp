// All that changes while a run trains, as named tensors: what checkpoints hold, and what is put
// back after updates that were made to learn something.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "adapters/parameters.hpp"
#include "optim/optimizer.hpp"

namespace lorascale::train {

struct TrainedState {
  const adapters::TrainableParameters& parameters;
  const optim::Optimizer& optimizer;
  at::Tensor statistics{};  // of the model; undefined: it has none

  // The same tensors for the whole of a run.
  [[nodiscard]] std::vector<optim::Optimizer::NamedTensor> tensors() const;
};

}  // namespace lorascale::train
