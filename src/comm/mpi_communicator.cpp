#include "comm/mpi_communicator.hpp"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <thread>

#include "base/heartbeat.hpp"
#include "comm/mpi_session.hpp"
#include "comm/roll_call.hpp"

namespace lorascale::comm {
namespace {

// A rank that waits answers within milliseconds.
constexpr double kRollCallSeconds = 1.5;
// Bytes per MPI call: counts are ints, and pieces of this size cost nothing.
constexpr std::size_t kMessageBytes = std::size_t{1} << 28;

MPI_Datatype mpi_type(ElementType type) {
  switch (type) {
    case ElementType::kInt8:
      return MPI_INT8_T;
    case ElementType::kUint8:
      return MPI_UINT8_T;
    case ElementType::kInt32:
      return MPI_INT32_T;
    case ElementType::kInt64:
      return MPI_INT64_T;
    case ElementType::kUint64:
      return MPI_UINT64_T;
    case ElementType::kFloat32:
      return MPI_FLOAT;
    case ElementType::kFloat64:
      return MPI_DOUBLE;
  }
  LS_ASSERT(false);
  return MPI_BYTE;
}

bool is_float(ElementType type) {
  return type == ElementType::kFloat32 || type == ElementType::kFloat64;
}

MPI_Op mpi_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return MPI_SUM;
    case ReduceOp::kMin:
      return MPI_MIN;
    case ReduceOp::kMax:
      return MPI_MAX;
  }
  LS_ASSERT(false);
  return MPI_SUM;
}

template <typename T>
void add(T* into, const T* other, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    into[i] += other[i];
  }
}

}  // namespace

// One non-blocking call, waited for with the deadline.
struct MpiCommunicator::Call {
  const MpiCommunicator& owner;
  const char* name;
  MPI_Request request = MPI_REQUEST_NULL;

  Call(const MpiCommunicator& communicator, const char* collective)
      : owner(communicator), name(collective) {
    owner.roll_call_->enter(name);
  }
  void check(int code) const {
    if (code != MPI_SUCCESS) {
      std::array<char, MPI_MAX_ERROR_STRING> text{};
      int length = 0;
      MPI_Error_string(code, text.data(), &length);
      throw Error(ExitCode::kPeerLost, describe(std::string("failed: ") + text.data()));
    }
  }
  [[nodiscard]] std::string describe(const std::string& what) const {
    return std::string(name) + " on rank " + std::to_string(owner.rank()) + " (" +
           owner.roll_call_->host_of(owner.rank()) + ") " + what;
  }
  void wait() {
    RunningClock clock;
    for (;;) {
      int done = 0;
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
      if (done != 0) {
        return;
      }
      const double waited = clock.seconds();
      if (waited > owner.deadline_seconds()) {
        throw Error(ExitCode::kPeerLost,
                    describe("waited " + std::to_string(static_cast<int>(waited)) +
                             " s: " + owner.roll_call_->ask(kRollCallSeconds)));
      }
      // Quick at first, then kind to the cores that the late ranks compute on.
      if (waited > 0.05) {
        beat(name);
        owner.roll_call_->answer();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      } else if (waited > 0.0002) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      } else {
        std::this_thread::yield();
      }
    }
  }
};

MpiCommunicator::MpiCommunicator(double deadline_seconds)
    : Communicator(world_rank(), world_size(), deadline_seconds),
      roll_call_(std::make_unique<RollCall>(MPI_COMM_WORLD)) {
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
}

MpiCommunicator::~MpiCommunicator() = default;

void MpiCommunicator::attend() {
  roll_call_->answer();
}

std::string MpiCommunicator::missing_ranks() {
  return roll_call_->ask(kRollCallSeconds);
}

void MpiCommunicator::barrier() {
  Call call(*this, "barrier");
  call.check(MPI_Ibarrier(MPI_COMM_WORLD, &call.request));
  call.wait();
}

void MpiCommunicator::abort(ExitCode code) {
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  _exit(static_cast<int>(code));
}

// Rank r owns the r-th part: it receives everybody's version of it, adds them in rank order, and
// hands the result out. The volume is that of a ring all-reduce.
void MpiCommunicator::sum_in_rank_order(std::byte* data, std::size_t count, ElementType type) {
  const auto ranks = static_cast<std::size_t>(size());
  const auto width = size_of(type);
  std::vector<int> counts(ranks), starts(ranks), received_counts(ranks), received_starts(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    starts[r] = static_cast<int>(count * r / ranks);
    counts[r] = static_cast<int>(count * (r + 1) / ranks) - starts[r];
  }
  const auto mine = static_cast<std::size_t>(counts[static_cast<std::size_t>(rank())]);
  for (std::size_t r = 0; r < ranks; ++r) {
    received_counts[r] = static_cast<int>(mine);
    received_starts[r] = static_cast<int>(mine * r);
  }
  scratch_.resize(std::max(scratch_.size(), mine * ranks * width));
  Call exchange(*this, "all_reduce");
  exchange.check(MPI_Ialltoallv(data, counts.data(), starts.data(), mpi_type(type), scratch_.data(),
                                received_counts.data(), received_starts.data(), mpi_type(type),
                                MPI_COMM_WORLD, &exchange.request));
  exchange.wait();
  for (std::size_t r = 1; r < ranks; ++r) {
    const std::byte* part = scratch_.data() + r * mine * width;
    if (type == ElementType::kFloat32) {
      add(reinterpret_cast<float*>(scratch_.data()), reinterpret_cast<const float*>(part), mine);
    } else {
      add(reinterpret_cast<double*>(scratch_.data()), reinterpret_cast<const double*>(part), mine);
    }
  }
  Call hand_out(*this, "all_reduce");
  hand_out.check(MPI_Iallgatherv(scratch_.data(), static_cast<int>(mine), mpi_type(type), data,
                                 counts.data(), starts.data(), mpi_type(type), MPI_COMM_WORLD,
                                 &hand_out.request));
  hand_out.wait();
}

void MpiCommunicator::do_all_reduce(void* data, std::size_t count, ElementType type, ReduceOp op) {
  auto* bytes = static_cast<std::byte*>(data);
  const auto width = size_of(type);
  const auto piece = kMessageBytes / width;
  for (std::size_t first = 0; first < count; first += piece) {
    const auto part = std::min(piece, count - first);
    if (op == ReduceOp::kSum && is_float(type)) {
      sum_in_rank_order(bytes + first * width, part, type);
      continue;
    }
    Call call(*this, "all_reduce");
    call.check(MPI_Iallreduce(MPI_IN_PLACE, bytes + first * width, static_cast<int>(part),
                              mpi_type(type), mpi_op(op), MPI_COMM_WORLD, &call.request));
    call.wait();
  }
}

void MpiCommunicator::do_broadcast(void* data, std::size_t count, ElementType type, int root) {
  auto* bytes = static_cast<std::byte*>(data);
  const auto width = size_of(type);
  const auto piece = kMessageBytes / width;
  for (std::size_t first = 0; first < count; first += piece) {
    Call call(*this, "broadcast");
    call.check(MPI_Ibcast(bytes + first * width, static_cast<int>(std::min(piece, count - first)),
                          mpi_type(type), root, MPI_COMM_WORLD, &call.request));
    call.wait();
  }
}

void MpiCommunicator::do_all_gather(const void* mine, void* all, std::size_t count,
                                    ElementType type) {
  // Used for small agreements; a part must fit one call.
  LS_ASSERT(count * size_of(type) <= kMessageBytes);
  Call call(*this, "all_gather");
  call.check(MPI_Iallgather(mine, static_cast<int>(count), mpi_type(type), all,
                            static_cast<int>(count), mpi_type(type), MPI_COMM_WORLD,
                            &call.request));
  call.wait();
}

std::vector<std::vector<std::byte>> MpiCommunicator::do_gather_to_root(
    std::span<const std::byte> mine) {
  LS_ASSERT(mine.size() <= kMessageBytes);
  const auto ranks = static_cast<std::size_t>(size());
  const int my_size = static_cast<int>(mine.size());
  std::vector<int> sizes(ranks);
  Call ask(*this, "gather_to_root");
  ask.check(
      MPI_Igather(&my_size, 1, MPI_INT, sizes.data(), 1, MPI_INT, 0, MPI_COMM_WORLD, &ask.request));
  ask.wait();
  std::vector<int> starts(ranks);
  std::exclusive_scan(sizes.begin(), sizes.end(), starts.begin(), 0);
  std::vector<std::byte> joined(rank() == 0 ? static_cast<std::size_t>(starts.back() + sizes.back())
                                            : 0);
  Call gather(*this, "gather_to_root");
  gather.check(MPI_Igatherv(mine.data(), my_size, MPI_BYTE, joined.data(), sizes.data(),
                            starts.data(), MPI_BYTE, 0, MPI_COMM_WORLD, &gather.request));
  gather.wait();
  std::vector<std::vector<std::byte>> parts;
  for (std::size_t r = 0; rank() == 0 && r < ranks; ++r) {
    const auto* first = joined.data() + starts[r];
    parts.emplace_back(first, first + sizes[r]);
  }
  return parts;
}

}  // namespace lorascale::comm
