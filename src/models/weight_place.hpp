// Where the weights of a model come to live: on a device, or in memory that several processes of a
// node have in common, of which each reads a part (train/shared_base.hpp). Everybody's weights are
// there once all have read theirs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "nn/parameter_slot.hpp"

namespace lorascale::models {

struct CommonMemory {
  std::shared_ptr<const void> owner;  // kept by the weights
  std::span<std::byte> bytes;         // starts at a multiple of 64
  int part = 0;                       // what this process reads, of `parts`
  int parts = 1;
};

class WeightPlace {
 public:
  WeightPlace(at::Device device) : device_(device) {}  // NOLINT(google-explicit-constructor)
  WeightPlace(at::DeviceType type) : device_(type) {}  // NOLINT(google-explicit-constructor)
  explicit WeightPlace(CommonMemory memory) : device_(at::kMeta), memory_(std::move(memory)) {}

  // What a model is made on before its weights take their place; kMeta in common memory, for a
  // model that has nothing but what is in its slots.
  [[nodiscard]] at::Device device() const { return device_; }
  // Whether this process does what one is enough for.
  [[nodiscard]] bool is_first() const { return !memory_ || memory_->part == 0; }
  // Gives the slots of a model their memory; returns those that this process is to read.
  [[nodiscard]] std::vector<nn::ParameterSlot> settle(
      const std::vector<nn::ParameterSlot>& slots) const;

 private:
  at::Device device_;
  std::optional<CommonMemory> memory_;
};

// Common memory that such slots need.
std::uint64_t bytes_to_settle(const std::vector<nn::ParameterSlot>& slots);

}  // namespace lorascale::models
