// What all ranks measured of some leaves, and what follows from it for an update. Bytes, samples
// and seconds; pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/facts.hpp"
#include "coordinator/memory/leaf_fit.hpp"

namespace lorascale::coordinator {

// Bytes of one rank.
struct RankMemory {
  double budget = 0;                      // 0: no limit is known
  double model = 0;                       // weights
  double held = 0;                        // between updates
  std::vector<LeafMeasurement> measured;  // the same leaves on all ranks, as they came
  [[nodiscard]] bool anything_fits() const;
  // Means nothing where nothing fits.
  [[nodiscard]] MemoryLine line() const;
  // Of a leaf that was measured here; nothing where it was not, or did not fit.
  [[nodiscard]] std::optional<LeafMeasurement> of(std::int64_t leaf_size) const;
};

struct LeafTable {
  std::vector<std::int64_t> usable;  // leaves that came into question
  std::int64_t chosen = 0;           // fits on every rank; 0: none does
  std::vector<RankMemory> ranks;
  // Of the update that leaves are measured for.
  std::int64_t global_batch = 0;
  int update_ranks = 0;
  // On the rank where it is most; nothing where the leaf was not measured or did not fit.
  [[nodiscard]] std::optional<double> peak(std::int64_t leaf_size) const;
  // On all ranks together, by the slowest, which has the most leaves: what an update would run at.
  [[nodiscard]] std::optional<double> samples_per_second(std::int64_t leaf_size) const;
  // The rank that the chosen leaf leaves the least to.
  [[nodiscard]] std::size_t tightest() const;
  // 0 where no rank knows a limit.
  [[nodiscard]] double least_budget() const;
  // Of the leaves that fit on every rank, as they came.
  [[nodiscard]] std::vector<LeafSpeed> speeds() const;
  // What the log says of the choice, which was made by speed or by memory alone. Some leaf must
  // fit.
  [[nodiscard]] LeafFacts facts(bool by_speed) const;
};

}  // namespace lorascale::coordinator
