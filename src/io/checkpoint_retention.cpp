#include "io/checkpoint_retention.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <system_error>

#include "base/error.hpp"
#include "io/checkpoint_folder.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

bool is_intact(const fs::path& folder) {
  try {
    const Checkpoint checkpoint(folder);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool remove_checkpoint(const fs::path& checkpoints, std::int64_t step) {
  const std::string name = checkpoint_name(step);
  const fs::path trash = checkpoints / (".trash-" + name);
  std::error_code failure;
  fs::remove_all(trash, failure);
  if (!failure) {
    fs::rename(checkpoints / name, trash, failure);
  }
  const bool gone = !failure;
  if (gone) {
    fs::remove_all(trash, failure);
  }
  if (failure) {
    spdlog::warn("The old checkpoint {} could not be removed: {}", (checkpoints / name).string(),
                 failure.message());
  }
  return gone;
}

}  // namespace

std::vector<std::int64_t> prune_checkpoints(const fs::path& checkpoints, int keep,
                                            std::span<const std::int64_t> protected_steps) {
  if (keep < 1) {
    throw_bad_config("checkpoint.keep is " + std::to_string(keep) +
                     ": at least 1 checkpoint must be kept");
  }
  std::vector<std::int64_t> removed;
  int intact = 0;
  for (const std::int64_t step : list_checkpoints(checkpoints)) {
    if (intact < keep) {
      intact += is_intact(checkpoints / checkpoint_name(step)) ? 1 : 0;
      continue;
    }
    const bool is_protected =
        std::find(protected_steps.begin(), protected_steps.end(), step) != protected_steps.end();
    if (!is_protected && remove_checkpoint(checkpoints, step)) {
      removed.push_back(step);
    }
  }
  return removed;
}

void remove_checkpoints_after(const fs::path& checkpoints, std::int64_t step) {
  for (const std::int64_t later : list_checkpoints(checkpoints)) {
    if (later > step) {
      remove_checkpoint(checkpoints, later);
    }
  }
}

void remove_leftovers(const fs::path& checkpoints) {
  std::error_code failure;
  std::vector<fs::path> leftovers;
  for (fs::directory_iterator entries(checkpoints, failure);
       !failure && entries != fs::directory_iterator(); entries.increment(failure)) {
    const std::string name = entries->path().filename().string();
    if (name.starts_with(".tmp-") || name.starts_with(".trash-") ||
        name.starts_with(".LATEST.tmp-")) {
      leftovers.push_back(entries->path());
    }
  }
  for (const fs::path& path : leftovers) {
    fs::remove_all(path, failure);
    if (failure) {
      spdlog::warn("{} could not be removed: {}", path.string(), failure.message());
    }
  }
}

}  // namespace lorascale::io
