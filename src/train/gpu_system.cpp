// The machine behind GpuSystem. The driver is asked through libcuda, which is loaded, not linked: a
// machine without GPUs has none.
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "train/device_choice.hpp"

namespace lorascale::train {
namespace {

namespace fs = std::filesystem;

std::string loader_error() {
  const char* text = dlerror();
  return text != nullptr ? text : "no reason is given";
}

template <typename Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

// A display controller of NVIDIA on the PCI bus, which containers see, too.
std::string gpu_on_the_bus() {
  const auto first_line = [](const fs::path& path) {
    std::string line;
    std::getline(std::ifstream(path) >> std::ws, line);
    return line;
  };
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/sys/bus/pci/devices", ignored)) {
    if (first_line(entry.path() / "vendor") == "0x10de" &&
        first_line(entry.path() / "class").starts_with("0x03")) {
      return entry.path().string();
    }
  }
  return {};
}

class ThisMachine : public GpuSystem {
 public:
  std::optional<std::string> variable(const char* name) override {
    const char* value = std::getenv(name);
    return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  }

  // Not /dev/nvidia0: a container that was given GPU 5 has /dev/nvidia5 alone.
  std::string sign_of_gpu() override {
    std::error_code ignored;
    for (const char* path : {"/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"}) {
      if (fs::exists(path, ignored)) {
        return path;
      }
    }
    return gpu_on_the_bus();
  }

  DriverAnswer ask_driver() override {
    DriverAnswer answer;
    void* driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (driver == nullptr) {
      answer.load_error = loader_error();
      return answer;
    }
    auto* init = symbol<int(unsigned)>(driver, "cuInit");
    auto* version = symbol<int(int*)>(driver, "cuDriverGetVersion");
    auto* count = symbol<int(int*)>(driver, "cuDeviceGetCount");
    auto* name = symbol<int(int, const char**)>(driver, "cuGetErrorName");
    if (init == nullptr || version == nullptr || count == nullptr || name == nullptr) {
      answer.load_error = "libcuda.so.1 has no cuInit: it is no driver";
      return answer;
    }
    answer.result = init(0);
    if (answer.result == 0) {
      answer.result = version(&answer.version);
    }
    if (answer.result == 0) {
      answer.result = count(&answer.gpus);
    }
    const char* text = nullptr;
    name(answer.result, &text);
    answer.result_name = text != nullptr ? text : "an unknown error";
    return answer;
  }

  int torch_cuda_major() override { return LORASCALE_TORCH_CUDA_MAJOR; }

  std::string load_torch() override {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      return loader_error();
    }
    return at::hasCUDA() ? std::string() : "it does not register itself";
  }

  int torch_gpus() override { return at::detail::getCUDAHooks().getNumGPUs(); }

  void use(at::Device device) override {
    c10::impl::VirtualGuardImpl(device.type()).setDevice(device);
  }
};

}  // namespace

std::unique_ptr<GpuSystem> gpu_system() {
  return std::make_unique<ThisMachine>();
}

}  // namespace lorascale::train
