// The trained state of a run, put aside in host memory and put back bit for bit: for updates
// that are made to learn something and then undone.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "train/trained_state.hpp"

namespace lorascale::train {

class SavedState {
 public:
  // What `state` refers to must outlive this object.
  explicit SavedState(const TrainedState& state);
  // Everything is as it was, the rounded copies of 16-bit models included.
  void restore() const;

 private:
  TrainedState state_;
  std::vector<at::Tensor> values_;  // of state_.tensors(), on the host
};

// SHA-256 over the bytes of its tensors, in their order.
std::string state_digest(const TrainedState& state);

}  // namespace lorascale::train
