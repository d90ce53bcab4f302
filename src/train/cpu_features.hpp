// Which instructions of this CPU libtorch and oneDNN use: what the processor has, less what
// ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA withhold. Speed and the last bits of results follow
// from it.
#pragma once

#include <c10/core/ScalarType.h>

#include <functional>
#include <string>

namespace lorascale::train {

struct CpuFeatures {
  bool known = false;    // of the kind of processor that has the ones below
  bool bf16 = false;     // AVX512-BF16 or AMX-BF16, and oneDNN may use it
  bool fp16 = false;     // AVX512-FP16 or AMX-FP16, likewise
  std::string kernels;   // libtorch's own: "AVX512", "AVX2", "DEFAULT"
  std::string products;  // the most that oneDNN's products may use, where that is limited; else ""
};

// `environment` is asked as std::getenv is, and may answer nullptr.
CpuFeatures features_of_this_cpu(const std::function<const char*(const char*)>& environment);

// Whether a CPU computes in `type` slower than in fp32, for want of instructions of its own. False
// where nothing is known of the features.
bool is_slow_on(const CpuFeatures& features, at::ScalarType type);

// "AVX512 instructions, bf16 products in hardware"
std::string describe(const CpuFeatures& features);

}  // namespace lorascale::train
