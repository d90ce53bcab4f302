// The best validation so far, and early stopping. The best is the lowest finite loss. Patience
// counts validations without an improvement by more than min_delta over the last one that improved,
// so many small gains are not mistaken for none. A validation of a step that was already counted is
// not counted again: a resumed run may repeat its last one. Nor is one of weights that no update
// has changed: where all are skipped, it is for the divergence detector to end the run.
#pragma once

#include <cstdint>
#include <optional>

#include "coordinator/monitor.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

class ValidationTracker : public Monitor {
 public:
  explicit ValidationTracker(const Recipe& recipe)
      : patience_(recipe.patience), min_delta_(recipe.min_delta) {}

  [[nodiscard]] std::string_view name() const override { return "validation"; }
  void on_step(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) override;
  void on_evaluation(const EvaluationContext& context, DecisionLog& log) override;
  [[nodiscard]] std::optional<StopReason> stop_reason() const override;
  [[nodiscard]] Json save() const override;
  void load(const Json& state) override;

  [[nodiscard]] std::optional<double> best_loss() const { return best_loss_; }
  [[nodiscard]] std::int64_t best_step() const { return best_step_; }  // -1: none yet
  // Whether the validation of `step` is the best one.
  [[nodiscard]] bool is_best(std::int64_t step) const { return best_step_ == step && !undone_; }

  // After going back from a divergence: the best result stays what it was, although its step is
  // undone, until it is beaten. True where that is so.
  bool keep_best_of(const ValidationTracker& diverged);

 private:
  std::int64_t patience_ = 0;
  double min_delta_ = 0;

  std::optional<double> best_loss_;
  std::int64_t best_step_ = -1;
  bool undone_ = false;              // the best is of a step that was undone since
  bool still_ = false;               // all updates since the last validation were skipped
  std::optional<double> reference_;  // loss of the last validation that improved by min_delta
  std::int64_t without_improvement_ = 0;
  std::int64_t last_step_ = -1;
  bool stopped_ = false;
};

}  // namespace lorascale::coordinator
