// NCCL on device memory: one communicator per process, non-blocking, polled against a deadline.
// Verbs enqueue on the device's current stream and return; wait() is where the host learns of
// failures. A peer that is lost, an asynchronous NCCL error or a passed deadline aborts the
// communicator and throws Error(kPeerLost); the process is then to leave (NCCL cannot be repaired
// in place). NCCL's own clean-up may hang where a peer is gone or stuck, so it runs on a thread of
// its own and is waited for a few seconds at most; no destructor waits longer. The unique id, and
// the question who is missing, travel over the host communicator.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/communicator.hpp"
#include "comm/device_runtime.hpp"
#include "comm/nccl_api.hpp"

namespace lorascale::comm {

class NcclCommunicator : public Communicator {
 public:
  // Collective over `host`, which must outlive this. `deadline_seconds` also bounds the set-up;
  // `patience_seconds` is how long closing or aborting may take before it is left alone.
  NcclCommunicator(Communicator& host, std::unique_ptr<NcclApi> api,
                   std::unique_ptr<DeviceRuntime> device, double deadline_seconds,
                   double patience_seconds = 5);
  ~NcclCommunicator() override;
  [[nodiscard]] MemorySpace memory_space() const override { return MemorySpace::kDevice; }
  void barrier() override;
  void group_begin() override;
  void group_end() override;
  void wait() override;
  void attend() override { host_.attend(); }
  std::string missing_ranks() override { return host_.missing_ranks(); }
  [[noreturn]] void abort(ExitCode code) override;

 protected:
  void do_all_reduce(void* data, std::size_t count, ElementType type, ReduceOp op) override;
  void do_broadcast(void* data, std::size_t count, ElementType type, int root) override;
  void do_all_gather(const void* mine, void* all, std::size_t count, ElementType type) override;
  std::vector<std::vector<std::byte>> do_gather_to_root(std::span<const std::byte> mine) override;

 private:
  ncclUniqueId share_unique_id();
  void initialise();
  // Throws where `result` is a failure; where it is "in progress", polls until the call is through.
  void complete(ncclResult_t result, const char* call);
  // Polls `done` until it holds, an asynchronous error shows up, or the deadline has passed.
  template <typename Done>
  void poll(const char* call, Done done);
  [[noreturn]] void fail(ExitCode code, const char* call, const std::string& what);
  void drop() noexcept;  // aborts the communicator, once
  // Runs `call` on a thread of its own. Its result, or nothing where it takes longer than the
  // patience: the thread is then left alone, and this process is to end without waiting for it
  // (end_abruptly).
  std::optional<ncclResult_t> apart(std::function<ncclResult_t(NcclApi&)> call) noexcept;

  Communicator& host_;
  std::shared_ptr<NcclApi> api_;  // shared with calls that are left alone
  std::unique_ptr<DeviceRuntime> device_;
  double patience_seconds_;
  ncclComm_t comm_ = nullptr;
  bool in_group_ = false;
  std::string last_call_ = "all_reduce";  // what wait() waits for
};

}  // namespace lorascale::comm
