#include "train/tensor_memory.hpp"

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <atomic>
#include <new>

#include "coordinator/leaf_fit.hpp"

namespace lorascale::train {
namespace {

// Counters are advisory between threads, exact in sum: the prefetch thread allocates a little, too.
struct Counters {
  std::atomic<std::int64_t> now{0}, peak{0}, limit{0};

  void add(std::int64_t bytes) {
    const auto total = now.fetch_add(bytes) + bytes;
    if (const auto most = limit.load(); most > 0 && total > most) {
      now.fetch_sub(bytes);
      throw std::bad_alloc();
    }
    auto seen = peak.load();
    while (total > seen && !peak.compare_exchange_weak(seen, total)) {
    }
  }
};
Counters counters;

class CountingAllocator : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* inner) : inner_(inner) {}

  c10::DataPtr allocate(std::size_t bytes) override {
    const auto size = static_cast<std::int64_t>(bytes);
    counters.add(size);
    c10::DataPtr data;
    try {
      data = inner_->allocate(bytes);
    } catch (...) {
      counters.now.fetch_sub(size);
      throw;
    }
    void* start = data.get();
    auto* block = new Block{std::move(data), size};
    return {start, block, &release, at::Device(at::kCPU)};
  }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  struct Block {
    c10::DataPtr data;
    std::int64_t bytes;
  };
  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    counters.now.fetch_sub(block->bytes);
    delete block;
  }

  c10::Allocator* inner_;
};

}  // namespace

void count_cpu_tensors() {
  static CountingAllocator allocator(c10::GetCPUAllocator());
  c10::SetCPUAllocator(&allocator);
}

void limit_cpu_tensors(std::int64_t bytes) {
  counters.limit.store(bytes);
}

TensorMemory tensor_memory(at::Device device) {
  if (device.is_cpu()) {
    return {counters.now.load(), counters.peak.load()};
  }
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  const auto& bytes = stats.allocated_bytes[0];
  return {bytes.current, bytes.peak};
}

void reset_peak_memory(at::Device device) {
  if (device.is_cpu()) {
    counters.peak.store(counters.now.load());
  } else {
    c10::getDeviceAllocator(device.type())->resetPeakStats(device.index());
  }
}

double memory_budget(at::Device device) {
  if (device.is_cpu()) {
    return static_cast<double>(counters.limit.load());
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
  if (!device.is_cpu()) {
    c10::getDeviceAllocator(device.type())->emptyCache();
  }
}

}  // namespace lorascale::train
