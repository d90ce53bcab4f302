#include "coordinator/divergence.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "coordinator/finite.hpp"
#include "coordinator/rates/scaling.hpp"

namespace lorascale::coordinator {

void WeightedWindow::add(double value, double weight, double memory) {
  weight_ = memory * weight_ + weight;
  squared_weight_ = memory * memory * squared_weight_ + weight * weight;
  const double step = value - mean_;
  mean_ += weight / weight_ * step;
  deviation_ = memory * deviation_ + weight * step * (value - mean_);
}

double WeightedWindow::variance() const {
  const double freedom = weight_ > 0 ? weight_ - squared_weight_ / weight_ : 0;
  return freedom > 0 ? std::max(0.0, deviation_ / freedom) : 0;
}

Json WeightedWindow::save() const {
  return {{"weight", weight_},
          {"squared_weight", squared_weight_},
          {"mean", mean_},
          {"deviation", deviation_}};
}

void WeightedWindow::load(const Json& state) {
  weight_ = state.at("weight").get<double>();
  squared_weight_ = state.at("squared_weight").get<double>();
  mean_ = state.at("mean").get<double>();
  deviation_ = state.at("deviation").get<double>();
}

DivergenceDetector::DivergenceDetector(const Recipe& recipe)
    : z_limit_(recipe.divergence_z),
      patience_(recipe.divergence_patience),
      max_skipped_(recipe.max_skipped_in_row),
      batch_(recipe.global_batch) {}

double DivergenceDetector::z_score(double loss) const {
  if (!has_finite_square(loss)) {
    return std::numeric_limits<double>::infinity();
  }
  if (accepted_ < kMinimumUpdates) {
    return 0;
  }
  const double spread =
      std::max(std::sqrt(window_.variance()), kLeastSpread * std::abs(window_.mean()));
  const double distance = loss - window_.mean();
  if (spread > 0) {
    return distance / spread;
  }
  return distance > 0 ? std::numeric_limits<double>::infinity() : 0;
}

void DivergenceDetector::on_step(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) {
  if (facts.without_targets) {
    log.add(plan.step, plan.first_position + plan.samples, "skip",
            fmt::format("update {} has no target: nothing is applied, its {} samples count as seen",
                        plan.step, plan.samples),
            {{"without_targets", true}, {"samples", plan.samples}});
  } else if (facts.applied) {
    skipped_ = 0;
    on_loss(plan, facts, log);
  } else {
    on_skip(plan, facts, log);
  }
}

void DivergenceDetector::on_skip(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) {
  ++skipped_;
  const std::int64_t seen = plan.first_position + plan.samples;
  const Json inputs = {{"loss", json_number(facts.loss)},
                       {"grad_norm", json_number(facts.grad_norm)},
                       {"skipped_in_row", skipped_},
                       {"max_skipped_in_row", max_skipped_}};
  log.add(
      plan.step, seen, "skip",
      fmt::format("update {} is not finite (loss {}, gradient norm {}): parameters stay, its {} "
                  "samples count as seen; {} in a row",
                  plan.step, to_text(facts.loss), to_text(facts.grad_norm), plan.samples, skipped_),
      inputs);
  if (max_skipped_ > 0 && skipped_ >= max_skipped_ && !diverged_) {
    diverged_ = true;
    log.add(plan.step, seen, "diverged",
            fmt::format("{} updates in a row were not finite", skipped_), inputs);
  }
}

void DivergenceDetector::on_loss(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) {
  const bool watched = z_limit_ > 0 && patience_ > 0;
  const double z = z_score(facts.loss);
  if (!has_finite_square(facts.loss) || (watched && z > z_limit_)) {
    ++outliers_;
  } else {
    outliers_ = 0;
    const double weight = static_cast<double>(plan.samples);
    const double memory = scaled_average(kMemory, weight / static_cast<double>(batch_));
    window_.add(facts.loss, weight, memory);
    ++accepted_;
  }
  if (watched && outliers_ >= patience_ && !diverged_) {
    diverged_ = true;
    log.add(plan.step, plan.first_position + plan.samples, "diverged",
            fmt::format("the loss was more than {} standard deviations above its mean of {} for {} "
                        "updates in a row, at last {}",
                        to_text(z_limit_), to_text(window_.mean()), outliers_, to_text(facts.loss)),
            {{"loss", json_number(facts.loss)},
             {"z", json_number(z)},
             {"mean", window_.mean()},
             {"standard_deviation", std::sqrt(window_.variance())},
             {"outliers_in_row", outliers_},
             {"patience", patience_}});
  }
}

std::optional<StopReason> DivergenceDetector::stop_reason() const {
  return diverged_ ? std::optional(StopReason::kDiverged) : std::nullopt;
}

void DivergenceDetector::forgive() {
  outliers_ = 0;
  skipped_ = 0;
  diverged_ = false;
}

Json DivergenceDetector::save() const {
  return {{"window", window_.save()},
          {"accepted", accepted_},
          {"outliers", outliers_},
          {"skipped", skipped_},
          {"diverged", diverged_}};
}

void DivergenceDetector::load(const Json& state) {
  window_.load(state.at("window"));
  accepted_ = state.at("accepted").get<std::int64_t>();
  outliers_ = state.at("outliers").get<std::int64_t>();
  skipped_ = state.at("skipped").get<std::int64_t>();
  diverged_ = state.at("diverged").get<bool>();
}

}  // namespace lorascale::coordinator
