// How rates follow the batch. k = (samples of the update) / B0, the batch that the recipe's values
// were tuned at. Every function here composes: scaling by k1 and then by k2 is scaling by k1 k2,
// and k = 1 changes nothing, bit for bit; but for adascale, whose factor is measured. A new rule is
// a row of the table in scaling.cpp, its mode in recipe.hpp and its name in mode_names.hpp.
#pragma once

#include <cstdint>

#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// f(k): what the learning rate is multiplied by. none 1; linear k (Goyal et al. 2017); sqrt k^0.5
// (Malladi et al. 2022); power k^exponent. adascale gain^exponent with the gain of a run that has
// measured nothing, the lower of 1 and k. `exponent` is used by these two alone. k > 0.
double lr_multiplier(ScaleRule rule, double exponent, double k);

// beta' = 1 - k (1 - beta): keeps the time constant B / (1 - beta) in samples (Malladi et al.
// 2022). Throws Error(kBadConfig) where k (1 - beta) >= 1, at which nothing of earlier updates
// would be left.
double scaled_beta(double beta, double k);
bool beta_can_scale(double beta, double k);

// rho' = rho^k: keeps the half-life of a moving average in samples exactly (Busbridge et al. 2023).
double scaled_average(double rho, double k);

// eps' = eps / sqrt(k): Adam's second moment, where gradient noise dominates it, falls as 1 / k.
double scaled_eps(double eps, double k);

// lambda' = lambda k / f(k): keeps lambda' lr' / B and with it AdamW's timescale in samples (Wang
// and Aitchison).
double scaled_weight_decay(double weight_decay, double k, double multiplier);

// The surge formula (Li et al. 2024: for sign-like optimizers the best rate goes as
// 1 / (sqrt(Bn / B) + sqrt(B / Bn)), so it bends and then falls beyond a peak Bn), divided by its
// value at B0 so that it is 1 there: sqrt(B / B0) (Bn + B0) / (Bn + B). A cap, not a law: against
// the best rate of one step on a quadratic it is within 1 % for B <= Bn / 16, 5 % at Bn / 4 and 14
// to 22 % off at Bn, and the fall beyond Bn exists only where the Hessian couples coordinates.
// Below B0, where the rate was tuned, it caps nothing.
double surge_cap(double batch, double reference, double peak);

// Where the cap bends before anything was measured: at the critical batch that the recipe gives. 0:
// no cap.
double given_peak(const Recipe& recipe);

// The rule's factor for an update of `samples` samples, capped at `peak_batch` (0: no cap).
double rule_multiplier(const Recipe& recipe, std::int64_t samples, double peak_batch);

// Everything an update of `samples` samples uses, before the schedule. Companions whose switch is
// off stay as they are.
struct ScaledRates {
  double multiplier = 1;
  double beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  friend bool operator==(const ScaledRates&, const ScaledRates&) = default;
};
// At the factor of the rule, capped at the given peak.
ScaledRates scaled_rates(const Recipe& recipe, std::int64_t samples);
// At another one: of a measured cap, a ramp or a gain. Weight decay follows the rate in use, so
// lambda lr / B stays what it is.
ScaledRates scaled_rates(const Recipe& recipe, std::int64_t samples, double multiplier);

}  // namespace lorascale::coordinator
