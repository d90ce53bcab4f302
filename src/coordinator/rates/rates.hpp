// The rates in force: scaling rule, cap and rate ramp, a pure function of (recipe, BatchState,
// position, samples). Not under adascale, whose rates follow a measured gain (step_planner.hpp).
//
// After a change of the batch at n0 the multiplier of the rate goes from its old value to its new
// one over R samples (scale.ramp), linear in samples: old at n0, new from n0 + R on. A change
// during a ramp starts from where the ramp is. The factor of the ramp also holds for short updates,
// times the rate of their own size.
//
// Momentum needs no correction here. Goyal et al. 2017 (remark 2) multiply the velocity by
// lr_new / lr_old where it holds rates: v <- m v + lr g, p <- p - v. SGD in src/optim/optimizer.cpp
// keeps the rate outside, v <- m v + g, p <- p - lr v, their equation (9), which is the form that
// the correction restores. Applying it here too would be the error it is meant to repair; a test
// shows both forms side by side.
#pragma once

#include <cstdint>

#include "coordinator/batch/batch_state.hpp"
#include "coordinator/rates/scaling.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

ScaledRates rates_in_force(const Recipe& recipe, const BatchState& state, std::int64_t position,
                           std::int64_t samples);

// The state after a change to `batch` at `position`.
BatchState changed_batch(const Recipe& recipe, const BatchState& before, std::int64_t position,
                         std::int64_t batch, double peak_batch, std::int64_t ramp_samples);

// rho of the moving average of weights for an update of `samples`: half the weight of what was
// averaged before is left after ema_half_life_samples, whatever the batch. 0 where it is off.
double average_factor(const Recipe& recipe, std::int64_t samples);

}  // namespace lorascale::coordinator
