#include "train/start_warnings.hpp"

#include <ATen/cpu/Utils.h>
#include <fmt/format.h>

namespace lorascale::train {

CpuFeatures features_of_this_cpu() {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto has = [&](const char* name) {
    const auto found = capabilities.find(name);
    return found != capabilities.end() && found->second.isBool() && found->second.toBool();
  };
  return {capabilities.contains("avx512_bf16"), has("avx512_bf16") || has("amx_bf16"),
          has("avx512_fp16") || has("amx_fp16")};
}

bool is_slow_on(const CpuFeatures& features, at::ScalarType type) {
  return features.known &&
         ((type == at::kBFloat16 && !features.bf16) || (type == at::kHalf && !features.fp16));
}

std::vector<std::string> start_warnings(const config::RunConfig& config,
                                        const models::llama::Llama& model) {
  auto warnings = model.config().warnings;
  if (model.device().is_cpu() && is_slow_on(features_of_this_cpu(), model.dtype())) {
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
  return warnings;
}

}  // namespace lorascale::train
