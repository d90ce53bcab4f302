#include "coordinator/step_planner.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/portable_math.hpp"
#include "coordinator/rates/rates.hpp"
#include "coordinator/rates/schedule.hpp"

namespace lorascale::coordinator {
namespace {

// Rounded up, without the overflow of (number + divisor - 1).
std::int64_t divided_up(std::int64_t number, std::int64_t divisor) {
  return number / divisor + (number % divisor != 0 ? 1 : 0);
}

// Updates of the samples [position, end), without the beginning of a leg between them.
std::int64_t steps_between(const Recipe& recipe, std::int64_t batch, std::int64_t position,
                           std::int64_t end) {
  const std::int64_t left = end - position;
  if (left <= 0) {
    return 0;
  }
  const std::int64_t epoch = recipe.samples_per_epoch;
  const std::int64_t in_this_epoch = std::min(epoch - position % epoch, left);
  const std::int64_t after = left - in_this_epoch;
  return divided_up(in_this_epoch, batch) + after / epoch * steps_per_epoch(recipe, batch) +
         divided_up(after % epoch, batch);
}

}  // namespace

std::int64_t largest_update(const Recipe& recipe, std::int64_t batch) {
  const std::int64_t in_epoch = std::min(batch, recipe.samples_per_epoch);
  return follows_gain(recipe) ? in_epoch : std::min(in_epoch, recipe.budget_samples);
}

StepPlan plan_step(const Recipe& recipe, const BatchState& state, std::int64_t step,
                   std::int64_t position, const GainClock& clock, const Recovery& recovery) {
  const bool gained = follows_gain(recipe);
  LS_ASSERT(position >= 0 && (gained || position < recipe.budget_samples));
  const std::int64_t left_in_epoch = recipe.samples_per_epoch - position % recipe.samples_per_epoch;
  StepPlan plan;
  plan.step = step;
  plan.first_position = position;
  plan.samples = std::min(state.batch, left_in_epoch);
  if (!gained) {
    const auto next_leg = next_leg_begin(recipe, static_cast<double>(position));
    const auto end = next_leg ? static_cast<std::int64_t>(*next_leg) : recipe.budget_samples;
    plan.samples = std::min(plan.samples, end - position);
  }
  plan.leaf_size = recipe.leaf_size;
  plan.leaves = divided_up(plan.samples, plan.leaf_size);
  plan.epoch = static_cast<double>(position) / static_cast<double>(recipe.samples_per_epoch);
  plan.tau = static_cast<double>(position);
  plan.tau_advance = static_cast<double>(plan.samples);
  ScaledRates rates;
  if (gained) {
    const double gain = gain_at(recipe, clock, plan.samples);
    plan.tau = clock.tau;
    plan.tau_advance = gain * static_cast<double>(recipe.reference_batch);
    rates = scaled_rates(recipe, plan.samples, power(gain, recipe.power));
  } else {
    rates = rates_in_force(recipe, state, position, plan.samples);
  }
  plan.lr_multiplier = rates.multiplier;
  plan.lr = recipe.lr * rates.multiplier * schedule_multiplier(recipe, plan.tau, plan.tau_advance) *
            recovery_factor(recovery, position, plan.samples);
  plan.beta1 = rates.beta1;
  plan.beta2 = rates.beta2;
  plan.eps = rates.eps;
  plan.weight_decay = rates.weight_decay;
  plan.ema_rho = average_factor(recipe, plan.samples);
  plan.swa = plan.tau + plan.tau_advance > static_cast<double>(recipe.swa_start_samples);
  return plan;
}

std::int64_t steps_per_epoch(const Recipe& recipe, std::int64_t batch) {
  return divided_up(recipe.samples_per_epoch, batch);
}

std::int64_t steps_from(const Recipe& recipe, std::int64_t batch, std::int64_t position,
                        const GainClock& clock) {
  if (follows_gain(recipe)) {
    const double gain = gain_at(recipe, clock, largest_update(recipe, batch));
    const double left = static_cast<double>(recipe.budget_samples) - clock.tau;
    const double steps = left / (gain * static_cast<double>(recipe.reference_batch));
    return std::max<std::int64_t>(0, static_cast<std::int64_t>(std::ceil(steps)));
  }
  std::int64_t steps = 0;
  while (const auto next_leg = next_leg_begin(recipe, static_cast<double>(position))) {
    const auto end = static_cast<std::int64_t>(*next_leg);
    steps += steps_between(recipe, batch, position, end);
    position = end;
  }
  return steps + steps_between(recipe, batch, position, recipe.budget_samples);
}

}  // namespace lorascale::coordinator
