// What all ranks measured of some leaves, and what follows from it for an update. Bytes, samples
// and seconds; pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/coordinator.hpp"
#include "coordinator/leaf_fit.hpp"

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
  std::int64_t chosen = 0;           // the largest that fits on every rank; 0: none does
  std::vector<RankMemory> ranks;
  // On the rank where it is most; nothing where the leaf was not measured or did not fit.
  [[nodiscard]] std::optional<double> peak(std::int64_t leaf_size) const;
  // On all ranks together, by the slowest: what an update of many leaves would run at.
  [[nodiscard]] std::optional<double> samples_per_second(std::int64_t leaf_size) const;
  // The rank that the chosen leaf leaves the least to.
  [[nodiscard]] std::size_t tightest() const;
  // 0 where no rank knows a limit.
  [[nodiscard]] double least_budget() const;
  // The leaf with the most samples per second; 0 where none fits.
  [[nodiscard]] std::int64_t fastest() const;
  // What the log says of the choice. Some leaf must fit.
  [[nodiscard]] LeafFacts facts() const;
};

}  // namespace lorascale::coordinator
