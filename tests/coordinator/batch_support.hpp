// What the tests of batch policies share: a recipe with room to grow, and made-up step times.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/rng.hpp"
#include "coordinator/batch/throughput_model.hpp"
#include "coordinator/recipe.hpp"
#include "support.hpp"

namespace lorascale::coordinator::testing {

constexpr BatchPolicyKind kGrowing[] = {BatchPolicyKind::kRamp, BatchPolicyKind::kNoiseScale,
                                        BatchPolicyKind::kSeesaw, BatchPolicyKind::kGoodput};

// Three epochs of a prime number of samples, from 32 to at most 256 in increments of 8, with a
// change inside the warmup for the policies that begin at once.
inline Recipe growing_recipe(BatchPolicyKind policy) {
  Recipe recipe = small_recipe();
  recipe.samples_per_epoch = 5003;
  recipe.budget_samples = 3 * 5003;
  recipe.warmup_samples = 2000;
  recipe.global_batch = 32;
  recipe.leaf_size = 4;
  recipe.batch_policy = policy;
  recipe.batch_increment = 8;
  recipe.batch_max = 256;
  recipe.batch_min_steps = 50;
  recipe.batch_dwell_samples = 500;
  recipe.batch_ramp_samples = policy == BatchPolicyKind::kRamp ? 9000 : 0;
  recipe.critical_batch = 1000;
  recipe.ramp_samples = 700;
  return recipe;
}

// Uniform in [0, 1), a function of its arguments.
inline double uniform(std::uint64_t seed, std::uint64_t index) {
  return static_cast<double>(mix64(mix64(seed) ^ index) >> 11) * 0x1p-53;
}

// exp of a standard normal times `sd` (Box-Muller).
inline double noise_factor(std::uint64_t seed, std::uint64_t index, double sd) {
  constexpr double kTwoPi = 6.283185307179586;
  return std::exp(sd * std::sqrt(-2 * std::log(1 - uniform(seed, 2 * index))) *
                  std::cos(kTwoPi * uniform(seed, 2 * index + 1)));
}

inline ThroughputParameters true_times() {
  return {.per_leaf = 0.05, .per_sample = 0.01, .per_update = 0.2, .per_rank = 0.02, .overlap = 1};
}

// facts_of with the times of `model` at this update, off by `sd`.
inline StepFacts timed_facts(const StepPlan& plan, int world_size,
                             const ThroughputParameters& model, double sd = 0,
                             std::uint64_t seed = 1) {
  StepFacts facts = facts_of(plan.step);
  const UpdateShape shape{plan.leaf_size, leaves_of_rank(plan.leaves, 0, world_size).end,
                          world_size};
  const auto index = static_cast<std::uint64_t>(2 * plan.step);
  facts.leaf_seconds = leaf_seconds(model, plan.leaf_size) * noise_factor(seed, index, sd);
  facts.step_seconds = step_seconds(model, shape) * noise_factor(seed, index + 1, sd);
  return facts;
}

}  // namespace lorascale::coordinator::testing
