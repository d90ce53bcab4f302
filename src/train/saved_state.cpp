#include "train/saved_state.hpp"

#include <ATen/TensorOperators.h>

#include "base/hash.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::train {

SavedState::SavedState(const TrainedState& state) : state_(state) {
  for (const auto& [name, tensor] : state_.tensors()) {
    values_.push_back(tensor.is_cpu() ? tensor.clone() : tensor.cpu());
  }
}

void SavedState::restore() const {
  const auto places = state_.tensors();
  for (std::size_t i = 0; i < places.size(); ++i) {
    at::Tensor(places[i].tensor).copy_(values_[i]);
  }
  state_.parameters.refresh();
}

std::string state_digest(const TrainedState& state) {
  Sha256 hash;
  for (const auto& [name, tensor] : state.tensors()) {
    hash.update(nn::bytes_of(tensor.cpu().contiguous()));
  }
  return hash.hex();
}

}  // namespace lorascale::train
