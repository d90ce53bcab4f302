// Findings from the course of the training loss. Pure functions of what was watched.
#pragma once

#include <optional>

#include "coordinator/advice/finding.hpp"
#include "coordinator/advice/loss_history.hpp"
#include "coordinator/facts.hpp"

namespace lorascale::coordinator {

// Updates that were skipped because they were not finite: three within 100. One alone is nothing: a
// loss scale or a single row may do that, and training goes on.
class SkipCounter {
 public:
  std::optional<Finding> on_skip(const StepPlan& plan, const StepFacts& facts);
  [[nodiscard]] Json save() const { return steps_; }
  void load(const Json& state) { steps_ = state.get<std::vector<std::int64_t>>(); }

 private:
  std::vector<std::int64_t> steps_;  // the newest last, at most three
};

// Both newest blocks are above the lowest level so far, by a tenth and by six standard errors.
//
// The lowest of many levels is low by chance: of 10^4 blocks it is four standard errors of a block
// below the mean. Six errors of a difference are 8.5 of a block, and both blocks must be there; so
// chance alone has no part in it even in the longest run. The tenth keeps out what is real and
// harmless: a change of the mix of documents within an epoch.
std::optional<Finding> loss_rises(const LossHistory& history, const StepPlan& plan);

// The loss does not fall, and scatters by far more than the choice of samples explains: so it is
// the parameters that go to and fro.
//
// The choice of samples makes a batch's loss scatter by the standard error that the update's own
// leaves show. Over kWindow updates the ratio of the scatter around a line to that error follows an
// F distribution with 62 degrees of freedom above and at least 64 below, whose 1e-7 quantile is
// 3.9; the finding asks for 4, and for a scatter beyond the samples' of 2 % of the loss.
//
// Which of the two it is the noise scale tells: of the squared gradient of a batch B the share
// B_simple / (B + B_simple) is noise. Above one half it is noise that drives the parameters: the
// batch is small. Below it is the gradient itself: the rate is high.
std::optional<Finding> loss_oscillates(const LossHistory& history, const StepPlan& plan,
                                       const NoiseReading& noise);

}  // namespace lorascale::coordinator
