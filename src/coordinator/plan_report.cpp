#include "coordinator/plan_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/units.hpp"
#include "coordinator/advice/recipe_findings.hpp"
#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/batch/factorise.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/rates/scaling.hpp"
#include "coordinator/rates/schedule.hpp"
#include "coordinator/record/recipe_json.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

// Sums of the run that both the sentence and the JSON need.
struct Arithmetic {
  Factorisation batch;
  std::int64_t full = 0;       // samples of the largest update
  std::int64_t per_epoch = 0;  // updates
  std::int64_t steps = 0;
  std::int64_t epoch_tail = 0;   // samples of an epoch's last update
  std::int64_t budget_tail = 0;  // samples that the budget takes of its last, broken epoch
  double epochs = 0;
  double k = 0;
  ScaledRates rates;
};

Arithmetic arithmetic_of(const Recipe& recipe, int world_size) {
  Arithmetic sums;
  sums.batch = factorise_by_leaf(recipe.global_batch, world_size, recipe.leaf_size);
  sums.full = largest_update(recipe, recipe.global_batch);
  sums.per_epoch = steps_per_epoch(recipe, recipe.global_batch);
  sums.steps = steps_from(recipe, recipe.global_batch, 0);
  sums.epoch_tail = recipe.samples_per_epoch - (sums.per_epoch - 1) * recipe.global_batch;
  sums.budget_tail = recipe.budget_samples % recipe.samples_per_epoch;
  sums.epochs =
      static_cast<double>(recipe.budget_samples) / static_cast<double>(recipe.samples_per_epoch);
  sums.k = static_cast<double>(sums.full) / static_cast<double>(recipe.reference_batch);
  sums.rates = scaled_rates(recipe, sums.full);
  return sums;
}

// "10 steps over 80 samples = 2 epochs of ", or what is known of a run that only time ends.
std::string length_text(const Recipe& recipe, const Arithmetic& sums, const std::string& minutes) {
  if (recipe.budget_samples == kNoSampleLimit) {
    return minutes + " of epochs of ";
  }
  if (follows_gain(recipe)) {
    const double reference = static_cast<double>(recipe.reference_batch);
    const auto budget = static_cast<double>(recipe.budget_samples);
    const double most = std::max(1.0, sums.k);
    return fmt::format(
        "{} steps at gain {}, down to {} at gain {}: each counts gain x {} gain-adjusted samples "
        "of the budget of {}, in which schedule and warmup run too; epochs of ",
        sums.steps, to_text(std::min(1.0, sums.k)), to_text(std::ceil(budget / (most * reference))),
        to_text(most), recipe.reference_batch, recipe.budget_samples);
  }
  return fmt::format("{} steps over {} samples = {} epochs of ", sums.steps, recipe.budget_samples,
                     to_text(sums.epochs));
}

std::string leaves_text(const Factorisation& batch) {
  const std::string or_more = batch.min_leaves_per_rank == batch.max_leaves_per_rank
                                  ? ""
                                  : fmt::format(" or {}", batch.max_leaves_per_rank);
  return fmt::format("batch {} = {} leaves of {}, {}{} on each of {}", batch.global_batch,
                     batch.leaves, batch.leaf_size, batch.min_leaves_per_rank, or_more,
                     counted(batch.world_size, "rank"));
}

std::string schedule_text(const Recipe& recipe, double peak) {
  std::string text = fmt::format("schedule {} after {} samples of warmup", name_of(recipe.schedule),
                                 recipe.warmup_samples);
  if (recipe.schedule == ScheduleKind::kWsd) {
    text += ", decay over the last " + std::to_string(recipe.decay_samples);
  }
  if (recipe.schedule != ScheduleKind::kConstant) {
    text += ", down to " + to_text(peak * recipe.floor);
  }
  return text;
}

std::string average_text(const Recipe& recipe) {
  if (recipe.ema_half_life_samples > 0) {
    return fmt::format(
        "; validates and exports a moving average of the weights with a half-life of {} samples",
        recipe.ema_half_life_samples);
  }
  if (recipe.swa_start_samples != kNoSampleLimit) {
    return fmt::format("; validates and exports the equal mean of the weights from sample {} on",
                       recipe.swa_start_samples);
  }
  return "";
}

// What the policy will do with the batch and how far it may go.
std::string batch_text(const Recipe& recipe) {
  const BatchLimit largest = largest_batch(recipe);
  const std::string apart = recipe.batch_dwell_samples > 0
                                ? fmt::format(" and {} samples apart", recipe.batch_dwell_samples)
                                : "";
  const std::string pace =
      recipe.ramp_samples > 0 ? fmt::format("over {} samples", recipe.ramp_samples) : "at once";
  return fmt::format(
      "batch policy {}: {}, never above {} ({}), in whole increments of {}, at most doubled at a "
      "time{}; the rate follows {}; steps are counted at the first batch",
      name_of(recipe.batch_policy), make_batch_policy(recipe.batch_policy)->describe(recipe),
      largest.batch, largest.reason, batch_increment(recipe), apart, pace);
}

// The rate of the update that ends each epoch, where it has a factor of its own.
std::string short_update_text(const Recipe& recipe, const Arithmetic& sums) {
  const double factor = scaled_rates(recipe, sums.epoch_tail).multiplier;
  if (follows_gain(recipe) || sums.budget_tail == recipe.budget_samples ||
      factor == sums.rates.multiplier) {
    return {};
  }
  const double share = 100 / static_cast<double>(sums.per_epoch);
  return fmt::format(
      "; the last update of an epoch, 1 of {} ({} %), has {} and by the rule a factor of {} "
      "instead of {}",
      sums.per_epoch, to_text(std::round(10 * share) / 10), counted(sums.epoch_tail, "sample"),
      to_text(factor), to_text(sums.rates.multiplier));
}

// What the rule's formula does not say of the factor.
std::string rate_remark(const Recipe& recipe, double k, double multiplier, double peak_batch) {
  if (follows_gain(recipe)) {
    return fmt::format(
        ": gain {} until the noise scale is measured, then between 1 and k; the factor is gain^{}",
        to_text(std::min(1.0, k)), to_text(recipe.power));
  }
  return multiplier < lr_multiplier(recipe.rule, recipe.power, k)
             ? ", capped for a critical batch of " + to_text(peak_batch)
             : "";
}

}  // namespace

std::string explain_rate(const Recipe& recipe, std::int64_t samples, double peak_batch) {
  const double k = static_cast<double>(samples) / static_cast<double>(recipe.reference_batch);
  const double multiplier = rule_multiplier(recipe, samples, peak_batch);
  return fmt::format("lr {} = {} x {} (rule {}, k = {}/{} = {}{})", to_text(recipe.lr * multiplier),
                     to_text(recipe.lr), to_text(multiplier), name_of(recipe.rule), samples,
                     recipe.reference_batch, to_text(k),
                     rate_remark(recipe, k, multiplier, peak_batch));
}

std::string explain_rate(const Recipe& recipe, std::int64_t samples) {
  return explain_rate(recipe, samples, given_peak(recipe));
}

PlanReport make_plan_report(const Recipe& recipe, int world_size) {
  const Arithmetic sums = arithmetic_of(recipe, world_size);
  PlanReport report;
  const std::string minutes = to_text(recipe.budget_minutes) + " minutes";
  report.reason = fmt::format(
      "{}{} ({} steps each, the last of {}); {}; {}{}; {}{}", length_text(recipe, sums, minutes),
      recipe.samples_per_epoch, sums.per_epoch, sums.epoch_tail, leaves_text(sums.batch),
      explain_rate(recipe, sums.full), short_update_text(recipe, sums),
      schedule_text(recipe, recipe.lr * sums.rates.multiplier), average_text(recipe));
  if (recipe.budget_minutes > 0 && recipe.budget_samples != kNoSampleLimit) {
    report.reason += fmt::format("; stops after {} if that is sooner", minutes);
  }
  if (recipe.pieces_left_out > 0) {
    report.reason += fmt::format("; {} of {} of documents left out, without a target",
                                 recipe.pieces_left_out, counted(recipe.pieces, "piece"));
  }
  if (recipe.batch_policy != BatchPolicyKind::kFixed) {
    report.reason += "; " + batch_text(recipe);
  }
  report.inputs["recipe"] = recipe_to_json(recipe);
  report.inputs["world_size"] = world_size;
  report.inputs["plan"] = {{"steps", sums.steps},
                           {"samples", recipe.budget_samples},
                           {"epochs", sums.epochs},
                           {"steps_per_epoch", sums.per_epoch},
                           {"last_update_of_epoch", sums.epoch_tail},
                           {"samples_of_broken_epoch", sums.budget_tail},
                           {"leaf_size", sums.batch.leaf_size},
                           {"leaves", sums.batch.leaves},
                           {"min_leaves_per_rank", sums.batch.min_leaves_per_rank},
                           {"max_leaves_per_rank", sums.batch.max_leaves_per_rank},
                           {"idle_ranks", sums.batch.idle_ranks},
                           {"balance", sums.batch.balance()},
                           {"k", sums.k},
                           {"lr_multiplier", sums.rates.multiplier},
                           {"peak_lr", recipe.lr * sums.rates.multiplier},
                           {"beta1", sums.rates.beta1},
                           {"beta2", sums.rates.beta2},
                           {"eps", sums.rates.eps},
                           {"weight_decay", sums.rates.weight_decay}};
  if (recipe.budget_samples == kNoSampleLimit) {
    for (const char* unknown : {"steps", "samples", "epochs", "samples_of_broken_epoch"}) {
      report.inputs["plan"][unknown] = nullptr;
    }
  }
  if (recipe.batch_policy != BatchPolicyKind::kFixed) {
    report.inputs["plan"]["smallest_batch"] = smallest_batch(recipe);
    report.inputs["plan"]["largest_batch"] = largest_batch(recipe).batch;
  }
  report.inputs["advice"] = Json::array();
  for (const Finding& finding : findings_at_start(recipe, world_size)) {
    report.inputs["advice"].push_back(finding.text);
  }
  return report;
}

}  // namespace lorascale::coordinator
