// Divergence: updates skipped in a row because they were not finite, or a loss that stays far above
// its moving mean.
//
// Mean and variance are exponentially weighted in sample time: an update of s samples weighs s, and
// its weight falls by kMemory for each global batch that follows. z = (loss - mean) / spread
// against the window before the update. The detector is armed after kMinimumUpdates updates. An
// outlier does not enter the window, else a jump would raise the mean and the spread until it
// looked normal. An update without targets is neither. The spread is at least kLeastSpread of the
// mean: where losses hardly vary, a small and harmless shift must not end a run.
#pragma once

#include <cstdint>

#include "coordinator/monitor.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// Mean and variance under exponential forgetting, unbiased from the start (reliability weights).
class WeightedWindow {
 public:
  // All earlier weights times `memory`, then `value` with `weight`.
  void add(double value, double weight, double memory);
  [[nodiscard]] double mean() const { return mean_; }
  [[nodiscard]] double variance() const;  // 0 for fewer than two values

  [[nodiscard]] Json save() const;
  void load(const Json& state);

 private:
  double weight_ = 0;          // sum of the weights
  double squared_weight_ = 0;  // sum of their squares
  double mean_ = 0;
  double deviation_ = 0;  // weighted sum of squared deviations from the mean
};

class DivergenceDetector : public Monitor {
 public:
  static constexpr double kMemory = 0.98;  // half-life: 34 batches
  static constexpr std::int64_t kMinimumUpdates = 20;
  static constexpr double kLeastSpread = 0.01;

  explicit DivergenceDetector(const Recipe& recipe);

  [[nodiscard]] std::string_view name() const override { return "divergence"; }
  void on_step(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) override;
  [[nodiscard]] std::optional<StopReason> stop_reason() const override;
  [[nodiscard]] Json save() const override;
  void load(const Json& state) override;

  // Whether the latest update was one of a row that may end in divergence: nothing to go back to
  // later.
  [[nodiscard]] bool in_trouble() const {
    return (outliers_ > 0 && z_limit_ > 0 && patience_ > 0) || (skipped_ > 0 && max_skipped_ > 0);
  }
  // The run is back at a place before: what was counted against it is forgotten, not the window.
  void forgive();

  // Of `loss` against the window; not finite for a loss that is not. 0 while the detector is not
  // armed.
  [[nodiscard]] double z_score(double loss) const;

 private:
  void on_skip(const StepPlan& plan, const StepFacts& facts, DecisionLog& log);
  void on_loss(const StepPlan& plan, const StepFacts& facts, DecisionLog& log);

  double z_limit_ = 0;
  std::int64_t patience_ = 0;
  std::int64_t max_skipped_ = 0;
  std::int64_t batch_ = 0;

  WeightedWindow window_;
  std::int64_t accepted_ = 0;  // updates in the window
  std::int64_t outliers_ = 0;  // in a row
  std::int64_t skipped_ = 0;   // in a row
  bool diverged_ = false;
};

}  // namespace lorascale::coordinator
