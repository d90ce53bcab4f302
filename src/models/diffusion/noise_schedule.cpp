#include "models/diffusion/noise_schedule.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace lorascale::models::diffusion {
namespace {

double beta_of(const NoiseScheduleSettings& settings, std::int64_t t) {
  const double share = static_cast<double>(t) / static_cast<double>(settings.steps - 1);
  const auto between = [share](double first, double last) {
    return first + share * (last - first);
  };
  if (settings.betas == BetaSchedule::kLinear) {
    return between(settings.beta_start, settings.beta_end);
  }
  const double root = between(std::sqrt(settings.beta_start), std::sqrt(settings.beta_end));
  return root * root;
}

// Signals are shifted so that the last one is zero, and scaled so that the first one stays.
void end_without_signal(std::vector<double>& alpha_bars) {
  const double first = std::sqrt(alpha_bars.front()), last = std::sqrt(alpha_bars.back());
  for (double& alpha_bar : alpha_bars) {
    const double signal = (std::sqrt(alpha_bar) - last) * first / (first - last);
    alpha_bar = signal * signal;
  }
}

}  // namespace

NoiseSchedule::NoiseSchedule(const NoiseScheduleSettings& settings) : settings_(settings) {
  LS_ASSERT(settings.steps > 1);
  LS_ASSERT(!settings.zero_terminal_snr || settings.prediction == Prediction::kVelocity);
  double product = 1;
  for (std::int64_t t = 0; t < settings.steps; ++t) {
    product *= 1 - beta_of(settings, t);
    alpha_bars_.push_back(product);
  }
  if (settings.zero_terminal_snr) {
    end_without_signal(alpha_bars_);
  }
}

double NoiseSchedule::alpha_bar(std::int64_t t) const {
  LS_ASSERT(t >= 0 && t < steps());
  return alpha_bars_[static_cast<std::size_t>(t)];
}

double NoiseSchedule::signal(std::int64_t t) const {
  return std::sqrt(alpha_bar(t));
}

double NoiseSchedule::noise(std::int64_t t) const {
  return std::sqrt(1 - alpha_bar(t));
}

double NoiseSchedule::snr(std::int64_t t) const {
  return alpha_bar(t) / (1 - alpha_bar(t));
}

double NoiseSchedule::sigma(std::int64_t t) const {
  return noise(t) / signal(t);
}

double NoiseSchedule::loss_weight(std::int64_t t, const LossWeighting& weighting) const {
  constexpr double kMostSnr = 1000;  // the first steps would outweigh all others
  const bool velocity = settings_.prediction == Prediction::kVelocity;
  const double ratio = snr(t), capped = std::min(ratio, kMostSnr);
  double weight = 1;
  if (weighting.min_snr_gamma) {
    weight *= std::min(ratio, *weighting.min_snr_gamma) / (velocity ? ratio + 1 : ratio);
  }
  if (weighting.scale_v_like_noise) {
    LS_ASSERT(velocity);
    weight *= capped / (capped + 1);
  }
  if (weighting.debiased) {
    weight *= velocity ? 1 / (capped + 1) : 1 / std::sqrt(capped);
  }
  return weight;
}

}  // namespace lorascale::models::diffusion
