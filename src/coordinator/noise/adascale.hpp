// AdaScale (Johnson et al. 2020): an update of n = S B0 samples does the work of r reference
// updates, r = (sigma^2 + mu^2) / (sigma^2 / S + mu^2) with sigma^2 = tr(Sigma) / B0 and
// mu^2 = |G|^2, hence r = (phi / B0 + 1) / (phi / n + 1) with the noise scale phi; r lies between 1
// and S. The rate is r^power times that of the recipe at tau, and tau, the clock of schedule and
// budget, advances by r B0: it counts gain-adjusted samples.
//
// scale.power is 1 for SGD. For Adam it is 1/2, a heuristic without proof: like the sqrt rule it
// becomes where noise dominates. tr(Sigma) and |G|^2 are smoothed in sample time
// (noise_scale.hpp); the gain of an update follows from the updates before it. Until phi is
// measured the gain is the lower of 1 and S, so an unmeasured run takes budget / B0 updates, as
// many as at the reference batch.
#pragma once

#include <optional>

#include "coordinator/monitor.hpp"
#include "coordinator/noise/noise_monitor.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

inline bool follows_gain(const Recipe& recipe) {
  return recipe.rule == ScaleRule::kAdascale;
}

// `noise_scale` in [0, infinity]; at infinity the gain is samples / reference_batch.
double adascale_gain(double noise_scale, double samples, double reference_batch);

// Relative sd of the gain at averages with these errors, by the delta method.
double gain_relative_sd(const NoiseMoments& moments, double samples, double reference_batch);

// What an update needs beside (recipe, batch, position).
struct GainClock {
  double tau = 0;
  std::optional<double> noise_scale;  // phi; empty: not measured yet
};

// Gain and rate multiplier of an update of `samples` samples.
double gain_at(const Recipe& recipe, const GainClock& clock, std::int64_t samples);

// Advances the clock. A skipped update advances it too, as it does the count of samples.
class AdaScale : public Monitor {
 public:
  // phi is taken over where the gain at twice the batch has a smaller relative sd: a batch may
  // double before the next look. Else the gain goes on with the phi it had.
  static constexpr double kLargestRelativeSd = 0.25;

  AdaScale(const Recipe& recipe, const NoiseMonitor& noise) : recipe_(recipe), noise_(noise) {}

  [[nodiscard]] std::string_view name() const override { return "adascale"; }
  // After the noise monitor's. Logs the first gain and changes by a quarter.
  void on_step(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) override;
  [[nodiscard]] Json save() const override;
  void load(const Json& state) override;

  [[nodiscard]] const GainClock& clock() const { return clock_; }
  // That of the latest update, kept so that its rates can be computed again.
  [[nodiscard]] const GainClock& last_clock() const { return last_clock_; }

 private:
  void measure(const StepPlan& plan);
  void announce(const StepPlan& plan, DecisionLog& log);

  Recipe recipe_;
  const NoiseMonitor& noise_;
  GainClock clock_;
  GainClock last_clock_;
  double announced_ = 0;  // gain last logged; 0: none yet
};

}  // namespace lorascale::coordinator
