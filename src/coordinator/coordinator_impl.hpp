// RunState is what a Coordinator holds. Private to coordinator.cpp (behaviour) and
// coordinator_state.cpp (saving and restoring).
#pragma once

#include <cstdint>
#include <optional>

#include "coordinator/advisor.hpp"
#include "coordinator/batch/batch_controller.hpp"
#include "coordinator/coordinator.hpp"
#include "coordinator/memory/leaf_sizer.hpp"
#include "coordinator/monitors.hpp"
#include "coordinator/rates/recovery.hpp"
#include "coordinator/record/decision_log.hpp"

namespace lorascale::coordinator {

struct RunState {
  RunState(const Recipe& the_recipe, int ranks)
      : recipe(the_recipe),
        world_size(ranks),
        monitors(the_recipe),
        batching(the_recipe),
        advisor(the_recipe),
        leaf_sizer(the_recipe.leaf_size) {}

  Recipe recipe;
  int world_size = 0;

  // The clock. A skipped update is not applied, but its samples are gone: they count in both.
  std::int64_t samples = 0;
  std::int64_t steps = 0;
  std::int64_t skipped_steps = 0;
  std::int64_t skipped_samples = 0;
  std::optional<StepPlan>
      last;  // the latest update; kept so that its rates can be checked after a resume
  Monitors monitors;
  BatchController batching;
  RecoveryTrack recovery;

  // Not part of the state hash: memory, time and log depend on the machines, advice on their
  // number.
  Advisor advisor;
  LeafSizer leaf_sizer;
  double elapsed_minutes = 0;
  DecisionLog log;
  std::int64_t events = 0;
  bool short_update_announced = false;
  std::optional<StopReason> end_announced;  // kBudget or kTime; monitors announce their own

  // The batch from here on.
  [[nodiscard]] std::int64_t batch() const { return batching.state().batch; }
  // As given by the recipe, else as measured.
  [[nodiscard]] CriticalBatch critical_batch() const;
  [[nodiscard]] GainClock gain_clock() const { return monitors.adascale.clock(); }
  [[nodiscard]] double tau() const;
  [[nodiscard]] bool budget_used() const;
  [[nodiscard]] std::optional<StopReason> stop_reason() const;
  [[nodiscard]] bool recovery_due() const;
  [[nodiscard]] std::optional<StepPlan> next_step() const;

  // What the log has to say about the present position: the first short update ahead, or the end.
  void announce();
  void announce_short_update(const StepPlan& next);
  void announce_end(StopReason reason);
};

struct Coordinator::Impl : RunState {
  using RunState::RunState;
};

}  // namespace lorascale::coordinator
