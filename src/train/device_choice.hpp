// Which device this rank computes on, and that all ranks agree. What the machine has to say about
// GPUs stands behind an interface, so that every way in which a GPU can fail to be there is tested
// without one.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <optional>
#include <string>

#include "comm/communicator.hpp"
#include "comm/mpi_session.hpp"
#include "config/run_config.hpp"

namespace lorascale::train {

// What the driver says, before anything of CUDA's run time is loaded.
struct DriverAnswer {
  std::string load_error;  // of the loader; empty where libcuda was loaded
  int result = 0;          // of cuInit; 0: success
  std::string result_name;
  int version = 0;  // of CUDA that the driver supports, as 1000 * major + 10 * minor
  int gpus = 0;     // that this process may see
};

class GpuSystem {
 public:
  virtual ~GpuSystem() = default;
  virtual std::optional<std::string> variable(const char* name) = 0;
  // What shows that this machine has a GPU, though this process may not reach it; empty: nothing.
  virtual std::string sign_of_gpu() = 0;
  virtual DriverAnswer ask_driver() = 0;
  // The CUDA that libtorch was built for; 0: it has none.
  virtual int torch_cuda_major() = 0;
  // Loads the CUDA half of libtorch, which can take minutes from a cold network file system. The
  // loader's error, or nothing.
  virtual std::string load_torch() = 0;
  virtual int torch_gpus() = 0;
  virtual void use(at::Device device) = 0;
};

// This machine.
std::unique_ptr<GpuSystem> gpu_system();

struct DeviceChoice {
  at::Device device = at::Device(at::kCPU);
  // Why a GPU that seems to be there is not used; empty where there is none, or it is used.
  std::string reason;
  std::string driver;  // in words, where a GPU is used
};

// A rank takes the GPU of its number on the node; where the launcher shows each rank GPUs of its
// own, it takes the first. Error(kBadConfig) with the reason where cuda is wanted and cannot be
// used; auto then takes the CPU.
DeviceChoice choose_device(config::Device wanted, const comm::NodePlace& place, GpuSystem& system);

// Collective: Error(kBadConfig) on all ranks, naming the odd ones and their reasons, where some
// compute on the CPU and others on GPUs. Where all fall back, the first that has a reason warns.
void agree_on_kind(comm::Communicator& host, const DeviceChoice& mine,
                   const std::string& host_name);

}  // namespace lorascale::train
