// Parameters and optimizer state, put aside in host memory and put back bit for bit: for updates
// that are made to learn something and then undone.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "adapters/parameters.hpp"
#include "optim/optimizer.hpp"

namespace lorascale::train {

class SavedState {
 public:
  // Both must outlive this object.
  SavedState(const adapters::TrainableParameters& parameters, const optim::Optimizer& optimizer);
  // Everything is as it was, the rounded copies of 16-bit models included.
  void restore() const;

 private:
  const adapters::TrainableParameters& parameters_;
  std::vector<at::Tensor> places_;
  std::vector<at::Tensor> values_;  // of places_, on the host
};

// SHA-256 over the bytes of the parameters and of each tensor of the optimizer, in its order.
std::string state_digest(const adapters::TrainableParameters& parameters,
                         const optim::Optimizer& optimizer);

}  // namespace lorascale::train
