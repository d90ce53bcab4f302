// MPI (OpenMPI 4.1) on host memory. Sums are formed in rank order, so they are the same bits on
// every rank and in every run. All calls are non-blocking underneath and polled against a deadline:
// a peer that is gone or stuck ends in Error(kPeerLost), never in a hang.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.hpp"

namespace lorascale::comm {

class RollCall;

class MpiCommunicator : public Communicator {
 public:
  // All ranks of the job. Needs an MpiSession.
  explicit MpiCommunicator(double deadline_seconds);
  ~MpiCommunicator() override;
  [[nodiscard]] MemorySpace memory_space() const override { return MemorySpace::kHost; }
  void barrier() override;
  [[noreturn]] void abort(ExitCode code) override;
  void attend() override;
  std::string missing_ranks() override;

 protected:
  void do_all_reduce(void* data, std::size_t count, ElementType type, ReduceOp op) override;
  void do_broadcast(void* data, std::size_t count, ElementType type, int root) override;
  void do_all_gather(const void* mine, void* all, std::size_t count, ElementType type) override;
  std::vector<std::vector<std::byte>> do_gather_to_root(std::span<const std::byte> mine) override;

 private:
  struct Call;
  void sum_in_rank_order(std::byte* data, std::size_t count, ElementType type);

  std::unique_ptr<RollCall> roll_call_;
  std::vector<std::byte> scratch_;  // received parts
};

}  // namespace lorascale::comm
