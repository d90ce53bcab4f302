// What a checkpoint holds: parameters and optimizer state (safetensors), the coordinator's state,
// and what must agree on resume. Written and read by rank 0; the bytes reach the other ranks by
// broadcast, so that a shared file system is not needed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint_folder.hpp"
#include "io/run_lock.hpp"
#include "train/trained_state.hpp"
#include "train/vote.hpp"
#include "train/world.hpp"

namespace lorascale::train {

struct SnapshotFields {
  std::int64_t step = 0;
  std::int64_t samples = 0;
  int world_size = 1;
  std::string config;             // resolved, as YAML
  std::string data_fingerprint;   // training set
  std::string model_fingerprint;  // base model
  std::string coordinator_state;  // JSON
};

// The fields of an intact checkpoint. Error(kBadInput) where they are damaged.
SnapshotFields read_snapshot_fields(const io::Checkpoint& checkpoint);

// Saves on rank 0. Refuses (throws) where a parameter is not finite. Returns the folder.
// `existing`: what becomes of an intact checkpoint of the same step.
std::filesystem::path save_snapshot(const std::filesystem::path& checkpoints,
                                    const SnapshotFields& fields, const TrainedState& state,
                                    const io::RunLock& lock,
                                    io::Existing existing = io::Existing::kKept);

// Loads the newest intact checkpoint into the tensors on all ranks. Nothing where there is none;
// throws where all are damaged. Skipped ones are logged with their reason. `check` may throw before
// a tensor is touched. `in_vain`: where the newest is of that step, the one before it is taken, if
// there is one.
std::optional<SnapshotFields> load_newest_snapshot(
    World& world, const std::filesystem::path& checkpoints, const TrainedState& state,
    const std::function<void(const SnapshotFields&)>& check,
    std::optional<std::int64_t> in_vain = std::nullopt);

}  // namespace lorascale::train
