// Causal language models: decoders that learn from token files, show text, and write Hugging Face
// folders.
#pragma once

#include "workloads/workload_kind.hpp"

namespace lorascale::workloads::language {

extern const WorkloadKind kLanguage;

// The functions of its row that have files of their own.
HeaderReport check_headers(const config::RunConfig& config);
std::string describe_data(const std::filesystem::path& file);
std::string generate(const config::RunConfig& config, at::Device device,
                     const GenerateRequest& request);
std::string merge(const MergeRequest& request);

}  // namespace lorascale::workloads::language
