// What `inspect` says of a run folder and of the checkpoints folder in it. Reads only.
#pragma once

#include <filesystem>

namespace lorascale::cli {

// A folder that `train` wrote into: it holds config.yaml beside records or checkpoints.
bool is_run_folder(const std::filesystem::path& folder);
// A folder of checkpoints, by its name or by what is in it.
bool is_checkpoints_folder(const std::filesystem::path& folder);

// Setting, course, results and checkpoints of a run. Files that are missing or damaged are said to
// be, and the rest is shown.
void inspect_run(const std::filesystem::path& folder);
// A line for each checkpoint, the newest first: step, samples, ranks, whether every byte is as its
// manifest says.
void inspect_checkpoints(const std::filesystem::path& folder);

}  // namespace lorascale::cli
