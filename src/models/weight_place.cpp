#include "models/weight_place.hpp"

#include <ATen/ops/from_blob.h>

#include <algorithm>

#include "base/error.hpp"

namespace lorascale::models {
namespace {

// As the allocator of CPU tensors aligns: kernels take the same paths, and results are the same
// bits.
constexpr std::uint64_t kAlignment = 64;

std::uint64_t aligned_bytes(const at::Tensor& tensor) {
  return (tensor.nbytes() + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::uint64_t bytes_to_settle(const std::vector<nn::ParameterSlot>& slots) {
  std::uint64_t bytes = 0;
  for (const auto& slot : slots) {
    bytes += aligned_bytes(*slot.value);
  }
  return bytes;
}

std::vector<nn::ParameterSlot> WeightPlace::settle(
    const std::vector<nn::ParameterSlot>& slots) const {
  if (!memory_) {
    return slots;
  }
  const auto all = bytes_to_settle(slots);
  LS_ASSERT(all <= memory_->bytes.size());
  std::vector<nn::ParameterSlot> mine;
  std::uint64_t first = 0;
  for (const auto& slot : slots) {
    const auto bytes = aligned_bytes(*slot.value);
    // Neighbours of one file to one process, about as many bytes to each.
    const auto parts = static_cast<std::uint64_t>(memory_->parts);
    const auto part = (first + bytes / 2) * parts / std::max<std::uint64_t>(all, 1);
    *slot.value = at::from_blob(
        memory_->bytes.data() + first, slot.value->sizes(), [owner = memory_->owner](void*) {},
        at::TensorOptions().dtype(slot.value->scalar_type()).device(at::kCPU));
    if (part == static_cast<std::uint64_t>(memory_->part)) {
      mine.push_back(slot);
    }
    first += bytes;
  }
  return mine;
}

}  // namespace lorascale::models
