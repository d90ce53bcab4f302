// Findings from validations, from how far the adapter has moved, and from the noise scale.
#pragma once

#include <cstdint>
#include <optional>

#include "coordinator/advice/finding.hpp"
#include "coordinator/advice/loss_history.hpp"
#include "coordinator/monitor.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// A straight line through all losses of a stretch of updates, by least squares.
class RunningLine {
 public:
  void add(std::int64_t step, double loss);
  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(count_); }
  struct Ends {
    double first = 0, last = 0;  // of the line
    double slope_in_errors = 0;  // 0 where nothing scatters
  };
  // Nothing for fewer than kFewest losses.
  static constexpr std::int64_t kFewest = 32;
  [[nodiscard]] std::optional<Ends> ends() const;
  [[nodiscard]] Json save() const;
  void load(const Json& state);

 private:
  double count_ = 0, first_ = 0, last_ = 0;          // steps
  double x_ = 0, y_ = 0, xx_ = 0, xy_ = 0, yy_ = 0;  // sums; x is the step behind the first
};

// Over-fitting: the training loss falls while the validation loss rises.
//
// At least three validations in a row lie above the best, the newest by 2 %; the training loss has
// fallen by 2 % and three standard errors since the best; and rows have been seen more than once.
// That it has fallen, the levels of 16 updates may show, or, by four errors, a line through all
// updates since the best: of pictures, whose loss scatters by as much as it is large with the times
// of the noise, 16 updates tell nothing, and hundreds do. All validations use the same rows, so the
// choice of rows cancels in their differences and 2 % is far outside what the optimizer's noise
// moves them by. Within the first epoch there is nothing that could have been learned by heart.
class ValidationGap {
 public:
  void on_loss(std::int64_t step, double loss) { since_best_.add(step, loss); }
  std::optional<Finding> on_evaluation(const EvaluationContext& context, const Recipe& recipe,
                                       const LossHistory& history);
  [[nodiscard]] Json save() const;
  void load(const Json& state);

 private:
  std::optional<double> best_;
  std::int64_t best_step_ = 0;
  std::int64_t best_samples_ = 0;
  LossLevel train_at_best_;
  RunningLine since_best_;
  std::int64_t above_ = 0;  // validations above the best, in a row
  std::int64_t last_step_ = -1;
};

// No movement: |dW| / |W| of the adapted layers, which every adapter starts with at 0 or at what it
// was loaded with, has changed by less than 1e-5 since, and the loss has not fallen.
//
// Adam moves each number by about the rate in each update, so LoRA's B reaches 1e-3 after ten
// updates at 1e-4, and |dW| / |W| about as much. 1e-5 is less than a hundredth of the rounding of
// bf16 (2^-9 = 2e-3): no output can show it. That the loss must not have fallen either, by three
// standard errors, keeps out what learns with little.
//
// Too much of it: |dW| has become twice |W|, so what the model computes is mostly the adapter's and
// the model it was to adapt is lost. Useful adapters stay below a tenth, and those of tiny models
// below one.
class Movement {
 public:
  void on_step(const StepPlan& plan, const StepFacts& facts, const Recipe& recipe);
  std::optional<Finding> on_movement(const MovementFacts& facts, const LossHistory& history);
  [[nodiscard]] Json save() const;
  void load(const Json& state);

 private:
  std::optional<double> start_;  // reported at step 0; without it nothing can be said
  std::int64_t updates_ = 0;     // applied, after the warmup
  double rates_ = 0;             // sum of all rates
  double largest_gradient_ = 0;
  double lr_ = 0;
};

// The batch is above the critical one: by a factor of two and two standard deviations of the
// measured noise scale, 20 updates in a row, and 16 samples or more. The noise scale is small at
// the start and grows, so nothing is said in the first quarter of the budget and the first 50
// updates (200 where the budget is no number of samples). At B = 2 B_simple the samples do a third
// of the work that they do in small batches.
class CriticalBatchWatch {
 public:
  std::optional<Finding> on_step(const StepPlan& plan, const Recipe& recipe,
                                 const NoiseReading& noise);
  [[nodiscard]] Json save() const { return above_; }
  void load(const Json& state) { above_ = state.get<std::int64_t>(); }

 private:
  std::int64_t above_ = 0;  // updates in a row
};

}  // namespace lorascale::coordinator
