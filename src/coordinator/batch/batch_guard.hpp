// What a batch policy may have (I9): batch.min <= B <= min(batch.max, budget / batch.min_steps, an
// epoch), in multiples of batch.increment, at most doubled or halved at a time, and never within
// batch.dwell_samples of the last change.
//
// Every leaf size in use divides the increment and the increment divides batch.global, so each B
// here is a whole number of leaves on any number of ranks, and neither leaf size nor world size
// enters a bound (I12).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/batch/batch_policy.hpp"
#include "coordinator/batch/batch_state.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// batch.increment, or batch.global where none is given.
std::int64_t batch_increment(const Recipe& recipe);

struct BatchLimit {
  std::int64_t batch = 0;
  std::string reason;  // "batch.max", ...
};
// How far the batch may ever go; batch.global where it is already beyond, and under policy fixed.
BatchLimit largest_batch(const Recipe& recipe);
std::int64_t smallest_batch(const Recipe& recipe);

// Nothing while the batch has to dwell.
std::optional<BatchReach> batch_reach(const Recipe& recipe, const BatchState& state,
                                      std::int64_t samples);

struct Grant {
  std::int64_t batch = 0;
  std::string limit;  // why it is not what was wanted; empty where it is
};
// The nearest to `wanted` within reach and in its direction; nothing where that is the present one.
std::optional<Grant> grant(const Recipe& recipe, const BatchState& state, const BatchReach& reach,
                           std::int64_t wanted);

// The batch when its run goes on with `after` ranks instead of `before`: each rank's share stays.
// Within batch.min, batch.max and an epoch; in whole increments where a policy or batch.increment
// counts in them, else in whole shares of a rank.
std::int64_t batch_on_ranks(const Recipe& recipe, std::int64_t batch, int before, int after);

// One line for each contradiction of the recipe's batch keys, those of the policy included; for a
// recipe whose counts are sound.
std::vector<std::string> batch_contradictions(const Recipe& recipe);

}  // namespace lorascale::coordinator
