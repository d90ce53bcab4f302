#include "coordinator/batch/batch_guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace lorascale::coordinator {
namespace {

std::int64_t multiple_below(std::int64_t value, std::int64_t of) {
  return value / of * of;
}

std::int64_t multiple_above(std::int64_t value, std::int64_t of) {
  return (value / of + (value % of != 0 ? 1 : 0)) * of;
}

std::int64_t doubled(std::int64_t batch) {
  return batch > std::numeric_limits<std::int64_t>::max() / 2
             ? std::numeric_limits<std::int64_t>::max()
             : 2 * batch;
}

}  // namespace

std::int64_t batch_increment(const Recipe& recipe) {
  return recipe.batch_increment > 0 ? recipe.batch_increment : recipe.global_batch;
}

namespace {

// Under any policy.
BatchLimit hard_limit(const Recipe& recipe) {
  if (recipe.batch_max > 0 && recipe.batch_max <= recipe.samples_per_epoch) {
    return {recipe.batch_max, "batch.max " + std::to_string(recipe.batch_max)};
  }
  return {recipe.samples_per_epoch,
          fmt::format("an epoch of {} samples", recipe.samples_per_epoch)};
}

// The tightest bound on growth; a run may begin beyond it.
BatchLimit growth_limit(const Recipe& recipe) {
  BatchLimit limit = hard_limit(recipe);
  if (recipe.batch_min_steps > 0 && recipe.budget_samples / recipe.batch_min_steps < limit.batch) {
    limit = {recipe.budget_samples / recipe.batch_min_steps,
             fmt::format("a budget of {} samples in batch.min_steps {}", recipe.budget_samples,
                         recipe.batch_min_steps)};
  }
  limit.batch = multiple_below(limit.batch, batch_increment(recipe));
  return limit;
}

}  // namespace

BatchLimit largest_batch(const Recipe& recipe) {
  if (recipe.batch_policy == BatchPolicyKind::kFixed) {
    return {recipe.global_batch, "batch.policy fixed"};
  }
  BatchLimit limit = growth_limit(recipe);
  limit.batch = std::max(recipe.global_batch, limit.batch);
  return limit;
}

std::int64_t smallest_batch(const Recipe& recipe) {
  return recipe.batch_min > 0 ? multiple_above(recipe.batch_min, batch_increment(recipe))
                              : recipe.global_batch;
}

std::optional<BatchReach> batch_reach(const Recipe& recipe, const BatchState& state,
                                      std::int64_t samples) {
  if (samples - state.changed_at < recipe.batch_dwell_samples) {
    return std::nullopt;
  }
  const std::int64_t increment = batch_increment(recipe);
  const std::int64_t half = multiple_above(state.batch / 2 + state.batch % 2, increment);
  return BatchReach{
      std::min(state.batch, std::max(smallest_batch(recipe), half)),
      std::max(state.batch, std::min(growth_limit(recipe).batch, doubled(state.batch)))};
}

std::optional<Grant> grant(const Recipe& recipe, const BatchState& state, const BatchReach& reach,
                           std::int64_t wanted) {
  const std::int64_t increment = batch_increment(recipe);
  // Rounded towards the present batch, so that a wish is never exceeded.
  const std::int64_t whole =
      wanted >= state.batch ? multiple_below(wanted, increment) : multiple_above(wanted, increment);
  Grant granted{std::clamp(whole, reach.least, reach.most), {}};
  if (granted.batch == state.batch) {
    return std::nullopt;
  }
  if (granted.batch != whole) {
    const bool grows = granted.batch > state.batch;
    const BatchLimit largest = largest_batch(recipe);
    if (grows) {
      granted.limit = granted.batch < largest.batch ? "at most doubled at a time"
                                                    : "limited by " + largest.reason;
    } else {
      const std::int64_t smallest = smallest_batch(recipe);
      granted.limit = granted.batch > smallest
                          ? "at most halved at a time"
                          : "limited by the smallest batch of " + std::to_string(smallest);
    }
  } else if (whole != wanted) {
    granted.limit = "in whole increments of " + std::to_string(increment);
  }
  return granted;
}

std::int64_t batch_on_ranks(const Recipe& recipe, std::int64_t batch, int before, int after) {
  const bool fixed = recipe.batch_policy == BatchPolicyKind::kFixed;
  const std::int64_t share = batch % before == 0 ? batch / before : 1;
  const std::int64_t unit = fixed && recipe.batch_increment == 0 ? share : batch_increment(recipe);
  // batch * after / before, without the overflow.
  const std::int64_t wanted = batch / before * after + batch % before * after / before;
  const std::int64_t most =
      fixed ? multiple_below(hard_limit(recipe).batch, unit) : growth_limit(recipe).batch;
  const std::int64_t least = multiple_above(std::max(recipe.batch_min, unit), unit);
  const std::int64_t nearest = multiple_below(wanted + unit / 2, unit);
  return most < least ? batch : std::clamp(nearest, least, most);
}

std::vector<std::string> batch_contradictions(const Recipe& recipe) {
  std::vector<std::string> lines;
  if (recipe.batch_policy == BatchPolicyKind::kFixed) {
    return lines;
  }
  const std::int64_t global = recipe.global_batch;
  const std::int64_t increment = batch_increment(recipe);
  if (global % increment != 0) {
    lines.push_back(
        fmt::format("batch.increment {} does not divide batch.global {}; use a divisor, so that "
                    "every batch is made of the same leaves",
                    increment, global));
  } else if (increment % recipe.leaf_size != 0) {
    lines.push_back(
        fmt::format("batch.micro {} does not divide batch.increment {}; use a batch.micro that "
                    "does, or a multiple of it as increment",
                    recipe.leaf_size, increment));
  }
  if (recipe.batch_min > global) {
    lines.push_back(
        fmt::format("batch.min {} is more than batch.global {}, which the run begins with; lower "
                    "the one or raise the other",
                    recipe.batch_min, global));
  }
  if (recipe.batch_max > 0 && recipe.batch_max < global) {
    lines.push_back(
        fmt::format("batch.max {} is less than batch.global {}, which the run begins with; raise "
                    "the one or lower the other",
                    recipe.batch_max, global));
  }
  if (lines.empty()) {
    lines = make_batch_policy(recipe.batch_policy)->contradictions(recipe);
  }
  return lines;
}

}  // namespace lorascale::coordinator
