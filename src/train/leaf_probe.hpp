// What leaves take, measured where they will be computed: every rank does forward and backward of
// its longest rows, and what an update needs beside and after them, within the memory it has
// (memory.budget_mib, or a device's own). Ranks measure alone and agree after each leaf, so that
// one that runs out of memory keeps nobody waiting. Nothing that training starts from changes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/leaf_fit.hpp"
#include "train/session.hpp"
#include "train/update.hpp"

namespace lorascale::train {

// Bytes of one rank.
struct RankMemory {
  double budget = 0;                                   // 0: no limit is known
  double model = 0;                                    // weights
  double held = 0;                                     // between updates
  std::vector<coordinator::LeafMeasurement> measured;  // the same leaves on all ranks, as they came
  [[nodiscard]] coordinator::MemoryLine line() const;
  // Of a leaf that was measured here; nothing where it was not, or did not fit.
  [[nodiscard]] std::optional<coordinator::LeafMeasurement> of(std::int64_t leaf_size) const;
};

struct LeafTable {
  std::vector<std::int64_t> usable;  // leaves that came into question
  std::int64_t chosen = 0;           // the largest that fits on every rank; 0: none does
  std::vector<RankMemory> ranks;
  // On the rank where it is most; nothing where the leaf was not measured or did not fit.
  [[nodiscard]] std::optional<double> peak(std::int64_t leaf_size) const;
  // On all ranks together, by the slowest: what an update of many leaves would run at.
  [[nodiscard]] std::optional<double> samples_per_second(std::int64_t leaf_size) const;
  // The rank that the chosen leaf leaves the least to.
  [[nodiscard]] std::size_t tightest() const;
};

struct ProbeSettings {
  std::vector<std::int64_t> usable;
  bool thorough = false;  // LeafSearch
  int repeats = 1;        // the fastest of them counts as the time
  int ranks = 1;          // that an update is divided among; those of the world, or planned ones
};

// Collective.
LeafTable measure_leaves(World& world, Session& session, Updater& updater,
                         const coordinator::Recipe& recipe, const ProbeSettings& settings);

// Where `batch.micro: auto` looks: divisors up to a size beyond which leaves gain no speed, two to
// an update where the noise scale is to be measured.
std::vector<std::int64_t> auto_leaves(const Session& session, const coordinator::Recipe& recipe,
                                      int ranks);

// Throws Error(kBadConfig) on all ranks, with the remedy, where no leaf fits.
void require_leaf(World& world, const Session& session, const LeafTable& table);

// What `batch.micro: auto` takes; nothing where no rank knows a limit, and the recipe's own stays.
// Collective.
std::optional<LeafTable> choose_leaf(World& world, Session& session, Updater& updater,
                                     const coordinator::Recipe& recipe, int ranks);

// Settles the leaf of a run that is about to begin or go on, in session.recipe. A run that goes on
// keeps the leaf of `saved_state` where it fits and leaves no rank idle; under run.reduction exact
// also where it does, for another leaf has other bits. Returns what to log; nothing where nothing
// was chosen. Collective.
std::optional<coordinator::LeafFacts> settle_leaf(World& world, Session& session, Updater& updater,
                                                  const std::string* saved_state);

}  // namespace lorascale::train
