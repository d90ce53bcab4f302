// What leaves take, measured where they will be computed: every rank does forward and backward of
// its longest rows, and what an update needs beside and after them, within the memory it has
// (memory.budget_mib, or a device's own). Ranks measure alone and agree after each leaf, so that
// one that runs out of memory keeps nobody waiting. Nothing that training starts from changes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/memory/leaf_table.hpp"
#include "train/session.hpp"
#include "train/update.hpp"

namespace lorascale::train {

struct ProbeSettings {
  std::vector<std::int64_t> usable;
  coordinator::LeafAim aim = coordinator::LeafAim::kLargest;
  int ranks = 1;  // that an update is divided among; those of the world, or planned ones
};

// Collective. Chosen is the largest leaf, or the fastest where the aim is not the largest alone;
// its time is then measured a few times, and a search for the fastest ends after some ten seconds.
coordinator::LeafTable measure_leaves(World& world, Session& session, Updater& updater,
                                      const coordinator::Recipe& recipe,
                                      const ProbeSettings& settings);

// Where `batch.micro: auto` looks: divisors up to a size beyond which leaves gain no speed, two to
// an update where the noise scale is to be measured.
std::vector<std::int64_t> auto_leaves(const Session& session, const coordinator::Recipe& recipe,
                                      int ranks);

// Whether some rank knows a limit of its memory. Collective.
bool any_limit(World& world);

// Throws Error(kBadConfig) on all ranks, with the remedy, where no leaf fits.
void require_leaf(World& world, const Session& session, const coordinator::LeafTable& table);

// What `batch.micro: auto` takes: the fastest leaf that fits; under run.reduction exact, where bits
// must not follow from a clock, the largest, and nothing where no rank knows a limit: the recipe's
// own stays. Collective.
std::optional<coordinator::LeafTable> choose_leaf(World& world, Session& session, Updater& updater,
                                                  const coordinator::Recipe& recipe, int ranks);

// Settles the leaf of a run that is about to begin or go on, in session.recipe. A run that goes on
// keeps the leaf of `saved_state` where it fits and leaves no rank idle; under run.reduction exact
// also where it does, for another leaf has other bits. Returns what to log; nothing where nothing
// was chosen. Collective.
std::optional<coordinator::LeafFacts> settle_leaf(World& world, Session& session, Updater& updater,
                                                  const std::string* saved_state);

}  // namespace lorascale::train
