#include "coordinator/validation.hpp"

#include <fmt/format.h>

#include <cmath>

namespace lorascale::coordinator {
namespace {

Json optional_number(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

std::optional<double> optional_from(const Json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

}  // namespace

void ValidationTracker::on_step(const StepPlan& plan, const StepFacts& facts, DecisionLog&) {
  still_ = !facts.applied && (still_ || plan.step == last_step_ + 1);
}

bool ValidationTracker::keep_best_of(const ValidationTracker& diverged) {
  const bool better = diverged.best_loss_ && (!best_loss_ || *diverged.best_loss_ < *best_loss_);
  if (better) {
    best_loss_ = diverged.best_loss_;
    best_step_ = diverged.best_step_;
    undone_ = true;
  }
  return better;
}

void ValidationTracker::on_evaluation(const EvaluationContext& context, DecisionLog& log) {
  const auto [step, loss] = context.facts;
  if (step == last_step_) {
    return;
  }
  last_step_ = step;
  if (std::isfinite(loss) && (!best_loss_ || loss < *best_loss_)) {
    log.add(step, context.samples, "best",
            best_loss_ ? fmt::format("validation loss {} is below {} of step {}", to_text(loss),
                                     to_text(*best_loss_), best_step_)
                       : fmt::format("validation loss {} is the first", to_text(loss)),
            {{"loss", loss}, {"previous", optional_number(best_loss_)}});
    best_loss_ = loss;
    best_step_ = step;
    undone_ = false;
  }
  if (std::isfinite(loss) && (!reference_ || loss < *reference_ - min_delta_)) {
    reference_ = loss;
    without_improvement_ = 0;
    return;
  }
  if (still_) {
    return;
  }
  ++without_improvement_;
  if (patience_ > 0 && without_improvement_ >= patience_ && !stopped_ && context.updates_left) {
    stopped_ = true;
    const std::string best =
        best_loss_ ? fmt::format("; the best was {} at step {}", to_text(*best_loss_), best_step_)
                   : "";
    log.add(step, context.samples, "early_stop",
            fmt::format("{} validations without an improvement of more than {}{}",
                        without_improvement_, to_text(min_delta_), best),
            {{"loss", json_number(loss)},
             {"best", optional_number(best_loss_)},
             {"best_step", best_step_},
             {"patience", patience_},
             {"min_delta", min_delta_}});
  }
}

std::optional<StopReason> ValidationTracker::stop_reason() const {
  return stopped_ ? std::optional(StopReason::kEarlyStop) : std::nullopt;
}

Json ValidationTracker::save() const {
  Json json = {{"best_loss", optional_number(best_loss_)},
               {"best_step", best_step_},
               {"reference", optional_number(reference_)},
               {"without_improvement", without_improvement_},
               {"last_step", last_step_},
               {"stopped", stopped_}};
  // Each only where it is not as usual: the state of other runs is that of earlier versions.
  if (undone_) {
    json["undone"] = true;
  }
  if (still_) {
    json["still"] = true;
  }
  return json;
}

void ValidationTracker::load(const Json& state) {
  best_loss_ = optional_from(state.at("best_loss"));
  best_step_ = state.at("best_step").get<std::int64_t>();
  reference_ = optional_from(state.at("reference"));
  without_improvement_ = state.at("without_improvement").get<std::int64_t>();
  last_step_ = state.at("last_step").get<std::int64_t>();
  stopped_ = state.at("stopped").get<bool>();
  still_ = state.value("still", false);
  undone_ = state.value("undone", false);
}

}  // namespace lorascale::coordinator
