#include "coordinator/coordinator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "coordinator/coordinator_impl.hpp"
#include "coordinator/memory/leaf_fit.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/plan_report.hpp"
#include "coordinator/rates/scaling.hpp"
#include "coordinator/recipe_check.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {

namespace {

std::string what_follows(const AsideMemoryFacts& facts) {
  using Task = AsideMemoryFacts::Task;
  if (facts.task == Task::kSampling) {
    return ": it is left out; training goes on";
  }
  if (facts.task == Task::kRecovery) {
    return ": it is tried again";
  }
  if (facts.leaf_size == 0) {
    return " even in leaves of one sample";
  }
  return fmt::format(": it is done again in leaves of {}, as all from here on", facts.leaf_size);
}

std::string explain_leaf(const LeafFacts& facts) {
  const std::string which =
      facts.speeds.empty() ? "the largest that was seen to fit on every rank"
                           : "the smallest that is as fast as the fastest, in samples/s on all "
                             "ranks by leaf " +
                                 speeds_text(facts.speeds);
  const std::string text = fmt::format("batch.micro auto takes leaf {} of those up to {}: {}",
                                       facts.leaf_size, facts.considered, which);
  if (facts.budget <= 0) {
    return text + "; no rank knows a limit of its memory";
  }
  const MemoryLine line{facts.fixed, facts.per_sample, 0};
  return fmt::format(
      "{}; the least is left on rank {}, {} of {}, where a leaf takes {} + {} per sample, which {} "
      "would fill; (budget - model) / per sample says {}",
      text, facts.rank, mebibytes(facts.budget - facts.peak), mebibytes(facts.budget),
      mebibytes(facts.fixed), mebibytes(facts.per_sample), line.largest_leaf(facts.budget),
      formula_leaf(facts.budget, facts.model, facts.per_sample));
}

}  // namespace

double RunState::tau() const {
  return follows_gain(recipe) ? gain_clock().tau : static_cast<double>(samples);
}

bool RunState::budget_used() const {
  return tau() >= static_cast<double>(recipe.budget_samples);
}

std::optional<StopReason> RunState::stop_reason() const {
  for (const Monitor* monitor : monitors.all()) {
    if (const auto reason = monitor->stop_reason()) {
      return reason;
    }
  }
  if (budget_used()) {
    return StopReason::kBudget;
  }
  if (recipe.budget_minutes > 0 && elapsed_minutes >= recipe.budget_minutes) {
    return StopReason::kTime;
  }
  return std::nullopt;
}

bool RunState::recovery_due() const {
  return monitors.divergence.stop_reason() && recovery.now().count < recipe.max_recoveries;
}

CriticalBatch RunState::critical_batch() const {
  if (recipe.critical_batch > 0) {
    return {recipe.critical_batch, 0, true};
  }
  const NoiseReading measured = monitors.noise.report().combined;
  return {measured.b_simple, measured.relative_sd, measured.known};
}

std::optional<StepPlan> RunState::next_step() const {
  if (stop_reason()) {
    return std::nullopt;
  }
  StepPlan plan =
      plan_step(recipe, batching.state(), steps + 1, samples, gain_clock(), recovery.now());
  plan.leaf_size = leaf_sizer.leaf_size(batch());
  plan.leaves = (plan.samples - 1) / plan.leaf_size + 1;
  return plan;
}

void RunState::announce() {
  if (const auto reason = stop_reason()) {
    announce_end(*reason);
  } else if (!short_update_announced && !follows_gain(recipe)) {
    // Under adascale every update has its own rate, and the plan says so.
    announce_short_update(*next_step());
  }
}

void RunState::announce_short_update(const StepPlan& next) {
  const std::int64_t full = largest_update(recipe, batch());
  const double peak = batching.state().peak_batch;
  const ScaledRates usual = scaled_rates(recipe, full, rule_multiplier(recipe, full, peak));
  const ScaledRates now =
      scaled_rates(recipe, next.samples, rule_multiplier(recipe, next.samples, peak));
  if (now == usual) {
    return;
  }
  short_update_announced = true;
  const bool ends_budget = next.first_position + next.samples == recipe.budget_samples;
  log.add(
      next.step, samples, "lr",
      fmt::format(
          "update {} has the last {} samples of the {} instead of {}, and rates follow the true "
          "size: {} instead of a factor of {}, before the schedule; so for every short update",
          next.step, next.samples, ends_budget ? "budget" : "epoch", full,
          explain_rate(recipe, next.samples, peak), to_text(usual.multiplier)),
      {{"samples", next.samples},
       {"usual_samples", full},
       {"reference_batch", recipe.reference_batch},
       {"lr_multiplier", now.multiplier},
       {"usual_lr_multiplier", usual.multiplier},
       {"beta1", now.beta1},
       {"beta2", now.beta2},
       {"eps", now.eps},
       {"weight_decay", now.weight_decay}});
}

void RunState::announce_end(StopReason reason) {
  const bool ours = reason == StopReason::kBudget || reason == StopReason::kTime;
  if (!ours || end_announced == reason) {
    return;
  }
  end_announced = reason;
  const std::string done = fmt::format("{} steps and {} samples", steps, samples);
  Json inputs = {{"budget_samples", recipe.budget_samples},
                 {"skipped_steps", skipped_steps},
                 {"skipped_samples", skipped_samples}};
  if (reason == StopReason::kBudget) {
    std::string unit = "samples";
    if (follows_gain(recipe)) {
      inputs["tau"] = tau();
      unit =
          fmt::format("gain-adjusted samples (gain x {} for each update)", recipe.reference_batch);
    }
    const std::string skipped =
        skipped_steps > 0 ? fmt::format(", {} of the steps skipped", skipped_steps) : "";
    log.add(steps, samples, "budget",
            fmt::format("the budget of {} {} is used up after {}{}", recipe.budget_samples, unit,
                        done, skipped),
            inputs);
  } else {
    inputs["budget_minutes"] = recipe.budget_minutes;
    inputs["elapsed_minutes"] = elapsed_minutes;
    const std::string of_all =
        recipe.budget_samples == kNoSampleLimit ? "" : fmt::format(" of {}", recipe.budget_samples);
    log.add(steps, samples, "time",
            fmt::format("the {} minutes are used up after {}{}", to_text(recipe.budget_minutes),
                        done, of_all),
            inputs);
  }
}

Coordinator::Coordinator(Recipe recipe, int world_size) {
  check_recipe(recipe, world_size);
  impl_ = std::make_unique<Impl>(recipe, world_size);
  const PlanReport report = make_plan_report(recipe, world_size);
  impl_->log.add(0, 0, "plan", report.reason, report.inputs);
  impl_->advisor.at_start(world_size, recipe.global_batch, 0, 0, impl_->log);
  impl_->announce();
}

Coordinator::Coordinator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Coordinator::~Coordinator() = default;
Coordinator::Coordinator(Coordinator&&) noexcept = default;
Coordinator& Coordinator::operator=(Coordinator&&) noexcept = default;

std::optional<StepPlan> Coordinator::next_step() const {
  return impl_->next_step();
}
std::optional<StopReason> Coordinator::stop_reason() const {
  return impl_->stop_reason();
}
const Recipe& Coordinator::recipe() const {
  return impl_->recipe;
}
int Coordinator::world_size() const {
  return impl_->world_size;
}
std::int64_t Coordinator::samples_seen() const {
  return impl_->samples;
}
double Coordinator::tau() const {
  return impl_->tau();
}
NoiseReport Coordinator::noise() const {
  return impl_->monitors.noise.report();
}
std::int64_t Coordinator::steps_done() const {
  return impl_->steps;
}
std::int64_t Coordinator::steps_skipped() const {
  return impl_->skipped_steps;
}
std::int64_t Coordinator::samples_skipped() const {
  return impl_->skipped_samples;
}
double Coordinator::elapsed_minutes() const {
  return impl_->elapsed_minutes;
}

bool Coordinator::recovery_due() const {
  return impl_->recovery_due();
}

std::optional<std::int64_t> Coordinator::recovered_step() const {
  const Recovery& latest = impl_->recovery.now();
  return latest.count > 0 ? std::optional(latest.step) : std::nullopt;
}

std::int64_t Coordinator::recoveries() const {
  return impl_->recovery.now().count;
}

bool Coordinator::in_trouble() const {
  return impl_->monitors.divergence.in_trouble();
}

std::int64_t Coordinator::batch() const {
  return impl_->batch();
}

std::int64_t Coordinator::steps_expected() const {
  const RunState& self = *impl_;
  return self.steps + steps_from(self.recipe, self.batch(), self.samples, self.gain_clock());
}

std::optional<double> Coordinator::best_validation_loss() const {
  return impl_->monitors.validation.best_loss();
}

std::int64_t Coordinator::best_validation_step() const {
  return impl_->monitors.validation.best_step();
}

void Coordinator::on_step(const StepFacts& facts) {
  RunState& self = *impl_;
  const std::optional<StepPlan> plan = self.next_step();
  LS_ASSERT(plan.has_value() && facts.step == plan->step);
  ++self.events;
  self.samples += plan->samples;
  self.steps = plan->step;
  if (!facts.applied) {
    ++self.skipped_steps;
    self.skipped_samples += plan->samples;
  }
  self.last = *plan;
  self.recovery.on_step();
  // Rank 0's clock may be set back; the run does not get younger by that.
  self.elapsed_minutes = std::max(self.elapsed_minutes, facts.elapsed_minutes);
  for (Monitor* monitor : self.monitors.all()) {
    monitor->on_step(*plan, facts, self.log);
  }
  self.advisor.on_step(*plan, facts, self.batch(), self.monitors.noise.optimizer_metric().reading(),
                       self.log);
  self.leaf_sizer.on_clean_update(self.steps, self.batch(), self.samples, self.log);
  self.batching.on_step(*plan, facts, self.world_size);
  if (!self.stop_reason()) {
    self.batching.decide(self.recipe, *plan, {self.world_size, self.leaf_sizer},
                         self.critical_batch(), self.log);
  }
  self.announce();
}

bool Coordinator::on_out_of_memory(const MemoryFacts& facts) {
  RunState& self = *impl_;
  LS_ASSERT(facts.step == self.steps + 1);
  const bool shrunk = self.leaf_sizer.on_out_of_memory(facts, self.batch(), self.samples, self.log);
  self.events += shrunk ? 1 : 0;  // otherwise the run ends, and nothing has changed
  return shrunk;
}

void Coordinator::on_aside_out_of_memory(const AsideMemoryFacts& facts) {
  RunState& self = *impl_;
  LS_ASSERT(facts.step == self.steps);
  ++self.events;
  const std::string_view name = name_of(facts.task);
  self.log.add(self.steps, self.samples, "memory",
               fmt::format("{} after step {} ran out of memory on {}{}", name, facts.step,
                           who_ran_out(facts.ranks, facts.rank), what_follows(facts)),
               {{"task", name},
                {"ranks", facts.ranks},
                {"rank", facts.rank},
                {"leaf_size", facts.leaf_size}});
}

void Coordinator::on_leaf_measured(const LeafFacts& facts) {
  RunState& self = *impl_;
  ++self.events;
  Json inputs = {{"leaf_size", facts.leaf_size},
                 {"considered", facts.considered},
                 {"rank", facts.rank},
                 {"budget_bytes", facts.budget},
                 {"peak_bytes", facts.peak},
                 {"fixed_bytes", facts.fixed},
                 {"per_sample_bytes", facts.per_sample},
                 {"model_bytes", facts.model}};
  for (const LeafSpeed& speed : facts.speeds) {
    inputs["speeds"].push_back({{"leaf_size", speed.leaf_size},
                                {"samples_per_second", speed.samples_per_second},
                                {"noise", speed.noise}});
  }
  self.log.add(self.steps, self.samples, "memory", explain_leaf(facts), inputs);
}

bool Coordinator::on_evaluation(const EvaluationFacts& facts) {
  RunState& self = *impl_;
  LS_ASSERT(facts.step == self.steps);
  const EvaluationContext context{facts, self.samples, !self.budget_used()};
  const bool over = self.stop_reason().has_value();
  ++self.events;
  for (Monitor* monitor : self.monitors.all()) {
    monitor->on_evaluation(context, self.log);
  }
  self.advisor.on_evaluation(context, self.batch(),
                             !over && self.stop_reason() == StopReason::kEarlyStop, self.log);
  return self.monitors.validation.is_best(facts.step);
}

void Coordinator::on_movement(const MovementFacts& facts) {
  RunState& self = *impl_;
  LS_ASSERT(facts.step == self.steps);
  ++self.events;
  self.advisor.on_movement(facts, self.samples, self.log);
}

void Coordinator::on_preview(const PreviewFacts& facts) {
  RunState& self = *impl_;
  LS_ASSERT(facts.step == self.steps);
  ++self.events;
  self.advisor.on_preview(facts, self.samples, self.log);
}

const std::vector<Advice>& Coordinator::advice_given() const {
  return impl_->advisor.given();
}

std::int64_t Coordinator::events() const {
  return impl_->events;
}

std::vector<Decision> Coordinator::take_decisions() {
  return impl_->log.take();
}

}  // namespace lorascale::coordinator
