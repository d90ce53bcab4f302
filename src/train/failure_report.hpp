// error-RANK.json in the run folder: what ended this rank, where and in which phase, for people and
// for scripts that decide whether to start again.
#pragma once

#include <filesystem>
#include <string>

#include "base/error.hpp"

namespace lorascale::train {

struct Place {
  int rank = 0;
  std::string host;
};

// Reports go on where they cannot be written: the process is about to end for another reason.
void write_failure_report(const std::filesystem::path& run_folder, const Place& place,
                          ExitCode code, const std::string& message) noexcept;

// Those of earlier starts. Called by the owner of the folder.
void remove_failure_reports(const std::filesystem::path& run_folder);

}  // namespace lorascale::train
