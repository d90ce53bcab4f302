#include "train/tensor_memory.hpp"

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>

#include "coordinator/memory/leaf_fit.hpp"
#include "train/block_pool.hpp"

namespace lorascale::train {
namespace {

// Never destroyed: libtorch's own static tensors may outlive it.
BlockPool& pool() {
  static auto* blocks = new BlockPool;
  return *blocks;
}

// The context of each DataPtr is its data, as Allocator::raw_allocate demands, which oneDNN's bf16
// products call.
class PoolAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* data = pool().allocate(bytes);
    return {data, data, &release, at::Device(at::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  static void release(void* data) { pool().free(data); }
};

}  // namespace

void count_cpu_tensors() {
  static PoolAllocator allocator;
  c10::SetCPUAllocator(&allocator);
}

void limit_cpu_tensors(std::int64_t bytes) {
  pool().limit(bytes);
}

void limit_tensors(at::Device place, std::int64_t bytes) {
  limit_cpu_tensors(place.is_cpu() ? bytes : 0);
}

CpuMemoryClaim::CpuMemoryClaim(std::int64_t bytes) {
  pool().claim(bytes);
  bytes_ = bytes;
}

CpuMemoryClaim::~CpuMemoryClaim() {
  pool().unclaim(bytes_);
}

TensorMemory tensor_memory(at::Device device) {
  if (device.is_cpu()) {
    return {pool().now(), pool().peak()};
  }
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  const auto& bytes = stats.allocated_bytes[0];
  return {bytes.current, bytes.peak};
}

void reset_peak_memory(at::Device device) {
  if (device.is_cpu()) {
    pool().reset_peak();
  } else {
    c10::getDeviceAllocator(device.type())->resetPeakStats(device.index());
  }
}

double memory_budget(at::Device device) {
  if (device.is_cpu()) {
    return static_cast<double>(pool().limit());
  }
  auto* allocator = c10::getDeviceAllocator(device.type());
  const auto [free, total] = allocator->getMemoryInfo(device.index());
  const auto ours = allocator->getDeviceStats(device.index()).reserved_bytes[0].current;
  return std::max(1.0, static_cast<double>(free) + static_cast<double>(ours) -
                           kDeviceReserve * static_cast<double>(total));
}

std::string budget_remedy(at::Device device) {
  const double limit = device.is_cpu() ? memory_budget(device) : 0;
  return limit > 0 ? ", or raise memory.budget_mib (now " + coordinator::mebibytes(limit) + ")"
                   : std::string();
}

std::string memory_remedy(at::Device device) {
  const std::string text =
      "set model.recompute: true, a shorter data.sequence_length, a lower adapter.rank or a "
      "smaller model.dtype";
  return text + budget_remedy(device);
}

void release_cached_memory(at::Device device) {
  if (device.is_cpu()) {
    pool().release();
  } else {
    c10::getDeviceAllocator(device.type())->emptyCache();
  }
}

}  // namespace lorascale::train
