#include "train/device_choice.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "base/units.hpp"
#include "train/vote.hpp"

namespace lorascale::train {
namespace {

// Loading the CUDA half of libtorch, with cuBLAS, cuDNN and NCCL two GiB of libraries, may take so
// long; beyond it, it counts as hanging.
constexpr double kLoadSeconds = 900;

constexpr int kNoDevice = 100;         // CUDA_ERROR_NO_DEVICE
constexpr int kDriverTooOld = 35;      // cudaErrorInsufficientDriver
constexpr int kDriverMismatch = 803;   // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
constexpr int kOperatingSystem = 304;  // CUDA_ERROR_OPERATING_SYSTEM

// Why no GPU is left by the variable that says which ones this process sees.
std::string hidden_by_variable(GpuSystem& system) {
  const auto visible = system.variable("CUDA_VISIBLE_DEVICES");
  if (!visible) {
    return {};
  }
  const bool none = visible->empty() || *visible == "-1" || *visible == "NoDevFiles";
  return none ? "CUDA_VISIBLE_DEVICES='" + *visible + "' hides every GPU from this process"
              : std::string();
}

std::string remedy_of(int result) {
  switch (result) {
    case kNoDevice:
      return "; a container needs its GPUs given (--gpus, --nv), a job needs to ask for them";
    case kDriverTooOld:
    case kDriverMismatch:
      return "; update the driver, or restart the machine after an update";
    case kOperatingSystem:
      return "; /dev/nvidia* may be missing or not readable here";
    default:
      return "; see nvidia-smi";
  }
}

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Why the driver gives this process no GPU; empty where it does.
std::string refused_by_driver(const DriverAnswer& driver, GpuSystem& system) {
  if (!driver.load_error.empty()) {
    return "the driver's library cannot be loaded (" + driver.load_error +
           "); a container needs the driver mounted (--gpus, --nv)";
  }
  if (driver.result != 0) {
    return fmt::format("the driver refuses: cuInit gives {} ({}){}", driver.result,
                       driver.result_name, remedy_of(driver.result));
  }
  if (driver.gpus == 0) {
    const auto visible = system.variable("CUDA_VISIBLE_DEVICES");
    return "the driver shows no GPU to this process" +
           (visible ? "; CUDA_VISIBLE_DEVICES='" + *visible + "' names none that is here"
                    : remedy_of(kNoDevice));
  }
  const int major = system.torch_cuda_major();
  if (major == 0) {
    return "this program's libtorch is a build without CUDA; build it against a CUDA torch";
  }
  if (driver.version / 1000 < major) {
    return fmt::format(
        "the driver is too old: it supports CUDA {}, and libtorch is built for CUDA {}; update the "
        "driver, or build against a torch for CUDA {}",
        version_text(driver.version), major, driver.version / 1000);
  }
  return {};
}

std::string refused_by_torch(GpuSystem& system) {
  const KeepBeating beating("loading the CUDA libraries", kLoadSeconds);
  const auto failed = system.load_torch();
  if (!failed.empty()) {
    return "the CUDA half of libtorch cannot be loaded (" + failed + ")";
  }
  return system.torch_gpus() > 0 ? std::string() : "libtorch sees no GPU, though the driver does";
}

}  // namespace

DeviceChoice choose_device(config::Device wanted, const comm::NodePlace& place, GpuSystem& system) {
  if (wanted == config::Device::kCpu) {
    return {};
  }
  const auto on_cpu = [&](const std::string& reason) -> DeviceChoice {
    if (wanted == config::Device::kCuda) {
      throw_bad_config(fmt::format(
          "run.device is cuda, but no GPU can be used on {}: {}; or set run.device: cpu",
          place.host, reason));
    }
    return {at::kCPU, reason, {}};
  };
  if (const auto hidden = hidden_by_variable(system); !hidden.empty()) {
    const bool there = wanted == config::Device::kCuda || !system.sign_of_gpu().empty();
    return there ? on_cpu(hidden) : DeviceChoice{};
  }
  beat("asking the GPU driver");
  const auto driver = system.ask_driver();
  if (auto refused = refused_by_driver(driver, system); !refused.empty()) {
    const auto sign = system.sign_of_gpu();
    if (!sign.empty()) {
      refused += " (" + sign + " shows a GPU)";
    }
    // Most machines have no GPU, and need no word about it.
    const bool there = wanted == config::Device::kCuda || !sign.empty() || driver.gpus > 0;
    return there ? on_cpu(refused) : DeviceChoice{};
  }
  if (const auto refused = refused_by_torch(system); !refused.empty()) {
    return on_cpu(refused);
  }
  const at::Device device(at::kCUDA,
                          static_cast<at::DeviceIndex>(place.local_rank % system.torch_gpus()));
  system.use(device);
  return {device,
          {},
          fmt::format("driver for CUDA {}, {} visible", version_text(driver.version),
                      counted(driver.gpus, "GPU"))};
}

void agree_on_kind(comm::Communicator& host, const DeviceChoice& mine,
                   const std::string& host_name) {
  enum Kind : std::uint8_t { kCpu, kCpuForAReason, kGpu };
  const std::array<std::uint8_t, 1> kind = {!mine.device.is_cpu() ? kGpu
                                            : mine.reason.empty() ? kCpu
                                                                  : kCpuForAReason};
  std::vector<std::uint8_t> all(static_cast<std::size_t>(host.size()));
  host.all_gather(std::span<const std::uint8_t>(kind), std::span(all));
  const auto gpus = std::ranges::count(all, kGpu);
  const auto cpus = static_cast<std::ptrdiff_t>(all.size()) - gpus;
  if (gpus == 0 || cpus == 0) {
    const auto first = std::ranges::find(all, kCpuForAReason) - all.begin();
    if (first == host.rank()) {
      spdlog::warn(
          "training on the CPU, because on {} {}; run.device: cpu says that it is meant so",
          host_name, mine.reason);
    }
    return;
  }
  const std::string words = host_name + (mine.reason.empty() ? std::string() : ": " + mine.reason);
  const auto texts = host.gather_to_root(
      std::span(reinterpret_cast<const std::uint8_t*>(words.data()), words.size()));
  std::string odd;
  const bool cpu_is_odd = cpus <= gpus;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    if ((all[rank] != kGpu) == cpu_is_odd) {
      odd += fmt::format("{}rank {} ({})", odd.empty() ? "" : ", ", rank,
                         std::string(texts[rank].begin(), texts[rank].end()));
    }
  }
  host.broadcast_from_root(odd);
  together(host, [&] {
    throw_bad_config(fmt::format(
        "{} of {} ranks compute on {}, the others on {}: {}; give all ranks the same kind of "
        "device, or set run.device: cpu",
        cpu_is_odd ? cpus : gpus, all.size(), cpu_is_odd ? "the CPU" : "a GPU",
        cpu_is_odd ? "GPUs" : "the CPU", odd));
  });
}

}  // namespace lorascale::train
