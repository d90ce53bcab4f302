// MPI (OpenMPI 4.1) on host memory. Sums are formed in rank order, so they are the same bits on
// every rank and in every run. All calls are non-blocking underneath and polled against a deadline:
// a peer that is gone or stuck ends in Error(kPeerLost), never in a hang.
#pragma once

#include <string>

#include "comm/communicator.hpp"

namespace lorascale::comm {

// MPI_Init_thread and MPI_Finalize. Owned by main; does nothing where MPI is already initialised by
// somebody else.
class MpiSession {
 public:
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

 private:
  bool owns_ = false;
};

// This rank's place among those on the same node.
struct NodePlace {
  int local_rank = 0;
  int local_size = 1;
  std::string host;
};
NodePlace node_place();

class MpiCommunicator : public Communicator {
 public:
  // All ranks of the job. Needs an MpiSession.
  explicit MpiCommunicator(double deadline_seconds);
  [[nodiscard]] MemorySpace memory_space() const override { return MemorySpace::kHost; }
  void barrier() override;
  [[noreturn]] void abort(ExitCode code) override;

 protected:
  void do_all_reduce(void* data, std::size_t count, ElementType type, ReduceOp op) override;
  void do_broadcast(void* data, std::size_t count, ElementType type, int root) override;
  void do_all_gather(const void* mine, void* all, std::size_t count, ElementType type) override;
  std::vector<std::vector<std::byte>> do_gather_to_root(std::span<const std::byte> mine) override;

 private:
  struct Call;
  void sum_in_rank_order(std::byte* data, std::size_t count, ElementType type);

  double deadline_seconds_;
  std::string host_;
  std::vector<std::byte> scratch_;  // received parts
};

}  // namespace lorascale::comm
