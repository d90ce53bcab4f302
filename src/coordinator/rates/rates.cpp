#include "coordinator/rates/rates.hpp"

#include "base/portable_math.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

// What the multiplier of the batch in force is multiplied by on the way.
double ramp_factor(const Recipe& recipe, const BatchState& state, std::int64_t position) {
  if (state.multiplier_before == 0 || position - state.changed_at >= state.ramp_samples) {
    return 1;
  }
  const double done =
      static_cast<double>(position - state.changed_at) / static_cast<double>(state.ramp_samples);
  const std::int64_t full = largest_update(recipe, state.batch);
  const double target = rule_multiplier(recipe, full, state.peak_batch);
  return 1 + (state.multiplier_before / target - 1) * (1 - done);
}

}  // namespace

ScaledRates rates_in_force(const Recipe& recipe, const BatchState& state, std::int64_t position,
                           std::int64_t samples) {
  return scaled_rates(
      recipe, samples,
      rule_multiplier(recipe, samples, state.peak_batch) * ramp_factor(recipe, state, position));
}

BatchState changed_batch(const Recipe& recipe, const BatchState& before, std::int64_t position,
                         std::int64_t batch, double peak_batch, std::int64_t ramp_samples) {
  const std::int64_t full = largest_update(recipe, before.batch);
  return {batch, position, rates_in_force(recipe, before, position, full).multiplier, peak_batch,
          ramp_samples};
}

double average_factor(const Recipe& recipe, std::int64_t samples) {
  if (recipe.ema_half_life_samples == 0) {
    return 0;
  }
  return power(0.5,
               static_cast<double>(samples) / static_cast<double>(recipe.ema_half_life_samples));
}

}  // namespace lorascale::coordinator
