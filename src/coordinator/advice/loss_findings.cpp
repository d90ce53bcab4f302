#include "coordinator/advice/loss_findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lorascale::coordinator {
namespace {

constexpr std::size_t kSkips = 3;
constexpr std::int64_t kSkipsWithin = 100;

constexpr double kRise = 0.1;           // of the level before
constexpr double kRiseErrors = 6;       // standard errors
constexpr double kExcess = 4;           // scatter over what the samples explain, squares
constexpr double kVisible = 0.02;       // scatter beyond that, of the loss
constexpr double kTrendFallErrors = 2;  // a slope below minus this falls
constexpr double kLowerRateBy = 3;      // about half a decade, the usual step of a rate search

std::string steps_text(const LossLevel& level) {
  return fmt::format("updates {} to {}", level.first_step, level.last_step);
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
  return Finding{"not_finite",
                 fmt::format("{} of the last {} updates were not finite and were skipped (the "
                             "last: loss {}, gradient norm {}, at rate {}); {}, lengthen "
                             "schedule.warmup, or use model.dtype bf16 or fp32 in place of fp16",
                             kSkips, plan.step - steps_.front() + 1, to_text(facts.loss),
                             to_text(facts.grad_norm), to_text(plan.lr), lower_rate(plan)),
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
  return Finding{
      "loss_rises",
      fmt::format(
          "the training loss rose from {} ({}) to {} ({}), by {} standard errors or more, at rate "
          "{}; {}, or lengthen schedule.warmup, and start again from before the rise",
          to_text(before.mean), steps_text(before), to_text(now.mean), steps_text(now),
          to_text(std::floor(errors)), to_text(plan.lr), lower_rate(plan)),
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
  if (!explained || trend.slope_in_errors < -kTrendFallErrors ||
      trend.variance < kExcess * *explained ||
      std::sqrt(trend.variance - *explained) < kVisible * level) {
    return std::nullopt;
  }
  const auto batch = static_cast<double>(plan.samples);
  const double share = noise.b_simple / (noise.b_simple + batch);
  const std::string larger = fmt::format("raise batch.global to {} or more", to_text(2 * batch));
  std::string cause, name = "unknown", change;
  if (!noise.known) {
    cause =
        "the noise scale, which would tell whether the rate is high or the batch small, is not "
        "known";
    change = fmt::format("{}, or {}; noise.horizon of {} samples would tell which",
                         lower_rate(plan), larger, to_text(100 * batch));
  } else if (share > 0.5) {
    name = "batch";
    cause = fmt::format(
        "the batch is small: at a noise scale of {} samples, {} % of the squared gradient of {} "
        "samples is noise",
        to_text(noise.b_simple), to_text(std::round(100 * share)), to_text(batch));
    change = larger + ", or else " + lower_rate(plan);
  } else {
    name = "rate";
    cause = fmt::format(
        "the rate is high: at a noise scale of {} samples only {} % of the squared gradient of {} "
        "samples is noise, so a larger batch would not calm it",
        to_text(noise.b_simple), to_text(std::round(100 * share)), to_text(batch));
    change = lower_rate(plan);
  }
  return Finding{
      "loss_oscillates",
      fmt::format("the training loss has not fallen since update {} and scatters by {} around {}, "
                  "{} times what the choice of samples explains, at rate {}; {}; {}",
                  history.window_begin(), to_text(std::sqrt(trend.variance)), to_text(level),
                  to_text(std::sqrt(trend.variance / *explained)), to_text(plan.lr), cause, change),
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
