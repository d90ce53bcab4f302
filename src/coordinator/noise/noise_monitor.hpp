// The noise scale of every group, and of all together, over a run.
//
// All groups as one vector: rescaling LoRA's A by c and B by 1/c leaves the model as it is, but
// divides the gradient of A by c and multiplies that of B, so raw sums over groups depend on a
// choice that means nothing. Adam's preconditioned metric takes such factors out again. Hence the
// combined reading, which decisions about the batch may use, is
//   - all groups pooled in the preconditioned metric, where that was measured;
//   - else the smallest known reading of one group. It does not depend on the factors, it bounds
//     the pooled value of every choice of them from below, and it errs to the side that costs only
//     time: a batch above a noise scale costs samples. A group stays unknown mostly because its
//     noise scale is far above the batch, so it would not have been the smallest.
#pragma once

#include <string>
#include <vector>

#include "coordinator/monitor.hpp"
#include "coordinator/noise/noise_scale.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// In samples, for updates of `batch`: what messages propose.
inline std::int64_t usual_noise_horizon(std::int64_t batch) {
  return 100 * batch;
}

class NoiseMonitor : public Monitor {
 public:
  explicit NoiseMonitor(const Recipe& recipe)
      : horizon_(static_cast<double>(recipe.noise_horizon_samples)) {}

  [[nodiscard]] std::string_view name() const override { return "noise"; }
  // Logs when the combined reading is first known and whenever it has changed twofold since.
  void on_step(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) override;
  [[nodiscard]] Json save() const override;
  void load(const Json& state) override;

  [[nodiscard]] NoiseReport report() const;
  // Of all groups in the metric that the optimizer moves in: the preconditioned one where it was
  // measured, else the raw one, which is SGD's.
  [[nodiscard]] const NoiseTracker& optimizer_metric() const;

 private:
  struct Group {
    std::string name;
    NoiseTracker raw;
    NoiseTracker preconditioned;
  };
  Group& group_of(const std::string& name);
  void announce(const StepPlan& plan, DecisionLog& log);

  double horizon_ = 0;
  std::vector<Group> groups_;  // in the order in which they were first reported
  NoiseTracker pooled_raw_;
  NoiseTracker pooled_preconditioned_;
  double announced_ = 0;  // noise scale last logged; 0: none yet
};

}  // namespace lorascale::coordinator
