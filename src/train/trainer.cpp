#include "train/trainer.hpp"

#include <fmt/format.h>

#include <utility>

#include "train/cache_filling.hpp"
#include "train/signals.hpp"
#include "train/stopwatch.hpp"
#include "train/tensor_memory.hpp"
#include "train/update_attempt.hpp"
#include "train/vote.hpp"

namespace lorascale::train {
namespace {

constexpr std::int64_t kMovementEvery = 50;  // updates, beside validations

void set_validation(MetricsLine* line, const std::optional<Evaluation>& evaluation) {
  if (evaluation) {
    line->val_loss = evaluation->loss;
    line->val_measures = evaluation->measures;
  }
}

}  // namespace

Trainer::Trainer(World& world, Session& session, GoOn go_on)
    : world_(world),
      session_(session),
      go_on_(std::move(go_on)),
      run_(world, session),
      checkpoints_(run_),
      results_(run_),
      validation_(run_, checkpoints_, results_),
      samples_(run_),
      updater_(world, session, run_.faults),
      leaves_(session.leaves()),
      peak_memory_(world.place) {}

double Trainer::elapsed_minutes() const {
  const std::chrono::duration<double, std::ratio<60>> minutes =
      std::chrono::steady_clock::now() - started_;
  return minutes_before_ + minutes.count();
}

// Ranks need not agree on it to the last bit: nothing follows from it but words.
void Trainer::report_movement() {
  if (!session_.config.advice) {
    return;
  }
  std::optional<double> ratio;
  bool out_of_memory = false;
  const auto error = attempt([&] { ratio = session_.adapter->movement(); }, &out_of_memory);
  if (error) {
    throw Error(*error);
  }
  if (ratio) {
    run_.tell(coordinator::MovementFacts{run_.coordinator->steps_done(), *ratio});
  }
}

MetricsLine Trainer::metrics_line(const coordinator::StepPlan& plan,
                                  const UpdateResult& result) const {
  const auto& coordinator = *run_.coordinator;
  MetricsLine line;
  line.step = plan.step;
  line.samples = coordinator.samples_seen();
  line.epoch =
      static_cast<double>(line.samples) / static_cast<double>(session_.recipe.samples_per_epoch);
  line.loss = result.facts.loss;
  line.grad_norm = result.facts.grad_norm;
  line.plan = plan;
  line.applied = result.facts.applied;
  line.targets = result.targets;
  line.units = result.units;
  line.measures = result.measures;
  line.world_size = world_.host.size();
  line.accumulation = (plan.leaves + line.world_size - 1) / line.world_size;
  line.times = result.times;
  if (const auto noise = coordinator.noise().combined; noise.known) {
    line.noise = noise;
  }
  return line;
}

UpdateResult Trainer::attempt_update(const coordinator::StepPlan& plan) {
  return run_update(world_, leaves_, updater_, run_.faults, plan, [&] {
    return Ballot{stop_was_requested(), elapsed_minutes(), false};
  });
}

// The same update in smaller leaves, until it fits on every rank.
coordinator::StepPlan Trainer::shrink(const coordinator::MemoryFacts& facts,
                                      std::int64_t leaf_size) {
  release_cached_memory(world_.place);
  if (!run_.tell(facts)) {
    checkpoints_.give_up(does_not_fit(facts));
  }
  run_.write_decisions();
  const auto plan = *run_.coordinator->next_step();
  if (session_.config.run.reduction == config::Reduction::kExact && plan.leaf_size != leaf_size) {
    run_.record.say(
        spdlog::level::warn,
        fmt::format("run.reduction exact: smaller leaves round otherwise, so the bits from here on "
                    "are those of every run that takes this leaf at update {}, on any number of "
                    "ranks, and not those of one that never ran out of memory",
                    facts.step));
  }
  if (const auto& words = session_.workload->words();
      words.leaves_differ(leaf_size, plan.leaf_size)) {
    run_.record.say(spdlog::level::warn,
                    words.leaf_matters +
                        ": its leaves are smaller from here on, and the run is another than one "
                        "that never ran out of memory");
  }
  return plan;
}

UpdateResult Trainer::make_update(coordinator::StepPlan* plan) {
  auto result = attempt_update(*plan);
  while (result.out_of_memory) {
    *plan = shrink(*result.out_of_memory, plan->leaf_size);
    result = attempt_update(*plan);
  }
  return result;
}

void Trainer::train_one(coordinator::StepPlan plan) {
  const auto& coordinator = *run_.coordinator;
  const auto before = run_.progress();
  const auto result = make_update(&plan);
  Stopwatch watch;
  run_.tell(result.facts);
  const double coordinating = watch.lap();
  stop_requested_ = result.stop_requested;
  const auto after = run_.progress();
  MetricsLine line = metrics_line(plan, result);
  const bool over = !coordinator.next_step().has_value();
  if (validation_.due(before, after) || (over && !coordinator.recovery_due())) {
    set_validation(&line, validation_.run());
  }
  watch.lap();
  const bool ended = !coordinator.next_step().has_value();  // early stopping follows a validation
  if (line.val_loss || ended || after.steps % kMovementEvery == 0) {
    report_movement();
  }
  run_.write_decisions();
  line.times.coordinator = coordinating + watch.lap();
  line.peak_memory = peak_memory_.look();
  run_.record.write(line);
  run_.record.show(line, coordinator);
  if (samples_.due(before, after) && !ended) {
    samples_.show(fmt::format("step-{:08d}", after.steps));
  }
  // A diverged state is not worth going on from: the checkpoint before it stays the newest.
  const bool due = checkpoints_.due(before, after);
  if (coordinator.stop_reason() != coordinator::StopReason::kDiverged &&
      (due || ended || stop_requested_)) {
    checkpoints_.save(/*must_succeed=*/ended || stop_requested_);
  }
}

ExitCode Trainer::run(Watchdog& watchdog) {
  open_run_folder(watchdog);
  try {
    return train_to_the_end();
  } catch (const Error& error) {
    record_failure(error.code(), error.what());
    throw;
  } catch (const std::exception& error) {
    record_failure(ExitCode::kInternal, error.what());
    throw;
  }
}

void Trainer::start_from_nothing() {
  MetricsLine line;
  set_validation(&line, validation_.run());
  line.peak_memory = peak_memory_.look();
  report_movement();
  run_.write_decisions();
  if (line.val_loss) {
    run_.record.write(line);
  }
  samples_.show("before");
  if (session_.recipe.max_recoveries > 0) {
    checkpoints_.save(/*must_succeed=*/true);  // the first place to go back to
  }
}

ExitCode Trainer::train_to_the_end() {
  fill_caches(world_, session_);
  resume_or_start();
  if (!checkpoints_.saved_any()) {
    start_from_nothing();
  }
  while (!stop_requested_) {
    const auto plan = run_.coordinator->next_step();
    if (!plan) {
      break;
    }
    train_one(*plan);
    if (run_.coordinator->recovery_due()) {
      recover();
    }
  }
  return finish();
}

}  // namespace lorascale::train
