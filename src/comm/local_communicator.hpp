// The communicator of a job with one rank: every verb is its own result. On a device, too, which it
// waits for all the same.
#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "comm/device_runtime.hpp"

namespace lorascale::comm {

class LocalCommunicator : public Communicator {
 public:
  // `device`: where the spans live, or null for host memory.
  explicit LocalCommunicator(std::unique_ptr<DeviceRuntime> device = nullptr)
      : Communicator(0, 1, /*deadline_seconds=*/0), device_(std::move(device)) {}
  [[nodiscard]] MemorySpace memory_space() const override {
    return device_ ? MemorySpace::kDevice : MemorySpace::kHost;
  }
  // Without a deadline of its own: a device that never gets there is the watchdog's.
  void wait() override;
  void barrier() override {}
  [[noreturn]] void abort(ExitCode code) override;

 protected:
  void do_all_reduce(void*, std::size_t, ElementType, ReduceOp) override {}
  void do_broadcast(void*, std::size_t, ElementType, int) override {}
  void do_all_gather(const void* mine, void* all, std::size_t count, ElementType type) override;
  std::vector<std::vector<std::byte>> do_gather_to_root(std::span<const std::byte> mine) override;

 private:
  std::unique_ptr<DeviceRuntime> device_;
};

}  // namespace lorascale::comm
