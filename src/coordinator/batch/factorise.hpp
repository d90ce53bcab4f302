// How a global batch becomes leaves: B = M * b exactly, on W ranks whose leaf counts differ by at
// most one. B is never altered; what cannot be met is refused with the nearest batch and leaf that
// can.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "coordinator/facts.hpp"

namespace lorascale::coordinator {

struct Factorisation {
  std::int64_t global_batch = 0;  // B
  std::int64_t leaf_size = 0;     // b
  std::int64_t leaves = 0;        // M = B / b
  int world_size = 0;             // W
  std::int64_t min_leaves_per_rank = 0;
  std::int64_t max_leaves_per_rank = 0;  // = the accumulation of the busiest rank
  std::int64_t idle_ranks = 0;           // W - M where there are fewer leaves than ranks
  // Work done over work that fits into the time of the busiest rank: M / (W * max_leaves_per_rank).
  [[nodiscard]] double balance() const;
};

// Chooses b: the largest divisor of B that is at most b_max and leaves no rank idle, if there is
// one (there is where B >= W); otherwise b = 1, which leaves the fewest idle. Throws
// Error(kBadConfig) for arguments below 1.
Factorisation factorise(std::int64_t global_batch, int world_size, std::int64_t max_leaf_size);

// Takes b as given. Throws Error(kBadConfig) with the nearest B above and below and the nearest b
// above and below where b does not divide B. Idle ranks are reported, not refused: they cost time,
// not results.
Factorisation factorise_by_leaf(std::int64_t global_batch, int world_size, std::int64_t leaf_size);

// The refusal of factorise_by_leaf as a line, or nothing where b divides B.
std::optional<std::string> leaf_contradiction(std::int64_t global_batch, std::int64_t leaf_size);

}  // namespace lorascale::coordinator
