#include "coordinator/advisor.hpp"

#include <algorithm>
#include <cmath>

#include "coordinator/advice/preview_findings.hpp"
#include "coordinator/advice/recipe_findings.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

constexpr double kLargestLoss = 1e100;  // beyond it squares are not finite

}  // namespace

bool Advisor::was_given(const std::string& name) const {
  return std::any_of(given_.begin(), given_.end(),
                     [&](const Advice& advice) { return advice.finding == name; });
}

NoiseReading Advisor::recent_noise(std::int64_t step, const NoiseReading& now) {
  if (now.known) {
    noise_step_ = step;
    noise_scale_ = now.b_simple;
  }
  NoiseReading reading;
  reading.known = noise_step_ > 0 && step - noise_step_ < LossHistory::kWindow;
  reading.b_simple = noise_scale_;
  return reading;
}

void Advisor::give(std::int64_t step, std::int64_t samples, const Finding& finding,
                   DecisionLog& log) {
  Json inputs = {{"finding", finding.name}};
  inputs.update(finding.inputs);
  log.add(step, samples, "advice", finding.text, inputs);
  given_.push_back({finding.name, step, finding.text});
}

void Advisor::at_start(int world_size, std::int64_t batch, std::int64_t step, std::int64_t samples,
                       DecisionLog& log) {
  if (!recipe_.advise) {
    return;
  }
  // A topic may have several lines, which belong together.
  Findings fresh = findings_at_start(recipe_, world_size);
  // How busy the ranks are is told of the recipe's batch, which may not be the one in force.
  const bool other = batch != recipe_.global_batch;
  std::erase_if(fresh, [&](const Finding& finding) {
    return was_given(finding.name) || (other && finding.name == "ranks");
  });
  for (const Finding& finding : fresh) {
    give(step, samples, finding, log);
  }
}

void Advisor::on_step(const StepPlan& plan, const StepFacts& facts, std::int64_t batch,
                      const NoiseReading& noise, DecisionLog& log) {
  if (!recipe_.advise || facts.without_targets) {
    return;
  }
  const std::int64_t seen = plan.first_position + plan.samples;
  const auto say = [&](const std::optional<Finding>& finding) {
    if (finding && !was_given(finding->name)) {
      give(plan.step, seen, *finding, log);
    }
  };
  if (!facts.applied) {
    say(skips_.on_skip(plan, facts));
    return;
  }
  movement_.on_step(plan, facts, recipe_);
  // The short update at the end of an epoch scatters more than the others.
  if (!(std::abs(facts.loss) < kLargestLoss) || 2 * plan.samples < largest_update(recipe_, batch)) {
    return;
  }
  const bool error_known = facts.loss_error < kLargestLoss;
  history_.add(plan.step, facts.loss, error_known ? facts.loss_error : 0);
  gap_.on_loss(plan.step, facts.loss);
  const NoiseReading recent = recent_noise(plan.step, noise);
  say(critical_.on_step(plan, recipe_, noise));
  // In file order the level of the loss follows the documents.
  if (!recipe_.shuffled) {
    return;
  }
  say(loss_rises(history_, plan));
  // Of two signs of one cause, the graver one.
  if (!was_given("loss_rises")) {
    say(loss_oscillates(history_, plan, recent));
  }
}

void Advisor::on_evaluation(const EvaluationContext& context, std::int64_t batch,
                            bool stopped_early, DecisionLog& log) {
  if (!recipe_.advise) {
    return;
  }
  const auto say = [&](const std::optional<Finding>& finding) {
    if (finding && !was_given(finding->name)) {
      give(context.facts.step, context.samples, *finding, log);
    }
  };
  say(gap_.on_evaluation(context, recipe_, history_));
  if (stopped_early) {
    say(early_stop_finding(recipe_, batch, context.facts.step));
  }
}

void Advisor::on_movement(const MovementFacts& facts, std::int64_t samples, DecisionLog& log) {
  if (!recipe_.advise) {
    return;
  }
  const auto finding = movement_.on_movement(facts, history_);
  // A rate that makes the loss rise was named already.
  if (finding && !was_given(finding->name) &&
      !(finding->name == "adapter_overwhelms" && was_given("loss_rises"))) {
    give(facts.step, samples, *finding, log);
  }
}

void Advisor::on_preview(const PreviewFacts& facts, std::int64_t samples, DecisionLog& log) {
  if (!recipe_.advise) {
    return;
  }
  for (const Measure& measure : facts.measures) {
    const auto finding = preview_finding(measure);
    if (finding && !was_given(finding->name)) {
      give(facts.step, samples, *finding, log);
    }
  }
}

Json Advisor::save() const {
  if (!recipe_.advise) {
    return nullptr;
  }
  Json given = Json::array();
  for (const Advice& advice : given_) {
    given.push_back({{"finding", advice.finding}, {"step", advice.step}, {"text", advice.text}});
  }
  return {{"given", given},
          {"losses", history_.save()},
          {"skipped", skips_.save()},
          {"validations", gap_.save()},
          {"movement", movement_.save()},
          {"above_critical", critical_.save()},
          {"noise", {noise_step_, noise_scale_}}};
}

void Advisor::load(const Json& state) {
  // Nothing of it is known where no advice was wanted so far, or by an earlier version.
  if (state.is_null() || !recipe_.advise) {
    return;
  }
  given_.clear();
  for (const Json& advice : state.at("given")) {
    given_.push_back({advice.at("finding").get<std::string>(),
                      advice.at("step").get<std::int64_t>(), advice.at("text").get<std::string>()});
  }
  history_.load(state.at("losses"));
  skips_.load(state.at("skipped"));
  gap_.load(state.at("validations"));
  movement_.load(state.at("movement"));
  critical_.load(state.at("above_critical"));
  noise_step_ = state.at("noise").at(0).get<std::int64_t>();
  noise_scale_ = state.at("noise").at(1).get<double>();
}

void Advisor::go_back(const Json& state, const Advisor& diverged) {
  load(state);
  given_ = diverged.given_;
}

}  // namespace lorascale::coordinator
