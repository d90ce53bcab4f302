// The communicator of a job with one rank: every verb is its own result.
#pragma once

#include "comm/communicator.hpp"

namespace lorascale::comm {

class LocalCommunicator : public Communicator {
 public:
  explicit LocalCommunicator(MemorySpace space = MemorySpace::kHost)
      : Communicator(0, 1, /*deadline_seconds=*/0), space_(space) {}
  [[nodiscard]] MemorySpace memory_space() const override { return space_; }
  void barrier() override {}
  [[noreturn]] void abort(ExitCode code) override;

 protected:
  void do_all_reduce(void*, std::size_t, ElementType, ReduceOp) override {}
  void do_broadcast(void*, std::size_t, ElementType, int) override {}
  void do_all_gather(const void* mine, void* all, std::size_t count, ElementType type) override;
  std::vector<std::vector<std::byte>> do_gather_to_root(std::span<const std::byte> mine) override;

 private:
  MemorySpace space_;
};

}  // namespace lorascale::comm
