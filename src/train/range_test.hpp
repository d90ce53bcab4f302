// The learning-rate range test on a session: updates as training makes them, on the same samples in
// the same order, with a rate that rises from update to update (coordinator/rates/lr_finder.hpp).
// The losses it judges are relative to those of the same samples untrained, found by the same
// updates at a rate of 0: rows differ in loss far more than a rate changes it. Afterwards
// parameters and optimizer state are what they were. The facts of an update are equal on all ranks,
// so all end it at the same update without a word.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/rates/lr_finder.hpp"
#include "train/session.hpp"
#include "train/world.hpp"

namespace lorascale::train {

struct RangeTestSettings {
  double from = 1e-6;
  double to = 1;
  std::optional<std::int64_t> updates;  // absent: 100, or as many as the run has
};

struct RangeTest {
  coordinator::LrRange range;               // rates as the optimizer uses them, at `batch`
  std::vector<coordinator::LrPoint> curve;  // of the rates that were tried
  coordinator::LrFinderSettings settings;   // in force
  bool stopped = false;                     // on request: nothing was found out
  std::int64_t updates = 0;                 // made
  std::int64_t samples = 0;                 // seen
  std::int64_t batch = 0;                   // samples of a whole update
  std::int64_t leaf_size = 0;               // that fitted, at the end
  double factor = 1;                        // rate = optimizer.lr * factor, at `batch`
  std::string state_before, state_after;    // digests (saved_state.hpp)
};

// Collective. Throws Error(kBadConfig) where the run is too short for a test or its rate does not
// follow from optimizer.lr, Error(kBadInput) where no token counts as a target.
RangeTest run_range_test(World& world, Session& session, const RangeTestSettings& settings);

}  // namespace lorascale::train
