// How much memory tensors take on this rank, and a limit for it. On the CPU every tensor is counted
// by an allocator of our own (block_pool.hpp), which also refuses (std::bad_alloc) what would pass
// the limit; on a device libtorch's caching allocator counts, and the device itself is the limit.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <utility>

namespace lorascale::train {

struct TensorMemory {
  std::int64_t now = 0;   // bytes
  std::int64_t peak = 0;  // since the last reset
};

// Counts CPU tensors from here on; once, before the first of them.
void count_cpu_tensors();
// 0: no limit.
void limit_cpu_tensors(std::int64_t bytes);
// memory.budget_mib of a run at `place`: a limit where its tensors live on the CPU. Elsewhere CPU
// tensors are staging on the way to a device, which no budget is meant for.
void limit_tensors(at::Device place, std::int64_t bytes);

// Memory of CPU tensors that no allocator knows, counted and limited like theirs while this object
// lives. std::bad_alloc past the limit.
class CpuMemoryClaim {
 public:
  CpuMemoryClaim() = default;
  explicit CpuMemoryClaim(std::int64_t bytes);
  CpuMemoryClaim(CpuMemoryClaim&& other) noexcept : bytes_(std::exchange(other.bytes_, 0)) {}
  CpuMemoryClaim& operator=(CpuMemoryClaim&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~CpuMemoryClaim();

 private:
  std::int64_t bytes_ = 0;
};

TensorMemory tensor_memory(at::Device device);
void reset_peak_memory(at::Device device);
// How many bytes tensors may take here, those included that there are: the limit for the CPU, or
// what a device has left, less kDeviceReserve of all it has. 0: no limit is known.
inline constexpr double kDeviceReserve = 0.05;  // for libraries and for gaps between tensors
double memory_budget(at::Device device);
// What to change where memory does not suffice: everything, and the budget alone, where there is
// one.
std::string budget_remedy(at::Device device);
std::string memory_remedy(at::Device device);
// Gives back what is only kept for reuse.
void release_cached_memory(at::Device device);

}  // namespace lorascale::train
