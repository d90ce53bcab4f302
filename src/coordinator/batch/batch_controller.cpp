#include "coordinator/batch/batch_controller.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/batch/factorise.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/rates/rates.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

Json to_json(const BatchState& state) {
  return {{"batch", state.batch},
          {"changed_at", state.changed_at},
          {"multiplier_before", state.multiplier_before},
          {"peak_batch", state.peak_batch},
          {"ramp_samples", state.ramp_samples}};
}

BatchState state_from(const Recipe& recipe, std::int64_t samples, const Json& json) {
  const BatchState state{
      json.at("batch").get<std::int64_t>(), json.at("changed_at").get<std::int64_t>(),
      json.at("multiplier_before").get<double>(), json.at("peak_batch").get<double>(),
      json.at("ramp_samples").get<std::int64_t>()};
  const auto sound = [](double value) { return std::isfinite(value) && value >= 0; };
  const bool counted = recipe.batch_policy != BatchPolicyKind::kFixed;
  if (state.batch < 1 || (counted && state.batch % batch_increment(recipe) != 0) ||
      state.changed_at < 0 || state.changed_at > samples || state.ramp_samples < 0 ||
      !sound(state.multiplier_before) || !sound(state.peak_batch)) {
    throw_bad_input("the coordinator's state is damaged: its batch is " + json.dump() +
                    "; use an earlier checkpoint");
  }
  return state;
}

// A measured critical batch enters the cap at a change of the batch only: between changes the rate
// must not follow each reading.
double peak_after(const Recipe& recipe, const BatchState& before, const CriticalBatch& critical) {
  return recipe.surge_cap && critical.usable() ? critical.samples : before.peak_batch;
}

}  // namespace

BatchController::BatchController(const Recipe& recipe)
    : BatchController(recipe, make_batch_policy(recipe.batch_policy)) {}

BatchController::BatchController(const Recipe& recipe, std::unique_ptr<BatchPolicy> policy)
    : fixed_(recipe.batch_policy == BatchPolicyKind::kFixed),
      first_(first_batch(recipe)),
      policy_(std::move(policy)),
      state_(first_),
      last_(first_) {}

void BatchController::on_step(const StepPlan& plan, const StepFacts& facts, int world_size) {
  last_ = state_;
  policy_->observe(plan, facts, world_size);
}

void BatchController::decide(const Recipe& recipe, const StepPlan& plan, const BatchLayout& layout,
                             const CriticalBatch& critical, DecisionLog& log) {
  const std::int64_t samples = plan.first_position + plan.samples;
  const auto reach = batch_reach(recipe, state_, samples);
  if (fixed_ || !reach) {
    return;
  }
  const auto wish = policy_->wish({recipe, samples, state_.batch, *reach, layout, critical});
  const auto granted = wish ? grant(recipe, state_, *reach, wish->batch) : std::nullopt;
  if (!granted) {
    return;
  }
  const BatchState before = state_;
  state_ = changed_batch(recipe, before, samples, granted->batch,
                         peak_after(recipe, before, critical), recipe.ramp_samples);
  const std::string limit = granted->limit.empty() ? "" : ", " + granted->limit;
  log_change(recipe, before.batch, plan.step, samples, layout, wish->reason + limit,
             {{"policy", name_of(recipe.batch_policy)},
              {"wanted", wish->batch},
              {"limit", granted->limit},
              {"policy_inputs", wish->inputs}},
             log);
}

void BatchController::follow_ranks(const Recipe& recipe, std::int64_t steps, std::int64_t samples,
                                   int before, const BatchLayout& after, DecisionLog& log) {
  const BatchState old = state_;
  const std::int64_t batch = batch_on_ranks(recipe, old.batch, before, after.world_size);
  if (batch == old.batch) {
    return;
  }
  const std::int64_t ramp = std::max(recipe.ramp_samples, kRampUpdates * batch);
  state_ = changed_batch(recipe, old, samples, batch, old.peak_batch, ramp);
  log_change(
      recipe, old.batch, steps, samples, after,
      fmt::format("ranks {} -> {}, and batch.on_resize is rescale", before, after.world_size),
      {{"on_resize", "rescale"}, {"world_size", {before, after.world_size}}}, log);
}

void BatchController::log_change(const Recipe& recipe, std::int64_t before, std::int64_t steps,
                                 std::int64_t samples, const BatchLayout& layout,
                                 const std::string& reason, Json inputs, DecisionLog& log) const {
  const double target =
      rule_multiplier(recipe, largest_update(recipe, state_.batch), state_.peak_batch);
  const Factorisation leaves =
      factorise_by_leaf(state_.batch, layout.world_size, layout.leaves.leaf_size(state_.batch));
  const std::string pace =
      state_.ramp_samples > 0 ? fmt::format("over {} samples", state_.ramp_samples) : "at once";
  inputs.update({{"batch", {before, state_.batch}},
                 {"effective_step", steps + 1},
                 {"lr_multiplier", {state_.multiplier_before, target}},
                 {"ramp_samples", state_.ramp_samples},
                 {"peak_batch", state_.peak_batch},
                 {"leaf_size", leaves.leaf_size},
                 {"leaves", leaves.leaves},
                 {"max_leaves_per_rank", leaves.max_leaves_per_rank}});
  log.add(steps + 1, samples, "batch",
          fmt::format("batch {} -> {} from update {} on: {}; the rate goes from a factor of {} to "
                      "{} {}, before the schedule",
                      before, state_.batch, steps + 1, reason, to_text(state_.multiplier_before),
                      to_text(target), pace),
          inputs);
}

Json BatchController::save() const {
  if (fixed_ && state_ == first_ && last_ == first_) {
    return nullptr;
  }
  return {{"next", to_json(state_)}, {"last", to_json(last_)}, {"policy", policy_->save()}};
}

void BatchController::load(const Recipe& recipe, std::int64_t samples, const Json& saved) {
  state_ = state_from(recipe, samples, saved.at("next"));
  last_ = state_from(recipe, samples, saved.at("last"));
  policy_->load(saved.at("policy"));
}

}  // namespace lorascale::coordinator
