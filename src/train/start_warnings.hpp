// What a user should know before a run begins although nothing is wrong with it: settings that fit
// the machine or the model badly.
#pragma once

#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "models/llama/llama.hpp"

namespace lorascale::train {

// Whether a CPU with these features (at::cpu::get_cpu_capabilities) computes in `type` slower than
// in fp32, for want of instructions of its own. False where nothing is known of the features.
struct CpuFeatures {
  bool known = false;  // of the kind of processor that has the ones below
  bool bf16 = false;   // AVX512-BF16 or AMX-BF16
  bool fp16 = false;   // AVX512-FP16 or AMX-FP16
};
bool is_slow_on(const CpuFeatures& features, at::ScalarType type);
CpuFeatures features_of_this_cpu();

// One line each, those of the model's own files included.
std::vector<std::string> start_warnings(const config::RunConfig& config,
                                        const models::llama::Llama& model);

}  // namespace lorascale::train
