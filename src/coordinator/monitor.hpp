// A monitor watches the facts of a run, may log decisions and may end the run. Its state is part of
// the coordinator's and must follow from (recipe, facts) alone, never from world size, leaf size or
// time. A new monitor is its own file and one member in Monitors (monitors.hpp).
#pragma once

#include <optional>
#include <string_view>

#include "coordinator/facts.hpp"
#include "coordinator/record/decision_log.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

struct EvaluationContext {
  EvaluationFacts facts;
  std::int64_t samples = 0;  // seen so far
  bool updates_left = true;  // false: the budget is used up, there is nothing to stop any more
};

class Monitor {
 public:
  virtual ~Monitor() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;  // key in the state

  virtual void on_step(const StepPlan& /*plan*/, const StepFacts& /*facts*/, DecisionLog& /*log*/) {
  }
  virtual void on_evaluation(const EvaluationContext& /*context*/, DecisionLog& /*log*/) {}
  // Once given, a reason stays.
  [[nodiscard]] virtual std::optional<StopReason> stop_reason() const { return std::nullopt; }

  [[nodiscard]] virtual Json save() const = 0;
  virtual void load(const Json& state) = 0;  // throws Json::exception where a value is missing
};

}  // namespace lorascale::coordinator
