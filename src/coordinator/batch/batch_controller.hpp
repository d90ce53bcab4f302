// Carries out a batch policy: asks it after each update, lets the guard limit what it wants, logs
// the decision (kind "batch") and puts it in force from the next update on; and lets the batch
// follow the number of ranks on a resume. Owns what a run knows of its batch. Nothing of this is
// saved or hashed where the batch never changes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "coordinator/batch/batch_policy.hpp"
#include "coordinator/batch/batch_state.hpp"
#include "coordinator/recipe.hpp"
#include "coordinator/record/decision_log.hpp"

namespace lorascale::coordinator {

class BatchController {
 public:
  static constexpr std::int64_t kRampUpdates = 10;

  explicit BatchController(const Recipe& recipe);
  // With another policy than the one the recipe names.
  BatchController(const Recipe& recipe, std::unique_ptr<BatchPolicy> policy);

  [[nodiscard]] const BatchState& state() const { return state_; }      // for the next update
  [[nodiscard]] const BatchState& last_state() const { return last_; }  // of the latest update

  // Every update, in order.
  void on_step(const StepPlan& plan, const StepFacts& facts, int world_size);
  // After it, where the run goes on. `recipe` is that of the constructor but for its leaf size.
  void decide(const Recipe& recipe, const StepPlan& plan, const BatchLayout& layout,
              const CriticalBatch& critical, DecisionLog& log);

  // The run goes on with `after` ranks instead of `before`, and the recipe wants the batch to
  // follow. The rate's way to its new value takes kRampUpdates updates or scale.ramp, what is more.
  void follow_ranks(const Recipe& recipe, std::int64_t steps, std::int64_t samples, int before,
                    const BatchLayout& after, DecisionLog& log);

  [[nodiscard]] Json save() const;  // null where the batch is and was the recipe's
  // After `samples` samples. Throws Json::exception where a value is missing and Error(kBadInput)
  // where one is impossible.
  void load(const Recipe& recipe, std::int64_t samples, const Json& saved);

 private:
  void log_change(const Recipe& recipe, std::int64_t before, std::int64_t steps,
                  std::int64_t samples, const BatchLayout& layout, const std::string& reason,
                  Json inputs, DecisionLog& log) const;

  bool fixed_ = true;
  BatchState first_;
  std::unique_ptr<BatchPolicy> policy_;
  BatchState state_;
  BatchState last_;
};

}  // namespace lorascale::coordinator
