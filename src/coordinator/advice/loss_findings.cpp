#include "coordinator/advice/loss_findings.hpp"

#include <algorithm>
#include <cmath>

namespace lorascale::coordinator {
namespace {

constexpr std::size_t kSkips = 3;
constexpr std::int64_t kSkipsWithin = 100;

constexpr double kRise = 0.1;       // of the level before
constexpr double kRiseErrors = 6;   // standard errors
constexpr double kExcess = 4;       // scatter over what the samples explain, squares
constexpr double kVisible = 0.02;   // scatter beyond that, of the loss
constexpr double kFallErrors = 2;   // a slope below minus this falls
constexpr double kLowerRateBy = 3;  // about half a decade, the usual step of a rate search

std::string steps_text(const LossLevel& level) {
  return "updates " + std::to_string(level.first_step) + " to " + std::to_string(level.last_step);
}

std::string lower_rate(const StepPlan& plan) {
  return "lower optimizer.lr about threefold, to a rate in use of " +
         to_text(plan.lr / kLowerRateBy);
}

}  // namespace

std::optional<Finding> SkipCounter::on_skip(const StepPlan& plan, const StepFacts& facts) {
  steps_.push_back(plan.step);
  if (steps_.size() > kSkips) {
    steps_.erase(steps_.begin());
  }
  if (steps_.size() < kSkips || plan.step - steps_.front() >= kSkipsWithin) {
    return std::nullopt;
  }
  const std::string within = std::to_string(plan.step - steps_.front() + 1);
  return Finding{"not_finite",
                 std::to_string(kSkips) + " of the last " + within +
                     " updates were not finite and were skipped (the last: loss " +
                     to_text(facts.loss) + ", gradient norm " + to_text(facts.grad_norm) +
                     ", at rate " + to_text(plan.lr) + "); " + lower_rate(plan) +
                     ", lengthen schedule.warmup, or use model.dtype bf16 or fp32 in place of fp16",
                 {{"skipped_steps", steps_},
                  {"loss", json_number(facts.loss)},
                  {"grad_norm", json_number(facts.grad_norm)},
                  {"lr", plan.lr}}};
}

std::optional<Finding> loss_rises(const LossHistory& history, const StepPlan& plan) {
  if (!history.at_end_of_block() || history.count() < 2 * LossHistory::kBlock) {
    return std::nullopt;
  }
  const LossLevel& before = history.lowest();
  const LossLevel now = history.latest();
  const LossLevel earlier = history.latest(LossHistory::kBlock, LossHistory::kBlock);
  const double errors = std::min(rise_in_errors(now, before), rise_in_errors(earlier, before));
  const double least = before.mean + kRise * std::abs(before.mean);
  if (std::min(now.mean, earlier.mean) < least || errors < kRiseErrors) {
    return std::nullopt;
  }
  return Finding{"loss_rises",
                 "the training loss rose from " + to_text(before.mean) + " (" + steps_text(before) +
                     ") to " + to_text(now.mean) + " (" + steps_text(now) + "), by " +
                     to_text(std::floor(errors)) + " standard errors or more, at rate " +
                     to_text(plan.lr) + "; " + lower_rate(plan) +
                     ", or lengthen schedule.warmup, and start again from before the rise",
                 {{"before", to_json(before)},
                  {"earlier", to_json(earlier)},
                  {"now", to_json(now)},
                  {"standard_errors", json_number(errors)},
                  {"lr", plan.lr}}};
}

std::optional<Finding> loss_oscillates(const LossHistory& history, const StepPlan& plan,
                                       const NoiseReading& noise) {
  if (!history.at_end_of_block() || !history.window_is_full()) {
    return std::nullopt;
  }
  const std::optional<double> explained = history.mean_square_error();
  const LossTrend trend = history.trend();
  const double level = std::abs(history.latest(LossHistory::kWindow).mean);
  if (!explained || trend.slope_in_errors < -kFallErrors || trend.variance < kExcess * *explained ||
      std::sqrt(trend.variance - *explained) < kVisible * level) {
    return std::nullopt;
  }
  const auto batch = static_cast<double>(plan.samples);
  const double share = noise.b_simple / (noise.b_simple + batch);
  const std::string larger = "raise batch.global to " + to_text(2 * batch) + " or more";
  std::string cause, name = "unknown", change;
  if (!noise.known) {
    cause =
        "the noise scale, which would tell whether the rate is high or the batch small, is not "
        "known";
    change = lower_rate(plan) + ", or " + larger + "; noise.horizon of " + to_text(100 * batch) +
             " samples would tell which";
  } else if (share > 0.5) {
    name = "batch";
    cause = "the batch is small: at a noise scale of " + to_text(noise.b_simple) + " samples, " +
            to_text(std::round(100 * share)) + " % of the squared gradient of " + to_text(batch) +
            " samples is noise";
    change = larger + ", or else " + lower_rate(plan);
  } else {
    name = "rate";
    cause = "the rate is high: at a noise scale of " + to_text(noise.b_simple) + " samples only " +
            to_text(std::round(100 * share)) + " % of the squared gradient of " + to_text(batch) +
            " samples is noise, so a larger batch would not calm it";
    change = lower_rate(plan);
  }
  return Finding{"loss_oscillates",
                 "the training loss has not fallen since update " +
                     std::to_string(history.window_begin()) + " and scatters by " +
                     to_text(std::sqrt(trend.variance)) + " around " + to_text(level) + ", " +
                     to_text(std::sqrt(trend.variance / *explained)) +
                     " times what the choice of samples explains, at rate " + to_text(plan.lr) +
                     "; " + cause + "; " + change,
                 {{"cause", name},
                  {"level", level},
                  {"scatter", std::sqrt(trend.variance)},
                  {"explained_by_samples", std::sqrt(*explained)},
                  {"slope_in_errors", trend.slope_in_errors},
                  {"noise_scale", json_number(noise.known ? noise.b_simple : std::nan(""))},
                  {"batch", plan.samples},
                  {"lr", plan.lr}}};
}

}  // namespace lorascale::coordinator
