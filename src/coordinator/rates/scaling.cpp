#include "coordinator/rates/scaling.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.hpp"
#include "base/portable_math.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {
namespace {

struct Rule {
  ScaleRule rule;
  double (*multiplier)(double k, double exponent);
};

constexpr std::array kRules = {
    Rule{ScaleRule::kNone, [](double, double) { return 1.0; }},
    Rule{ScaleRule::kLinear, [](double k, double) { return k; }},
    Rule{ScaleRule::kSqrt, [](double k, double) { return std::sqrt(k); }},
    Rule{ScaleRule::kPower, [](double k, double exponent) { return power(k, exponent); }},
    Rule{ScaleRule::kAdascale,
         [](double k, double exponent) { return power(std::min(1.0, k), exponent); }},
};

const Rule& rule_of(ScaleRule rule) {
  for (const Rule& candidate : kRules) {
    if (candidate.rule == rule) {
      return candidate;
    }
  }
  LS_ASSERT(!"every rule has a row");
  return kRules.front();
}

// 10 * (1 - 0.9) is a hair below 1 in doubles; it means 1.
constexpr double kRounding = 1e-12;

}  // namespace

double lr_multiplier(ScaleRule rule, double exponent, double k) {
  LS_ASSERT(k > 0);
  return rule_of(rule).multiplier(k, exponent);
}

bool beta_can_scale(double beta, double k) {
  return k == 1 || k * (1 - beta) < 1 - kRounding;
}

double scaled_beta(double beta, double k) {
  if (!beta_can_scale(beta, k)) {
    throw_bad_config(
        fmt::format("scale.betas asks for k (1 - beta) = {} x {}, which must stay below 1; use k "
                    "below {}, a larger beta, or scale.betas: false",
                    to_text(k), to_text(1 - beta), to_text(1 / (1 - beta))));
  }
  return k == 1 ? beta : 1 - k * (1 - beta);
}

double scaled_average(double rho, double k) {
  return rho > 0 ? power(rho, k) : 0;
}

double scaled_eps(double eps, double k) {
  return eps / std::sqrt(k);
}

double scaled_weight_decay(double weight_decay, double k, double multiplier) {
  return k == multiplier ? weight_decay : weight_decay * (k / multiplier);
}

double surge_cap(double batch, double reference, double peak) {
  LS_ASSERT(batch > 0 && reference > 0 && peak > 0);
  return std::sqrt(batch / reference) * ((peak + reference) / (peak + batch));
}

double given_peak(const Recipe& recipe) {
  return recipe.surge_cap ? recipe.critical_batch : 0;
}

double rule_multiplier(const Recipe& recipe, std::int64_t samples, double peak_batch) {
  const double batch = static_cast<double>(samples);
  const double reference = static_cast<double>(recipe.reference_batch);
  const double multiplier = lr_multiplier(recipe.rule, recipe.power, batch / reference);
  return peak_batch > 0 && batch > reference
             ? std::min(multiplier, surge_cap(batch, reference, peak_batch))
             : multiplier;
}

ScaledRates scaled_rates(const Recipe& recipe, std::int64_t samples) {
  return scaled_rates(recipe, samples, rule_multiplier(recipe, samples, given_peak(recipe)));
}

ScaledRates scaled_rates(const Recipe& recipe, std::int64_t samples, double multiplier) {
  const double k = static_cast<double>(samples) / static_cast<double>(recipe.reference_batch);
  ScaledRates rates;
  rates.multiplier = multiplier;
  rates.beta1 = recipe.scale_betas ? scaled_beta(recipe.beta1, k) : recipe.beta1;
  rates.beta2 = recipe.scale_betas ? scaled_beta(recipe.beta2, k) : recipe.beta2;
  rates.eps = recipe.scale_eps ? scaled_eps(recipe.eps, k) : recipe.eps;
  rates.weight_decay = recipe.scale_weight_decay
                           ? scaled_weight_decay(recipe.weight_decay, k, rates.multiplier)
                           : recipe.weight_decay;
  return rates;
}

}  // namespace lorascale::coordinator
