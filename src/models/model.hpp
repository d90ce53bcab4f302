// The seam between the trainer and a model. The trainer does not know how gradients come about, nor
// what a leaf is made of. Not thread-safe; one leaf at a time; all work is enqueued on the device
// of the weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "data/leaf.hpp"
#include "nn/parameter_slot.hpp"
#include "nn/site.hpp"

namespace lorascale::models {

// Sums over the leaf's samples or targets, so that any split of a batch agrees.
struct LeafResult {
  at::Tensor loss_sum;  // fp64 scalar on the device: over the leaf's targets
  std::int64_t targets = 0;
  // fp64 [measures, 2] on the device: numerator and denominator of each of measure_names().
  at::Tensor measures{};
  // fp32 like statistics(), each number times the samples that it was taken over; of accumulate()
  // alone, and undefined where the model has none.
  at::Tensor statistics{};
};

// What a leaf's forward keeps for its backward. Bytes, by shapes alone.
struct ActivationBytes {
  double blocks = 0;
  double head = 0;  // the largest piece of logits that there is at a time
};

class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;

  [[nodiscard]] virtual std::string family() const = 0;  // "llama", "resnet", ...
  [[nodiscard]] virtual at::Device device() const = 0;
  [[nodiscard]] virtual at::ScalarType dtype() const = 0;
  // What an adapter may attach to, in forward order. The model must stay where it is.
  virtual std::vector<nn::Site> sites() = 0;
  // Parts with a weight that a user may think of as a site, and that are none yet.
  [[nodiscard]] virtual std::vector<std::string> parts_without_site() const { return {}; }
  // Every weight that can be trained, in forward order.
  virtual std::vector<nn::ParameterSlot> parameter_slots() = 0;
  // What files of the model hold besides: not trained.
  virtual std::vector<nn::ParameterSlot> buffers() { return {}; }
  // All that files of the model hold.
  std::vector<nn::ParameterSlot> file_slots() {
    auto slots = parameter_slots();
    const auto more = buffers();
    slots.insert(slots.end(), more.begin(), more.end());
    return slots;
  }

  // Forward and backward of one leaf: adds the gradient of the SUM of its losses to the gradient
  // views. What is random follows from the leaf's key and sample ids.
  virtual LeafResult accumulate(const data::Leaf& leaf) = 0;
  virtual LeafResult evaluate(const data::Leaf& leaf) = 0;
  // "accuracy", ...; the same for accumulate() and evaluate().
  [[nodiscard]] virtual std::vector<std::string> measure_names() const { return {}; }
  // Floating-point operations of the leaf's forward, two to a multiplication and addition: whether
  // measuring is a matter of seconds.
  [[nodiscard]] virtual double forward_operations(const data::Leaf& leaf) const = 0;
  [[nodiscard]] virtual ActivationBytes activation_bytes(const data::Leaf& leaf) const = 0;

  // State that follows from the forwards of training without being trained, as the running mean and
  // variance of batch normalisation: one flat fp32 vector on the device; undefined where nothing
  // moves, as in a frozen base. It is part of checkpoints.
  virtual at::Tensor statistics() { return {}; }
  // Moves it towards `mean`, that of the update's leaves weighted by samples, unless `skip` (a
  // boolean scalar on the device): once an update, after the vote, so that it follows neither from
  // the number of ranks nor from that of leaves.
  virtual void move_statistics(const at::Tensor& mean, const at::Tensor& skip) {
    static_cast<void>(mean);
    static_cast<void>(skip);
  }
};

}  // namespace lorascale::models
