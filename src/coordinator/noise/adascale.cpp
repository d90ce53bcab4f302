#include "coordinator/noise/adascale.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace lorascale::coordinator {
namespace {

constexpr double kGainWorthLogging = 1.25;  // factor

Json clock_json(const GainClock& clock) {
  return {{"tau", clock.tau},
          {"noise_scale", clock.noise_scale ? json_number(*clock.noise_scale) : Json(nullptr)}};
}

GainClock clock_from(const Json& json) {
  GainClock clock;
  clock.tau = json.at("tau").get<double>();
  const Json& noise_scale = json.at("noise_scale");
  if (!noise_scale.is_null()) {
    clock.noise_scale = number_from_json(noise_scale);
  }
  return clock;
}

}  // namespace

double adascale_gain(double noise_scale, double samples, double reference_batch) {
  if (std::isinf(noise_scale)) {
    return samples / reference_batch;
  }
  return (noise_scale / reference_batch + 1) / (noise_scale / samples + 1);
}

double gain_relative_sd(const NoiseMoments& moments, double samples, double reference_batch) {
  const double square = std::max(0.0, moments.gradient_square);
  const double above = moments.trace / reference_batch + square;
  const double below = moments.trace / samples + square;
  const double by_trace = 1 / (reference_batch * above) - 1 / (samples * below);
  const double by_square = 1 / above - 1 / below;
  const double variance = by_trace * by_trace * moments.trace_variance +
                          2 * by_trace * by_square * moments.covariance +
                          by_square * by_square * moments.gradient_square_variance;
  return std::sqrt(std::max(0.0, variance));
}

double gain_at(const Recipe& recipe, const GainClock& clock, std::int64_t samples) {
  const auto n = static_cast<double>(samples);
  const auto reference = static_cast<double>(recipe.reference_batch);
  return clock.noise_scale ? adascale_gain(*clock.noise_scale, n, reference)
                           : std::min(1.0, n / reference);
}

void AdaScale::on_step(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) {
  last_clock_ = clock_;
  clock_.tau += plan.tau_advance;
  if (facts.applied) {
    measure(plan);
    announce(plan, log);
  }
}

// The average of |G|^2 may be negative where noise dominates; that is a phi beyond measure, and the
// gain is S, whose error is small there.
void AdaScale::measure(const StepPlan& plan) {
  const NoiseMoments moments = noise_.optimizer_metric().moments();
  if (moments.updates < NoiseTracker::kFewestUpdates || !(moments.trace > 0)) {
    return;
  }
  const double samples = 2 * static_cast<double>(std::max(plan.samples, recipe_.global_batch));
  const double sd =
      gain_relative_sd(moments, samples, static_cast<double>(recipe_.reference_batch));
  if (sd < kLargestRelativeSd) {
    clock_.noise_scale = moments.gradient_square > 0 ? moments.trace / moments.gradient_square
                                                     : std::numeric_limits<double>::infinity();
  }
}

void AdaScale::announce(const StepPlan& plan, DecisionLog& log) {
  const double gain = gain_at(recipe_, clock_, plan.samples);
  const bool changed = announced_ == 0 || gain >= announced_ * kGainWorthLogging ||
                       gain <= announced_ / kGainWorthLogging;
  if (!clock_.noise_scale || !changed) {
    return;
  }
  log.add(plan.step, plan.first_position + plan.samples, "gain",
          fmt::format("an update of {} samples counts as {} updates of {}, at a noise scale of {} "
                      "samples{}; tau is {} of {}",
                      plan.samples, to_text(gain), recipe_.reference_batch,
                      to_text(*clock_.noise_scale),
                      announced_ > 0 ? "; it was " + to_text(announced_) : "", to_text(clock_.tau),
                      recipe_.budget_samples),
          {{"gain", gain},
           {"previous", announced_},
           {"samples", plan.samples},
           {"reference_batch", recipe_.reference_batch},
           {"noise_scale", json_number(*clock_.noise_scale)},
           {"tau", clock_.tau}});
  announced_ = gain;
}

Json AdaScale::save() const {
  return {
      {"now", clock_json(clock_)}, {"last", clock_json(last_clock_)}, {"announced", announced_}};
}

void AdaScale::load(const Json& state) {
  clock_ = clock_from(state.at("now"));
  last_clock_ = clock_from(state.at("last"));
  announced_ = state.at("announced").get<double>();
}

}  // namespace lorascale::coordinator
