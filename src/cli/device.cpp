#include "cli/device.hpp"

#include <dlfcn.h>
#include <spdlog/spdlog.h>

#include <array>
#include <cstdlib>

#include "base/error.hpp"
#include "comm/local_communicator.hpp"
#include "train/library_settings.hpp"
#include "train/torch_device.hpp"
#include "train/vote.hpp"
#if LORASCALE_HAVE_CUDA
#include "comm/nccl_communicator.hpp"
#endif

namespace lorascale::cli {
namespace {

using GpuId = std::array<std::uint8_t, 16>;

// The driver's UUID: the same for one GPU (or MIG slice) however it is numbered for a process.
GpuId gpu_id(int device) {
  GpuId id{};
  void* driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (driver == nullptr) {
    return id;
  }
  using GetDevice = int (*)(int*, int);
  using GetUuid = int (*)(std::uint8_t*, int);
  const auto get_device = reinterpret_cast<GetDevice>(dlsym(driver, "cuDeviceGet"));
  const auto get_uuid = reinterpret_cast<GetUuid>(dlsym(driver, "cuDeviceGetUuid_v2"));
  int handle = 0;
  if (get_device != nullptr && get_uuid != nullptr && get_device(&handle, device) == 0) {
    get_uuid(id.data(), handle);
  }
  return id;
}

}  // namespace

void require_distinct_gpus(comm::Communicator& host, at::Device device) {
  if (train::shares_gpus()) {
    if (std::getenv("NCCL_HOSTID") == nullptr) {
      setenv("NCCL_HOSTID", ("lorascale-rank-" + std::to_string(host.rank())).c_str(), 1);
    }
    return;
  }
  const GpuId mine = gpu_id(device.index());
  std::vector<std::uint8_t> all(mine.size() * static_cast<std::size_t>(host.size()));
  host.all_gather(std::span<const std::uint8_t>(mine), std::span(all));
  train::together(host, [&] {
    for (int rank = 0; rank < host.size() && mine != GpuId{}; ++rank) {
      const auto* other = all.data() + static_cast<std::size_t>(rank) * mine.size();
      if (rank != host.rank() && std::equal(mine.begin(), mine.end(), other)) {
        throw_bad_config("ranks " + std::to_string(std::min(rank, host.rank())) + " and " +
                         std::to_string(std::max(rank, host.rank())) +
                         " share one GPU; start at most one rank per GPU on each node");
      }
    }
  });
}

std::unique_ptr<comm::Communicator> gpu_communicator(comm::Communicator& host, at::Device device,
                                                     double deadline_seconds) {
  if (host.size() == 1) {
    return std::make_unique<comm::LocalCommunicator>(train::torch_device_runtime(device));
  }
#if LORASCALE_HAVE_CUDA
  auto api = comm::load_nccl();
  int version = 0;
  api->get_version(&version);
  if (host.rank() == 0) {
    spdlog::info("NCCL {} (built for {})", version, NCCL_VERSION_CODE);
  }
  return std::make_unique<comm::NcclCommunicator>(
      host, std::move(api), train::torch_device_runtime(device), deadline_seconds);
#else
  static_cast<void>(deadline_seconds);
  throw_bad_config(device.str() +
                   " on several ranks needs NCCL, which this program was built without; build it "
                   "against a CUDA torch (LORASCALE_CUDA=ON), or set run.device: cpu");
#endif
}

}  // namespace lorascale::cli
