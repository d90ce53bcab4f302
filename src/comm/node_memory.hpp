// Memory that the ranks of a node have in common: written by all of them in parts, then read-only.
// The first rank of a node makes it (memfd_create), the others open it through /proc, and it has no
// name in any file system: however ranks die, nothing is left behind. MPI_Win_allocate_shared was
// tried: Open MPI 4.1 backs it by a file in /dev/shm, which has 64 MiB in most containers, answers
// there on one rank alone while the others wait without a deadline, and frees it collectively,
// which no rank that fails can wait for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "comm/communicator.hpp"
#include "comm/mpi_session.hpp"

namespace lorascale::comm {

// A mapping; unmapped with the object, of this rank alone.
class NodeMemory {
 public:
  NodeMemory(void* data, std::size_t bytes) : data_(data), bytes_(bytes) {}
  ~NodeMemory();
  NodeMemory(const NodeMemory&) = delete;
  NodeMemory& operator=(const NodeMemory&) = delete;

  // Starts at a page. Zeros at first.
  [[nodiscard]] std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(data_), bytes_};
  }
  // After it, what others have written before the last collective is seen here, and a write ends
  // this process (SIGSEGV) instead of spoiling what others compute from.
  void make_read_only() const;

 private:
  void* data_;
  std::size_t bytes_;
};

struct SharedOnNode {
  // Null on all ranks where some rank failed, and on ranks that are alone on their node.
  std::shared_ptr<NodeMemory> memory;
  std::string why_not;  // the same on all ranks; empty where nobody failed
};

// Collective over all ranks of `host`, whose places on their nodes are `place`; `bytes` > 0 is the
// same on all ranks of a node. The memory is there when this returns, each rank having touched its
// part: no access ends in SIGBUS later for want of memory.
SharedOnNode share_on_node(Communicator& host, const NodePlace& place, std::uint64_t bytes);

}  // namespace lorascale::comm
