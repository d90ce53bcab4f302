#include "coordinator/memory/leaf_table.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "coordinator/batch/factorise.hpp"

namespace lorascale::coordinator {

MemoryLine RankMemory::line() const {
  return fit_memory(measured, held);
}

bool RankMemory::anything_fits() const {
  return std::ranges::any_of(measured, &LeafMeasurement::fits);
}

std::optional<LeafMeasurement> RankMemory::of(std::int64_t leaf_size) const {
  for (const auto& leaf : measured) {
    if (leaf.leaf_size == leaf_size && leaf.fits) {
      return leaf;
    }
  }
  return std::nullopt;
}

std::optional<double> LeafTable::peak(std::int64_t leaf_size) const {
  double most = 0;
  for (const auto& rank : ranks) {
    const auto leaf = rank.of(leaf_size);
    if (!leaf) {
      return std::nullopt;
    }
    most = std::max(most, leaf->peak());
  }
  return most;
}

std::optional<double> LeafTable::samples_per_second(std::int64_t leaf_size) const {
  double slowest = 0;
  for (const auto& rank : ranks) {
    const auto leaf = rank.of(leaf_size);
    if (!leaf) {
      return std::nullopt;
    }
    slowest = std::max(slowest, leaf->seconds);
  }
  slowest = std::max(slowest, 1e-9);
  const auto most = factorise_by_leaf(global_batch, update_ranks, leaf_size).max_leaves_per_rank;
  return static_cast<double>(global_batch) / (static_cast<double>(most) * slowest);
}

std::size_t LeafTable::tightest() const {
  std::size_t found = 0;
  double least = 0;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto leaf = ranks[rank].of(chosen);
    if (!leaf || ranks[rank].budget <= 0) {
      continue;
    }
    const double left = ranks[rank].budget - leaf->peak();
    if (least == 0 || left < least) {
      found = rank;
      least = left;
    }
  }
  return found;
}

double LeafTable::least_budget() const {
  double least = 0;
  for (const auto& rank : ranks) {
    if (rank.budget > 0 && (least == 0 || rank.budget < least)) {
      least = rank.budget;
    }
  }
  return least;
}

std::vector<LeafSpeed> LeafTable::speeds() const {
  std::vector<LeafSpeed> speeds;
  for (const auto& leaf : ranks.front().measured) {
    if (const auto speed = samples_per_second(leaf.leaf_size)) {
      speeds.push_back({leaf.leaf_size, *speed, 0});
      for (const auto& rank : ranks) {
        speeds.back().noise = std::max(speeds.back().noise, rank.of(leaf.leaf_size)->noise);
      }
    }
  }
  return speeds;
}

LeafFacts LeafTable::facts(bool by_speed) const {
  const std::size_t rank = tightest();
  const auto leaf = ranks[rank].of(chosen);
  LS_ASSERT(leaf.has_value());
  const MemoryLine line = ranks[rank].line();
  LeafFacts facts;
  facts.leaf_size = chosen;
  facts.considered = usable.back();
  facts.rank = static_cast<std::int64_t>(rank);
  facts.budget = ranks[rank].budget;
  facts.peak = leaf->peak();
  facts.fixed = line.fixed;
  facts.per_sample = line.per_sample;
  facts.model = ranks[rank].model;
  if (by_speed) {
    facts.speeds = speeds();
  }
  return facts;
}

}  // namespace lorascale::coordinator
