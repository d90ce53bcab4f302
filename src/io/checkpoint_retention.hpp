// Which checkpoints are deleted, and how: by a rename to `.trash-*` first, so that nobody ever
// finds half a checkpoint. The newest one that verifies is never deleted, whatever the settings
// say.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace lorascale::io {

// Keeps the `keep` (>= 1) newest intact checkpoints and the steps in `protected_steps`; older ones
// go. Damaged ones among the newest are left alone and not counted. Call it after a commit. Returns
// the steps removed. What cannot be deleted is logged, not thrown: full retention never ends a
// training.
std::vector<std::int64_t> prune_checkpoints(const std::filesystem::path& checkpoints, int keep,
                                            std::span<const std::int64_t> protected_steps = {});

// Removes the checkpoints of steps after `step`, which the run has gone back behind.
void remove_checkpoints_after(const std::filesystem::path& checkpoints, std::int64_t step);

// Removes `.tmp-*` and `.trash-*` folders that killed processes left. Call it only with the run's
// lock held.
void remove_leftovers(const std::filesystem::path& checkpoints);

}  // namespace lorascale::io
