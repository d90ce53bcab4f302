// Image classification: residual networks that learn from image files (docs/images.md), untrained
// at first or from a folder of an earlier run.
#pragma once

#include "workloads/workload_kind.hpp"

namespace lorascale::workloads::vision {

extern const WorkloadKind kVision;

// The functions of its row that have files of their own.
HeaderReport check_headers(const config::RunConfig& config);
std::string describe_data(const std::filesystem::path& file);
std::string merge(const MergeRequest& request);

}  // namespace lorascale::workloads::vision
