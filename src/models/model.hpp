// The seam between the trainer and a model. The trainer does not know how gradients come about.
// Not thread-safe; one leaf at a time; all work is enqueued on the device of the weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "data/tokens/token_leaf.hpp"
#include "nn/linear_group.hpp"
#include "nn/parameter_slot.hpp"

namespace lorascale::models {

struct LeafResult {
  at::Tensor loss_sum;  // fp64 scalar on the device: sum over the leaf's targets
  std::int64_t targets = 0;
  std::int64_t tokens = 0;
};

class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;

  [[nodiscard]] virtual std::int64_t vocabulary() const = 0;
  [[nodiscard]] virtual at::Device device() const = 0;
  [[nodiscard]] virtual at::ScalarType dtype() const = 0;
  // Linear layers that an adapter may attach to, in forward order.
  virtual std::vector<nn::LinearGroup*> linear_groups() = 0;
  // Every weight, in forward order.
  virtual std::vector<nn::ParameterSlot> parameter_slots() = 0;

  // Forward and backward of one leaf: adds the gradient of the SUM of its losses to the gradient
  // views. `dropout_seed` is the run's seed; masks follow from it, the epoch and the sample ids.
  virtual LeafResult accumulate(const data::TokenLeaf& leaf, std::uint64_t dropout_seed) = 0;
  virtual LeafResult evaluate(const data::TokenLeaf& leaf) = 0;
};

}  // namespace lorascale::models
