// One attempt at the update of a plan, for whoever makes updates: names its samples to the data
// set, runs the leaves of this rank, votes and applies (update.hpp).
#pragma once

#include <functional>
#include <string>

#include "data/leaf_stream.hpp"
#include "train/faults.hpp"
#include "train/update.hpp"

namespace lorascale::train {

// Collective. Nothing is applied where a rank runs out of memory.
UpdateResult run_update(World& world, data::LeafStream& leaves, Updater& updater,
                        FaultInjector& faults, const coordinator::StepPlan& plan,
                        const std::function<Ballot()>& ballot);

// The message where an update does not even fit in leaves of one sample.
std::string does_not_fit(const coordinator::MemoryFacts& facts);

}  // namespace lorascale::train
