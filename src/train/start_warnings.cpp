#include "train/start_warnings.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cstdlib>
#include <thread>

#include "nn/dtypes.hpp"
#include "train/cpu_features.hpp"

namespace lorascale::train {
namespace {

// Over the last minute; 0 where the system does not tell.
double load_of_this_machine() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

}  // namespace

std::vector<std::string> start_warnings(const models::Model& model) {
  std::vector<std::string> warnings;
  if (model.device().is_cpu() && is_slow_on(features_of_this_cpu(std::getenv), model.dtype())) {
    const bool widened = model.dtype() == at::kBFloat16;  // nn/product.cpp
    warnings.push_back(fmt::format(
        "this CPU has no instructions for {}, {}; set model.dtype: fp32 if there is memory for it",
        nn::float_type(model.dtype()).name,
        widened ? "whose weights are widened for each product: a fifth slower than fp32"
                : "which is several times slower than fp32 on it"));
  }
  if (model.device().is_cpu()) {
    if (const auto warning =
            warning_of_spinning(at::get_num_threads(), load_of_this_machine(),
                                static_cast<int>(std::thread::hardware_concurrency()),
                                std::getenv("OMP_WAIT_POLICY") != nullptr)) {
      warnings.push_back(*warning);
    }
  }
  return warnings;
}

std::optional<std::string> warning_of_spinning(int threads, double load, int cores,
                                               bool policy_is_set) {
  // Half a core for what a machine does by itself.
  if (policy_is_set || threads < 2 || load + threads <= cores + 0.5) {
    return std::nullopt;
  }
  return fmt::format(
      "other programs want this machine's {} cores (load {:.1f}), and {} threads that wait for "
      "each "
      "other by spinning may then take several times as long: start with OMP_WAIT_POLICY=passive "
      "in "
      "front, or by launch/mpirun.sh, which sets it",
      cores, load, threads);
}

}  // namespace lorascale::train
