#include "comm/nccl_communicator.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <future>
#include <string_view>
#include <thread>

#include "base/abrupt_end.hpp"
#include "base/heartbeat.hpp"
#include "base/out_of_memory.hpp"

namespace lorascale::comm {
namespace {

ncclDataType_t nccl_type(ElementType type) {
  switch (type) {
    case ElementType::kInt8:
      return ncclInt8;
    case ElementType::kUint8:
      return ncclUint8;
    case ElementType::kInt32:
      return ncclInt32;
    case ElementType::kInt64:
      return ncclInt64;
    case ElementType::kUint64:
      return ncclUint64;
    case ElementType::kFloat32:
      return ncclFloat32;
    case ElementType::kFloat64:
      return ncclFloat64;
  }
  LS_ASSERT(false);
  return ncclInt8;
}

ncclRedOp_t nccl_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return ncclSum;
    case ReduceOp::kMin:
      return ncclMin;
    case ReduceOp::kMax:
      return ncclMax;
  }
  LS_ASSERT(false);
  return ncclSum;
}

}  // namespace

NcclCommunicator::NcclCommunicator(Communicator& host, std::unique_ptr<NcclApi> api,
                                   std::unique_ptr<DeviceRuntime> device, double deadline_seconds,
                                   double patience_seconds)
    : Communicator(host.rank(), host.size(), deadline_seconds),
      host_(host),
      api_(std::move(api)),
      device_(std::move(device)),
      patience_seconds_(patience_seconds) {
  try {
    initialise();
  } catch (...) {
    drop();  // the destructor of a half-made object does not run
    throw;
  }
}

ncclUniqueId NcclCommunicator::share_unique_id() {
  struct {
    std::int64_t result = ncclSuccess;
    ncclUniqueId id{};
  } message;
  if (rank() == 0) {
    message.result = api_->get_unique_id(&message.id);
  }
  host_.broadcast(std::span(reinterpret_cast<std::uint8_t*>(&message), sizeof(message)), 0);
  if (message.result != ncclSuccess) {
    const auto result = static_cast<ncclResult_t>(message.result);
    fail(ExitCode::kInternal, "ncclGetUniqueId", api_->describe(result, nullptr) + " on rank 0");
  }
  return message.id;
}

void NcclCommunicator::initialise() {
  const ncclUniqueId id = share_unique_id();
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const auto result = api_->init_rank(&comm_, size(), id, rank(), &config);
  complete(result, "ncclCommInitRankConfig");
}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ == nullptr) {
    return;
  }
  if (std::uncaught_exceptions() > 0) {
    drop();  // the others may never come to a finalize
    return;
  }
  // All of the ranks are expected here within moments, but a destructor waits for nobody.
  set_deadline(std::min(deadline_seconds(), patience_seconds_));
  try {
    complete(api_->finalize(comm_), "ncclCommFinalize");
    const auto result = apart([comm = comm_](NcclApi& api) { return api.destroy(comm); });
    comm_ = nullptr;
    if (result != ncclSuccess) {
      std::fprintf(stderr, "lorascale: ncclCommDestroy: %s\n",
                   result ? api_->describe(*result, nullptr).c_str() : "takes too long");
    }
  } catch (const std::exception& error) {
    drop();
    std::fprintf(stderr, "lorascale: while closing NCCL: %s\n", error.what());
  }
}

std::optional<ncclResult_t> NcclCommunicator::apart(
    std::function<ncclResult_t(NcclApi&)> call) noexcept {
  try {
    std::promise<ncclResult_t> promise;
    auto result = promise.get_future();
    std::thread([api = api_, call = std::move(call), promise = std::move(promise)]() mutable {
      const auto done = call(*api);
      api.reset();  // before the other thread may go on to the end of the process
      promise.set_value(done);
    }).detach();
    const auto patience = std::chrono::duration<double>(patience_seconds_);
    if (result.wait_for(patience) == std::future_status::ready) {
      return result.get();
    }
  } catch (const std::exception&) {  // no thread to be had: better an end without NCCL's clean-up
  }
  end_abruptly = true;
  return std::nullopt;
}

void NcclCommunicator::drop() noexcept {
  if (comm_ != nullptr) {
    const ncclComm_t comm = comm_;
    comm_ = nullptr;
    apart([comm](NcclApi& api) { return api.abort(comm); });
  }
}

void NcclCommunicator::fail(ExitCode code, const char* call, const std::string& what) {
  drop();
  throw Error(code, std::string(call) + " on rank " + std::to_string(rank()) + ": " + what);
}

template <typename Done>
void NcclCommunicator::poll(const char* call, Done done) {
  RunningClock clock;
  while (!done()) {
    const double waited = clock.seconds();
    if (waited > deadline_seconds()) {
      const std::string missing = host_.missing_ranks();
      fail(ExitCode::kPeerLost, call,
           "waited " + std::to_string(static_cast<int>(waited)) + " s: " + missing);
    }
    if (waited > 0.05) {
      beat(call);
      host_.attend();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    } else {
      std::this_thread::yield();
    }
  }
}

void NcclCommunicator::complete(ncclResult_t result, const char* call) {
  if (result == ncclInProgress) {
    poll(call, [&] {
      if (api_->async_error(comm_, &result) != ncclSuccess) {
        result = ncclInternalError;
      }
      return result != ncclInProgress;
    });
  }
  if (result == ncclSuccess) {
    return;
  }
  const bool remote = result == ncclRemoteError || result == ncclSystemError;
  std::string what = api_->describe(result, comm_);
  if (result == ncclInvalidUsage && std::string_view(call) == "ncclCommInitRankConfig") {
    what += "; do two ranks share one GPU? Start one rank per GPU";
  }
  if (tells_of_no_memory(what)) {
    fail(ExitCode::kBadConfig, call,
         what +
             "; no memory of the GPU is left for NCCL: end what else runs on it, or take a "
             "smaller batch.micro");
  }
  fail(remote ? ExitCode::kPeerLost : ExitCode::kInternal, call, what);
}

void NcclCommunicator::group_begin() {
  complete(api_->group_start(), "ncclGroupStart");
  in_group_ = true;
}

void NcclCommunicator::group_end() {
  in_group_ = false;
  complete(api_->group_end(), "ncclGroupEnd");
}

void NcclCommunicator::wait() {
  LS_ASSERT(comm_ != nullptr);  // whoever saw it fail is to leave
  device_->mark();
  poll(last_call_.c_str(), [&] {
    ncclResult_t state = ncclSuccess;
    if (api_->async_error(comm_, &state) != ncclSuccess) {
      state = ncclInternalError;
    }
    if (state != ncclSuccess && state != ncclInProgress) {
      const std::string what = api_->describe(state, comm_);
      fail(tells_of_no_memory(what) ? ExitCode::kBadConfig : ExitCode::kPeerLost,
           last_call_.c_str(), what);
    }
    return device_->passed_mark();
  });
}

void NcclCommunicator::barrier() {
  wait();
  host_.barrier();
}

void NcclCommunicator::abort(ExitCode code) {
  drop();
  host_.abort(code);
  _exit(static_cast<int>(code));
}

// Inside a group, a call is through only with the group's end.
void NcclCommunicator::do_all_reduce(void* data, std::size_t count, ElementType type, ReduceOp op) {
  last_call_ = "all_reduce";
  if (count == 0) {
    return;
  }
  const auto result =
      api_->all_reduce(data, count, nccl_type(type), nccl_op(op), comm_, device_->stream());
  complete(in_group_ && result == ncclInProgress ? ncclSuccess : result, "ncclAllReduce");
}

void NcclCommunicator::do_broadcast(void* data, std::size_t count, ElementType type, int root) {
  last_call_ = "broadcast";
  if (count == 0) {
    return;
  }
  const auto result = api_->broadcast(data, count, nccl_type(type), root, comm_, device_->stream());
  complete(in_group_ && result == ncclInProgress ? ncclSuccess : result, "ncclBroadcast");
}

void NcclCommunicator::do_all_gather(const void* mine, void* all, std::size_t count,
                                     ElementType type) {
  last_call_ = "all_gather";
  if (count == 0) {
    return;
  }
  const auto result = api_->all_gather(mine, all, count, nccl_type(type), comm_, device_->stream());
  complete(in_group_ && result == ncclInProgress ? ncclSuccess : result, "ncclAllGather");
}

std::vector<std::vector<std::byte>> NcclCommunicator::do_gather_to_root(
    std::span<const std::byte> mine) {
  wait();
  std::vector<std::uint8_t> staged(mine.size());
  device_->copy_to_host(staged.data(), mine.data(), mine.size());
  std::vector<std::vector<std::byte>> parts;
  for (const auto& part : host_.gather_to_root(std::span<const std::uint8_t>(staged))) {
    const auto bytes = std::as_bytes(std::span(part));
    parts.emplace_back(bytes.begin(), bytes.end());
  }
  return parts;
}

}  // namespace lorascale::comm
