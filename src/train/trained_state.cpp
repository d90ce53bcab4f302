#include "train/trained_state.hpp"

#include <utility>

namespace lorascale::train {

std::vector<optim::Optimizer::NamedTensor> TrainedState::tensors() const {
  std::vector<optim::Optimizer::NamedTensor> tensors = {{"parameters", parameters.master()}};
  for (auto& tensor : optimizer.state()) {
    tensors.push_back(std::move(tensor));
  }
  if (statistics.defined()) {
    tensors.push_back({"statistics", statistics});
  }
  return tensors;
}

}  // namespace lorascale::train
