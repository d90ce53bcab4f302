#include "train/library_settings.hpp"

#include <ATen/Context.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "train/tensor_memory.hpp"

namespace lorascale::train {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// The new name goes before the old one; where only the old one is set, what it says is kept.
void leave_a_reserve() {
  constexpr const char* kName = "PYTORCH_ALLOC_CONF";
  constexpr std::string_view kKey = "per_process_memory_fraction";
  std::string settings = variable(kName);
  if (settings.empty()) {
    settings = variable("PYTORCH_CUDA_ALLOC_CONF");
  }
  if (shares_gpus() || settings.find(kKey) != std::string::npos) {
    return;
  }
  settings += fmt::format("{}{}:{:.2f}", settings.empty() ? "" : ",", kKey, 1 - kDeviceReserve);
  setenv(kName, settings.c_str(), 1);
}

// cuBLAS repeats its bits only with a workspace of its own for each stream, and reads this once.
void fix_cublas_workspace() {
  constexpr const char* kName = "CUBLAS_WORKSPACE_CONFIG";
  const auto given = variable(kName);
  if (given == ":4096:8" || given == ":16:8") {
    return;
  }
  if (!given.empty()) {
    spdlog::warn("run.reduction exact: {}={} is replaced by :4096:8", kName, given);
  }
  setenv(kName, ":4096:8", 1);
}

}  // namespace

bool shares_gpus() {
  return std::getenv("LORASCALE_SHARE_GPUS") != nullptr;
}

void set_up_libraries(bool exact) {
  leave_a_reserve();
  auto& context = at::globalContext();
  context.setAllowBF16ReductionCuBLAS(false);
  context.setAllowFP16ReductionCuBLAS(false);
  context.setAllowFP16AccumulationCuBLAS(false);
  context.setAllowFP16BF16ReductionMathSDP(false);
  context.setAllowTF32CuBLAS(false);
  if (!exact) {
    return;
  }
  fix_cublas_workspace();
  // Not as warnings only: flash and memory-efficient attention then keep their atomic backward.
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);  // filled memory repeats no better
  context.setDeterministicCuDNN(true);
  context.setBenchmarkCuDNN(false);
  context.setSDPUseCuDNN(false);  // its backward does not repeat
}

}  // namespace lorascale::train
