#include "train/saved_state.hpp"

#include <ATen/TensorOperators.h>

#include "base/hash.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::train {
namespace {

std::vector<at::Tensor> tensors_of(const adapters::TrainableParameters& parameters,
                                   const optim::Optimizer& optimizer) {
  std::vector<at::Tensor> tensors = {parameters.master()};
  for (const auto& [name, tensor] : optimizer.state()) {
    tensors.push_back(tensor);
  }
  return tensors;
}

}  // namespace

SavedState::SavedState(const adapters::TrainableParameters& parameters,
                       const optim::Optimizer& optimizer)
    : parameters_(parameters), places_(tensors_of(parameters, optimizer)) {
  for (const auto& tensor : places_) {
    values_.push_back(tensor.is_cpu() ? tensor.clone() : tensor.cpu());
  }
}

void SavedState::restore() const {
  for (std::size_t i = 0; i < places_.size(); ++i) {
    at::Tensor(places_[i]).copy_(values_[i]);
  }
  parameters_.refresh();
}

std::string state_digest(const adapters::TrainableParameters& parameters,
                         const optim::Optimizer& optimizer) {
  Sha256 hash;
  for (const auto& tensor : tensors_of(parameters, optimizer)) {
    hash.update(nn::bytes_of(tensor.cpu().contiguous()));
  }
  return hash.hex();
}

}  // namespace lorascale::train
