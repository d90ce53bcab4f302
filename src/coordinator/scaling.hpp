// How rates follow the batch. k = (samples of the update) / B0, the batch that the recipe's values
// were tuned at. Every function here composes: scaling by k1 and then by k2 is scaling by k1 k2,
// and k = 1 changes nothing, bit for bit; but for adascale, whose factor is measured. A new rule is
// a row of the table in scaling.cpp and its name in recipe.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

std::string_view name_of(ScaleRule rule);  // as in a config: "sqrt"

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

// Everything an update of `samples` samples uses, before the schedule. Companions whose switch is
// off stay as they are. `multiplier` replaces the rule's.
struct ScaledRates {
  double multiplier = 1;
  double beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  friend bool operator==(const ScaledRates&, const ScaledRates&) = default;
};
ScaledRates scaled_rates(const Recipe& recipe, std::int64_t samples,
                         std::optional<double> multiplier = {});

}  // namespace lorascale::coordinator
