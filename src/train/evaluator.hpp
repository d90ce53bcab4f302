// Validation loss over a data set, spread over ranks: sum of losses / number of targets, the same
// for any world size.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "coordinator/facts.hpp"
#include "models/model.hpp"
#include "train/faults.hpp"
#include "train/leaf_stream.hpp"
#include "train/world.hpp"

namespace lorascale::train {

// The first `max_samples` rows (0: all), in file order, in leaves of `leaf_size`, which is halved
// where a rank runs out of memory; `report` is told on every rank, but for the step. Nothing where
// not even one row fits, of which it is told a leaf of 0. Throws where no target is in them.
std::optional<double> evaluate(
    World& world, models::Model& model, TokenSource& source, std::int64_t max_samples,
    std::int64_t& leaf_size, FaultInjector& faults,
    const std::function<void(const coordinator::AsideMemoryFacts&)>& report);

}  // namespace lorascale::train
