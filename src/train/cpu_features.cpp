#include "train/cpu_features.hpp"

#include <ATen/Version.h>
#include <ATen/cpu/Utils.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace lorascale::train {
namespace {

// oneDNN's names of instruction sets (its documentation of ONEDNN_MAX_CPU_ISA), each with what its
// bf16 and fp16 products may use.
struct Isa {
  std::string_view name;
  bool avx512_bf16, amx_bf16, avx512_fp16, amx_fp16;
};
constexpr Isa kIsas[] = {
    {"SSE41", false, false, false, false},
    {"AVX", false, false, false, false},
    {"AVX2", false, false, false, false},
    {"AVX2_VNNI", false, false, false, false},
    {"AVX2_VNNI_2", false, false, false, false},
    {"AVX512_CORE", false, false, false, false},
    {"AVX512_CORE_VNNI", false, false, false, false},
    {"AVX512_CORE_BF16", true, false, false, false},
    {"AVX512_CORE_FP16", true, false, true, false},
    {"AVX10_1_512", true, false, true, false},
    {"AVX512_CORE_AMX", true, true, true, false},
    {"AVX10_1_512_AMX", true, true, true, false},
    {"AVX512_CORE_AMX_FP16", true, true, true, true},
    {"AVX10_1_512_AMX_FP16", true, true, true, true},
};
constexpr Isa kAll{"", true, true, true, true};

// What oneDNN is limited to; a name that it does not know limits nothing.
const Isa& limit_of_products(const std::function<const char*(const char*)>& environment) {
  const char* chosen = environment("ONEDNN_MAX_CPU_ISA");
  if (chosen == nullptr) {
    chosen = environment("DNNL_MAX_CPU_ISA");
  }
  if (chosen != nullptr) {
    std::string name(chosen);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    for (const auto& isa : kIsas) {
      if (isa.name == name) {
        return isa;
      }
    }
  }
  return kAll;
}

}  // namespace

CpuFeatures features_of_this_cpu(const std::function<const char*(const char*)>& environment) {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto has = [&](const char* name) {
    const auto found = capabilities.find(name);
    return found != capabilities.end() && found->second.isBool() && found->second.toBool();
  };
  const auto& limit = limit_of_products(environment);
  CpuFeatures features;
  features.known = capabilities.contains("avx512_bf16");
  features.bf16 = (has("avx512_bf16") && limit.avx512_bf16) || (has("amx_bf16") && limit.amx_bf16);
  features.fp16 = (has("avx512_fp16") && limit.avx512_fp16) || (has("amx_fp16") && limit.amx_fp16);
  features.kernels = at::get_cpu_capability();
  features.products = limit.name;
  return features;
}

bool is_slow_on(const CpuFeatures& features, at::ScalarType type) {
  return features.known &&
         ((type == at::kBFloat16 && !features.bf16) || (type == at::kHalf && !features.fp16));
}

std::string describe(const CpuFeatures& features) {
  auto text = features.kernels + " instructions";
  if (!features.products.empty()) {
    text += ", oneDNN limited to " + features.products;
  }
  if (features.known) {
    text += features.bf16 && features.fp16 ? ", bf16 and fp16 products in hardware"
            : features.bf16                ? ", bf16 products in hardware"
                                           : ", no bf16 products in hardware";
  }
  return text;
}

}  // namespace lorascale::train
