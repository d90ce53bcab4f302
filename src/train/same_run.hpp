// Whether a run's folder and its checkpoints belong to the run that is about to go on in it.
#pragma once

#include "train/run.hpp"
#include "train/snapshot.hpp"

namespace lorascale::train {

// Error(kBadConfig) that says what differs: settings that results depend on, data or base model.
void require_same_run(const Run& run, const SnapshotFields& saved);

// Of a run that starts from nothing: an earlier one in the folder may have died early, and is
// overwritten. What is a result is not, unless the same run makes it again. Rank 0.
void require_nothing_to_lose(const Run& run);

}  // namespace lorascale::train
