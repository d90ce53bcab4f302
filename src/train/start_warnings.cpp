#include "train/start_warnings.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "train/cpu_features.hpp"

namespace lorascale::train {
namespace {

// Over the last minute; 0 where the system does not tell.
double load_of_this_machine() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

}  // namespace

std::vector<std::string> start_warnings(const config::RunConfig& config,
                                        const models::decoder::Decoder& model) {
  auto warnings = model.config().warnings;
  if (model.device().is_cpu() && is_slow_on(features_of_this_cpu(std::getenv), model.dtype())) {
    warnings.push_back(fmt::format(
        "this CPU has no instructions for {}, which is several times slower than fp32 on it; set "
        "model.dtype: fp32 if there is memory for it",
        model.dtype() == at::kHalf ? "fp16" : "bf16"));
  }
  const double context = model.config().context;
  if (context > 0 && static_cast<double>(config.data.sequence_length) > context) {
    warnings.push_back(fmt::format(
        "data.sequence_length {} is more than the {:.0f} positions that the model was made for "
        "(max_position_embeddings); what it learns of longer documents may be poor",
        config.data.sequence_length, context));
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

std::optional<std::string> warning_of_end_token(const models::decoder::DecoderConfig& model,
                                                std::int64_t answer_end_id,
                                                const std::string& text) {
  const auto& known = model.server_eos_ids;
  if (answer_end_id < 0 || std::find(known.begin(), known.end(), answer_end_id) != known.end()) {
    return std::nullopt;
  }
  const std::string named =
      known.empty() ? "no end token" : fmt::format("{} as end", fmt::join(known, ", "));
  return fmt::format(
      "answers of the data end with token {} ({}), but the model's generation_config.json and "
      "config.json name {}: servers will not stop there. The result says it right: `lorascale "
      "merge` and exported models write a generation_config.json with that token",
      answer_end_id, text, named);
}

}  // namespace lorascale::train
