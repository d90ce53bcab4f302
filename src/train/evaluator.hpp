// Loss and measures over the validation set, spread over ranks: sums over sums, the same for any
// world size.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/facts.hpp"
#include "train/faults.hpp"
#include "train/session.hpp"
#include "train/world.hpp"

namespace lorascale::train {

struct Evaluation {
  double loss = 0;
  // "accuracy", ...: of Model::measure_names(), between 0 and 1.
  std::vector<std::pair<std::string, double>> measures;
};

// The first evaluate.max_samples rows (0: all) of the session's validation set, in file order, in
// leaves of `leaf_size`, which is halved where a rank runs out of memory; `report` is told on every
// rank, but for the step. Nothing where not even one row fits, of which it is told a leaf of 0.
// Throws where no target is in them.
std::optional<Evaluation> evaluate(
    World& world, const Session& session, std::int64_t& leaf_size, FaultInjector& faults,
    const std::function<void(const coordinator::AsideMemoryFacts&)>& report);

}  // namespace lorascale::train
