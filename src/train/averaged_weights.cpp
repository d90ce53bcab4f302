#include "train/averaged_weights.hpp"

#include <ATen/core/grad_mode.h>
#include <spdlog/spdlog.h>

#include <exception>

namespace lorascale::train {

AveragedWeights::AveragedWeights(optim::WeightAverage* average,
                                 const adapters::TrainableParameters& parameters)
    : average_(average != nullptr && average->begun() ? average : nullptr),
      parameters_(parameters) {
  exchange();
}

AveragedWeights::~AveragedWeights() {
  try {
    exchange();
  } catch (const std::exception& error) {
    // Only a lost device does this, and whatever comes next fails on it too.
    spdlog::error("the trained weights could not be put back: {}", error.what());
  }
}

void AveragedWeights::exchange() {
  if (average_ == nullptr) {
    return;
  }
  const at::NoGradGuard no_grad;
  at::Tensor master = parameters_.master();
  at::Tensor scratch = parameters_.gradient();
  average_->exchange(master, scratch);
  parameters_.refresh();
}

}  // namespace lorascale::train
