// The advisor: watches the facts of a run and says what an experienced engineer would, once for
// each finding in a whole run, over all its resumed parts. Findings and their criteria: advice/.
//
// Nothing of a run follows from it but lines of the decision log. Some findings look at the number
// of ranks; so what it remembers is saved beside the log, outside of what the state hash covers.
#pragma once

#include <string>
#include <vector>

#include "coordinator/advice/finding.hpp"
#include "coordinator/advice/fit_findings.hpp"
#include "coordinator/advice/loss_findings.hpp"
#include "coordinator/monitor.hpp"
#include "coordinator/recipe.hpp"
#include "coordinator/record/decision_log.hpp"

namespace lorascale::coordinator {

class Advisor {
 public:
  // Silent where the recipe does not ask for advice.
  explicit Advisor(const Recipe& recipe) : recipe_(recipe) {}

  // Of a start or a resume, after `step`, with `batch` in force.
  void at_start(int world_size, std::int64_t batch, std::int64_t step, std::int64_t samples,
                DecisionLog& log);
  // `batch`: in force; `noise`: in the metric that the optimizer moves in.
  void on_step(const StepPlan& plan, const StepFacts& facts, std::int64_t batch,
               const NoiseReading& noise, DecisionLog& log);
  // `stopped_early`: this validation ended the run.
  void on_evaluation(const EvaluationContext& context, std::int64_t batch, bool stopped_early,
                     DecisionLog& log);
  void on_movement(const MovementFacts& facts, std::int64_t samples, DecisionLog& log);
  void on_preview(const PreviewFacts& facts, std::int64_t samples, DecisionLog& log);

  [[nodiscard]] const std::vector<Advice>& given() const { return given_; }

  [[nodiscard]] Json save() const;
  void load(const Json& state);
  // The run goes on from `state`, saved before it diverged; what it was told since stays said.
  void go_back(const Json& state, const Advisor& diverged);

 private:
  // The newest known reading, for as long as the window of losses lasts: where the loss oscillates
  // the gradient does too, and its noise scale is not known all the time.
  [[nodiscard]] NoiseReading recent_noise(std::int64_t step, const NoiseReading& now);
  [[nodiscard]] bool was_given(const std::string& name) const;
  void give(std::int64_t step, std::int64_t samples, const Finding& finding, DecisionLog& log);

  Recipe recipe_;
  std::vector<Advice> given_;
  LossHistory history_;
  SkipCounter skips_;
  ValidationGap gap_;
  Movement movement_;
  CriticalBatchWatch critical_;
  std::int64_t noise_step_ = 0;  // of the newest known reading; 0: none yet
  double noise_scale_ = 0;
};

}  // namespace lorascale::coordinator
