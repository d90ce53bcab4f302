// Carries out a batch policy: asks it after each update, lets the guard limit what it wants, logs
// the decision (kind "batch") and puts it in force from the next update on. Owns what a run knows
// of its batch. Under policy fixed nothing of this is saved or hashed.
#pragma once

#include <cstdint>
#include <memory>

#include "coordinator/batch_policy.hpp"
#include "coordinator/batch_state.hpp"
#include "coordinator/decision_log.hpp"

namespace lorascale::coordinator {

class BatchController {
 public:
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

  [[nodiscard]] Json save() const;  // null under policy fixed
  // After `samples` samples. Throws Json::exception where a value is missing and Error(kBadInput)
  // where one is impossible.
  void load(const Recipe& recipe, std::int64_t samples, const Json& saved);

 private:
  bool fixed_ = true;
  std::unique_ptr<BatchPolicy> policy_;
  BatchState state_;
  BatchState last_;
};

}  // namespace lorascale::coordinator
