// What a user asks of a run that goes on, beside its configuration: more of it than was planned, or
// its end by a cooldown, in its own folder or from one of its checkpoints in another.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "base/units.hpp"
#include "coordinator/coordinator.hpp"
#include "coordinator/rates/continuation.hpp"
#include "io/run_lock.hpp"
#include "train/session.hpp"

namespace lorascale::train {

struct GoOn {
  std::optional<Amount> more;  // a new leg of the schedule, beyond the budget
  coordinator::LegStart leg_start = coordinator::LegStart::kAuto;
  std::optional<Amount> cooldown;  // the rate down to its floor; kFraction: of the run it ends
  // The run folder that run.output_dir goes on from, where it holds no checkpoint of its own yet.
  std::optional<std::filesystem::path> source;
  std::optional<std::int64_t> at_step;  // that checkpoint of it; absent: the newest
  [[nodiscard]] bool adds_leg() const { return more || cooldown; }
};

// What the run's folder tells of it beside the checkpoint.
struct RunPast {
  bool results_written = false;
  std::size_t legs_of_source = 0;  // of a fork: those of its schedule that the source had
};
// Rank 0.
RunPast read_past(const std::filesystem::path& folder);

// The leg that `wish` asks for, of a run that has come to its present state: nothing where this run
// was granted the same wish before and its leg is under way, or has ended without its results
// written. Throws Error(kBadConfig) where the run cannot be given one.
std::optional<coordinator::Leg> leg_to_add(const coordinator::Coordinator& run, const GoOn& wish,
                                           const Session& session, const RunPast& past);

// Rank 0: makes `folder`, which holds no checkpoint yet, a copy of the run in *wish.source as it
// was at a checkpoint: that checkpoint, last, and the records that lead to it. Error(kBadConfig)
// where there is no such checkpoint, with those that there are.
void fork_run(const GoOn& wish, const std::filesystem::path& folder, const io::RunLock& lock);

}  // namespace lorascale::train
