#include "coordinator/step_planner.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "coordinator/rates.hpp"
#include "coordinator/schedule.hpp"

namespace lorascale::coordinator {
namespace {

// Rounded up, without the overflow of (number + divisor - 1).
std::int64_t divided_up(std::int64_t number, std::int64_t divisor) {
  return number / divisor + (number % divisor != 0 ? 1 : 0);
}

}  // namespace

std::int64_t largest_update(const Recipe& recipe, std::int64_t batch) {
  return std::min({batch, recipe.samples_per_epoch, recipe.budget_samples});
}

StepPlan plan_step(const Recipe& recipe, const BatchState& state, std::int64_t step,
                   std::int64_t position) {
  LS_ASSERT(position >= 0 && position < recipe.budget_samples);
  const std::int64_t left_in_epoch = recipe.samples_per_epoch - position % recipe.samples_per_epoch;
  StepPlan plan;
  plan.step = step;
  plan.first_position = position;
  plan.samples = std::min({state.batch, left_in_epoch, recipe.budget_samples - position});
  plan.leaf_size = recipe.leaf_size;
  plan.leaves = divided_up(plan.samples, plan.leaf_size);
  plan.epoch = static_cast<double>(position) / static_cast<double>(recipe.samples_per_epoch);
  const ScaledRates rates = rates_in_force(recipe, state, position, plan.samples);
  plan.lr_multiplier = rates.multiplier;
  plan.lr = recipe.lr * rates.multiplier * schedule_multiplier(recipe, position, plan.samples);
  plan.beta1 = rates.beta1;
  plan.beta2 = rates.beta2;
  plan.eps = rates.eps;
  plan.weight_decay = rates.weight_decay;
  plan.ema_rho = average_factor(recipe, plan.samples);
  return plan;
}

std::int64_t steps_per_epoch(const Recipe& recipe, std::int64_t batch) {
  return divided_up(recipe.samples_per_epoch, batch);
}

std::int64_t steps_from(const Recipe& recipe, std::int64_t batch, std::int64_t position) {
  const std::int64_t left = recipe.budget_samples - position;
  if (left <= 0) {
    return 0;
  }
  const std::int64_t epoch = recipe.samples_per_epoch;
  const std::int64_t in_this_epoch = std::min(epoch - position % epoch, left);
  const std::int64_t after = left - in_this_epoch;
  return divided_up(in_this_epoch, batch) + after / epoch * steps_per_epoch(recipe, batch) +
         divided_up(after % epoch, batch);
}

}  // namespace lorascale::coordinator
