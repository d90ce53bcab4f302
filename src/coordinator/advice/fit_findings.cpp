#include "coordinator/advice/fit_findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lorascale::coordinator {
namespace {

constexpr std::int64_t kValidationsAbove = 3;
constexpr double kGap = 0.02;  // of the loss at the best validation, each way
constexpr double kFallErrors = 3;
constexpr double kLineErrors = 4;  // at each validation it is a new line, mostly of the same losses

constexpr double kStill = 1e-5;
constexpr double kOverwhelming = 2;
constexpr double kUseful = 0.1;
constexpr std::int64_t kUpdatesToMove = 30;
constexpr double kSmallSumOfRates = 1e-3;  // what ten updates at 1e-4 add up to

constexpr double kAboveCritical = 2;
constexpr double kDeviations = 2;
constexpr std::int64_t kWorthLowering = 16;  // samples; below, machines gain nothing from fewer
constexpr std::int64_t kUpdatesAbove = 20;
constexpr std::int64_t kEarly = 50;
constexpr std::int64_t kEarlyWithoutBudget = 200;

std::string epochs_text(std::int64_t samples, const Recipe& recipe) {
  const double epochs =
      static_cast<double>(samples) / static_cast<double>(recipe.samples_per_epoch);
  return to_text(std::round(100 * epochs) / 100);
}

// Where the loss stands against its start; nothing while that is not known.
std::string loss_text(const LossHistory& history) {
  if (history.count() < 2 * LossHistory::kBlock) {
    return {};
  }
  const double then = history.first().mean, now = history.latest().mean;
  return fmt::format(", and the training loss went from {} to {}{}", to_text(then), to_text(now),
                     now < then ? "" : ", so nothing of this run is worth keeping");
}

Json level_or_null(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

std::optional<double> level_from(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<double>());
}

// How far the training loss fell.
struct Fall {
  double from = 0, to = 0;
  double errors = 0;

  [[nodiscard]] bool is_clear(double least) const {
    return from - to >= kGap * std::abs(from) && errors >= least;
  }
};

}  // namespace

void RunningLine::add(std::int64_t step, double loss) {
  first_ = count_ == 0 ? static_cast<double>(step) : first_;
  last_ = static_cast<double>(step);
  const double x = last_ - first_;
  count_ += 1;
  x_ += x;
  y_ += loss;
  xx_ += x * x;
  xy_ += x * loss;
  yy_ += loss * loss;
}

std::optional<RunningLine::Ends> RunningLine::ends() const {
  const double spread = xx_ - x_ * x_ / std::max(1.0, count_);
  if (count() < kFewest || !(spread > 0)) {
    return std::nullopt;
  }
  const double slope = (xy_ - x_ * y_ / count_) / spread;
  const double first = (y_ - slope * x_) / count_;
  const double squares = yy_ - y_ * y_ / count_ - slope * slope * spread;
  const double error = std::sqrt(std::max(0.0, squares) / (count_ - 2) / spread);
  return Ends{first, first + slope * (last_ - first_), error > 0 ? slope / error : 0};
}

Json RunningLine::save() const {
  return {count_, first_, last_, x_, y_, xx_, xy_, yy_};
}

void RunningLine::load(const Json& state) {
  std::size_t i = 0;
  for (double* value : {&count_, &first_, &last_, &x_, &y_, &xx_, &xy_, &yy_}) {
    *value = state.at(i++).get<double>();
  }
}

std::optional<Finding> ValidationGap::on_evaluation(const EvaluationContext& context,
                                                    const Recipe& recipe,
                                                    const LossHistory& history) {
  const auto [step, loss] = context.facts;
  if (step == last_step_ || !std::isfinite(loss)) {
    return std::nullopt;
  }
  last_step_ = step;
  if (!best_ || loss <= *best_) {
    best_ = loss;
    best_step_ = step;
    best_samples_ = context.samples;
    train_at_best_ = history.latest();
    since_best_ = {};
    above_ = 0;
    return std::nullopt;
  }
  ++above_;
  // The start's training loss is that of the first updates after it.
  const LossLevel& train_then = train_at_best_.count > 0 ? train_at_best_ : history.first();
  const LossLevel train_now = history.latest();
  if (above_ < kValidationsAbove || context.samples <= recipe.samples_per_epoch ||
      train_then.count == 0 || train_now.count == 0 || loss - *best_ < kGap * std::abs(*best_)) {
    return std::nullopt;
  }
  Fall fall{train_then.mean, train_now.mean, -rise_in_errors(train_now, train_then)};
  if (!fall.is_clear(kFallErrors)) {
    const auto line = since_best_.ends();
    if (!line) {
      return std::nullopt;
    }
    fall = {line->first, line->last, -line->slope_in_errors};
    if (!fall.is_clear(kLineErrors)) {
      return std::nullopt;
    }
  }
  return Finding{
      "over_fitting",
      fmt::format(
          "over-fitting: since step {} the training loss fell from {} to {} while the validation "
          "loss rose from {} to {} over {} validations; stop, and use the adapter in best/ ({} of "
          "{} epochs so far); next time fewer epochs or evaluate.early_stop.patience 3, "
          "adapter.dropout 0.05 to 0.1, a lower adapter.rank, or more data",
          best_step_, to_text(fall.from), to_text(fall.to), to_text(*best_), to_text(loss), above_,
          epochs_text(best_samples_, recipe), epochs_text(context.samples, recipe)),
      {{"best_step", best_step_},
       {"best_validation", *best_},
       {"validation", loss},
       {"validations_above", above_},
       {"train_at_best", to_json(train_then)},
       {"train", to_json(train_now)},
       {"train_fell_by_errors", fall.errors},
       {"best_samples", best_samples_},
       {"samples_per_epoch", recipe.samples_per_epoch}}};
}

Json ValidationGap::save() const {
  return {{"best", level_or_null(best_)},     {"best_step", best_step_},
          {"best_samples", best_samples_},    {"train_at_best", to_json(train_at_best_)},
          {"since_best", since_best_.save()}, {"above", above_},
          {"last_step", last_step_}};
}

void ValidationGap::load(const Json& state) {
  best_ = level_from(state.at("best"));
  best_step_ = state.at("best_step").get<std::int64_t>();
  best_samples_ = state.at("best_samples").get<std::int64_t>();
  train_at_best_ = loss_level_from(state.at("train_at_best"));
  since_best_ = {};
  if (const auto found = state.find("since_best"); found != state.end()) {
    since_best_.load(*found);  // not there in a run of an earlier version
  }
  above_ = state.at("above").get<std::int64_t>();
  last_step_ = state.at("last_step").get<std::int64_t>();
}

void Movement::on_step(const StepPlan& plan, const StepFacts& facts, const Recipe& recipe) {
  rates_ += plan.lr;
  lr_ = plan.lr;
  largest_gradient_ = std::max(largest_gradient_, facts.grad_norm);
  updates_ += plan.first_position >= recipe.warmup_samples ? 1 : 0;
}

std::optional<Finding> Movement::on_movement(const MovementFacts& facts,
                                             const LossHistory& history) {
  if (facts.step == 0) {
    start_ = facts.ratio;
  }
  if (facts.ratio > start_.value_or(0) + kOverwhelming) {
    const double times = std::ceil(std::sqrt(facts.ratio / kUseful));
    return Finding{
        "adapter_overwhelms",
        fmt::format(
            "the adapter overwhelms the model: |dW| / |W| is {} after {} updates, at rate {}{}; "
            "useful adapters stay below {}: start again with optimizer.lr {} times lower or more "
            "(dW is a product, both factors of which move with the rate), or a lower adapter.alpha",
            to_text(facts.ratio), facts.step, to_text(lr_), loss_text(history), to_text(kUseful),
            to_text(times)),
        {{"start", level_or_null(start_)},
         {"ratio", facts.ratio},
         {"times_lower", times},
         {"sum_of_rates", rates_},
         {"lr", lr_}}};
  }
  if (!start_ || updates_ < kUpdatesToMove || history.count() < 2 * LossHistory::kBlock) {
    return std::nullopt;
  }
  const double moved = std::abs(facts.ratio - *start_);
  const LossLevel now = history.latest();
  const LossLevel& then = history.first();
  if (!(moved < kStill) || rise_in_errors(now, then) < -kFallErrors) {
    return std::nullopt;
  }
  std::string cause, change;
  if (largest_gradient_ == 0) {
    cause = "targets";
    change = "the gradient is zero: look at the answers (captions) and the loss_mask of data.train";
  } else if (rates_ < kSmallSumOfRates) {
    cause = "rate";
    change = "the rates so far add up to " + to_text(rates_) +
             ": raise optimizer.lr; 1e-4 to 4e-4 is usual for LoRA with adamw";
  } else {
    cause = "scale";
    change = "the rates so far add up to " + to_text(rates_) +
             ", so they are not what holds it back: raise adapter.alpha over adapter.rank, adapt "
             "more layers (adapter.targets), or look at the answers (captions) in data.train";
  }
  return Finding{
      "no_movement",
      fmt::format("the adapter hardly moves: |dW| / |W| went from {} to {} in {} updates, and the "
                  "loss from {} to {}, at rate {} and a gradient norm of at most {}; {}",
                  to_text(*start_), to_text(facts.ratio), facts.step, to_text(then.mean),
                  to_text(now.mean), to_text(lr_), to_text(largest_gradient_), change),
      {{"cause", cause},
       {"start", *start_},
       {"ratio", facts.ratio},
       {"sum_of_rates", rates_},
       {"largest_grad_norm", largest_gradient_},
       {"loss_at_start", to_json(then)},
       {"loss", to_json(now)},
       {"lr", lr_}}};
}

Json Movement::save() const {
  return {{"start", level_or_null(start_)},
          {"updates", updates_},
          {"rates", rates_},
          {"largest_gradient", largest_gradient_},
          {"lr", lr_}};
}

void Movement::load(const Json& state) {
  start_ = level_from(state.at("start"));
  updates_ = state.at("updates").get<std::int64_t>();
  rates_ = state.at("rates").get<double>();
  largest_gradient_ = state.at("largest_gradient").get<double>();
  lr_ = state.at("lr").get<double>();
}

std::optional<Finding> CriticalBatchWatch::on_step(const StepPlan& plan, const Recipe& recipe,
                                                   const NoiseReading& noise) {
  const auto batch = static_cast<double>(plan.samples);
  const double upper = noise.b_simple * (1 + kDeviations * noise.relative_sd);
  const bool above =
      noise.known && plan.samples >= kWorthLowering && batch > kAboveCritical * upper;
  above_ = above ? above_ + 1 : 0;
  const bool unlimited = recipe.budget_samples == kNoSampleLimit;
  const bool early =
      unlimited ? plan.step < kEarlyWithoutBudget
                : plan.step < kEarly || 4 * plan.tau < static_cast<double>(recipe.budget_samples);
  if (early || above_ < kUpdatesAbove) {
    return std::nullopt;
  }
  const double times = 1 + batch / noise.b_simple;
  return Finding{
      "batch_above_critical",
      fmt::format(
          "the batch of {} samples is above the critical one: the gradient noise scale is {} "
          "samples (relative sd {}) and has been that small for {} updates, so a target loss costs "
          "about {} times the samples that small batches would take; lower batch.global towards "
          "{}, with batch.reference as it is so that scale.rule adapts the rate",
          to_text(batch), to_text(noise.b_simple), to_text(noise.relative_sd), above_,
          to_text(times), to_text(std::max(1.0, std::ceil(noise.b_simple)))),
      {{"batch", plan.samples},
       {"noise_scale", noise.b_simple},
       {"relative_sd", noise.relative_sd},
       {"updates_above", above_},
       {"samples_factor", times}}};
}

}  // namespace lorascale::coordinator
