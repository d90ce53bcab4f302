// Models that make pictures of captions: Stable Diffusion 1, 2 and XL, which learn from files of
// captioned pictures (docs/captioned-images.md).
#pragma once

#include "workloads/workload_kind.hpp"

namespace lorascale::workloads::diffusion {

extern const WorkloadKind kDiffusion;

// The functions of its row that have files of their own.
HeaderReport check_headers(const config::RunConfig& config);
std::string describe_data(const std::filesystem::path& file);
std::string generate(const config::RunConfig& config, at::Device device,
                     const GenerateRequest& request);
std::string merge(const MergeRequest& request);
std::string export_adapter(const ExportRequest& request);
void take_defaults(const std::set<std::string>& given, config::RunConfig& config);

}  // namespace lorascale::workloads::diffusion
