// What a rank will hold at its peak, from shapes alone: weights, trained state, what a leaf's
// forward keeps for its backward, and the model's head at work. In bytes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "train/session.hpp"

namespace lorascale::train {

struct MemoryForecast {
  std::int64_t model_parameters = 0;
  double weights = 0;                   // where ranks of a node share them, the rank's share
  int weight_holders = 1;               // ranks that share them
  double trained_state = 0;             // master, gradient and optimizer moments
  models::ActivationBytes activations;  // of the heaviest leaf
  double temporary = 0;                 // of the optimizer's step, when activations are gone
  [[nodiscard]] double total() const {
    return weights + trained_state + std::max(activations.blocks + activations.head, temporary);
  }
};

MemoryForecast forecast_memory(const Session& session, std::int64_t leaf_size);

}  // namespace lorascale::train
