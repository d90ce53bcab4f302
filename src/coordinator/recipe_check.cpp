#include "coordinator/recipe_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <utility>

#include "base/error.hpp"
#include "base/portable_math.hpp"
#include "base/units.hpp"
#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/batch/factorise.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/noise/adascale.hpp"
#include "coordinator/noise/noise_scale.hpp"
#include "coordinator/rates/continuation.hpp"
#include "coordinator/rates/scaling.hpp"
#include "coordinator/rates/schedule.hpp"
#include "coordinator/record/json_number.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

using Lines = std::vector<std::string>;

void at_least(Lines& lines, const std::string& key, std::int64_t value, std::int64_t least,
              const std::string& remedy) {
  if (value < least) {
    lines.push_back(fmt::format("{} is {}; {}", key, value, remedy));
  }
}

void in_range(Lines& lines, const std::string& key, double value, bool inside,
              const std::string& remedy) {
  if (!std::isfinite(value) || !inside) {
    lines.push_back(fmt::format("{} is {}; {}", key, to_text(value), remedy));
  }
}

// "8 or less", but "1" where there is nothing less.
std::string at_most(std::int64_t most) {
  return std::to_string(most) + (most > 1 ? " or less" : "");
}

void check_counts(Lines& lines, const Recipe& recipe, int world_size) {
  at_least(lines, "the world size", world_size, 1, "start 1 rank or more");
  at_least(lines, "the training set's number of samples", recipe.samples_per_epoch, 1,
           "data.train must hold 1 row or more");
  at_least(lines, "batch.global", recipe.global_batch, 1, "use 1 or more");
  at_least(lines, "batch.reference", recipe.reference_batch, 1,
           "use the batch that optimizer.lr was tuned at, 1 or more");
  at_least(lines, "batch.micro", recipe.leaf_size, 1, "use 1 or more, or auto");
  at_least(lines, "budget in samples", recipe.budget_samples, 1,
           "use a budget of 1 sample or more");
  at_least(lines, "schedule.warmup in samples", recipe.warmup_samples, 0, "use 0 or more");
  at_least(lines, "schedule.decay in samples", recipe.decay_samples, 0, "use 0 or more");
  at_least(lines, "evaluate.early_stop.patience", recipe.patience, 0, "use 0 (off) or more");
  at_least(lines, "batch.increment", recipe.batch_increment, 0, "use 0 (batch.global) or more");
  at_least(lines, "batch.min", recipe.batch_min, 0, "use 0 (batch.global) or more");
  at_least(lines, "batch.max", recipe.batch_max, 0, "use 0 (no limit) or more");
  at_least(lines, "batch.min_steps", recipe.batch_min_steps, 0, "use 0 (off) or more");
  at_least(lines, "batch.dwell in samples", recipe.batch_dwell_samples, 0, "use 0 (off) or more");
  at_least(lines, "batch.ramp in samples", recipe.batch_ramp_samples, 0, "use 0 or more");
  at_least(lines, "scale.ramp in samples", recipe.ramp_samples, 0, "use 0 (at once) or more");
  at_least(lines, "average.half_life in samples", recipe.ema_half_life_samples, 0,
           "use 0 (off) or more");
  at_least(lines, "average.start in samples", recipe.swa_start_samples, 0, "use 0 or more");
  at_least(lines, "divergence_patience", recipe.divergence_patience, 0, "use 0 (off) or more");
  at_least(lines, "max_skipped_in_row", recipe.max_skipped_in_row, 0, "use 0 (off) or more");
  at_least(lines, "divergence.max_recoveries", recipe.max_recoveries, 0, "use 0 (none) or more");
  at_least(lines, "divergence.warmup in samples", recipe.recovery_warmup_samples, 0,
           "use 0 (at once) or more");
  at_least(lines, "noise.horizon in samples", recipe.noise_horizon_samples, 0,
           "use 0 (off) or more");
}

void check_values(Lines& lines, const Recipe& recipe) {
  const auto unit = [](double value) { return value >= 0 && value < 1; };
  in_range(lines, "optimizer.lr", recipe.lr, recipe.lr > 0, "use a finite rate above 0");
  in_range(lines, "optimizer.betas[0]", recipe.beta1, unit(recipe.beta1),
           "use 0 or more and less than 1");
  in_range(lines, "optimizer.betas[1]", recipe.beta2, unit(recipe.beta2),
           "use 0 or more and less than 1");
  in_range(
      lines, "optimizer.eps", recipe.eps, recipe.eps > 0,
      "use more than 0: LoRA's A has no gradient in the first update, and 0 / 0 is not a number");
  in_range(lines, "optimizer.weight_decay", recipe.weight_decay, recipe.weight_decay >= 0,
           "use 0 or more");
  in_range(lines, "scale.power", recipe.power, recipe.power >= 0 && recipe.power <= 1,
           "use 0 (none) to 1 (linear)");
  in_range(lines, "batch.critical", recipe.critical_batch, recipe.critical_batch >= 0,
           "use the critical batch in samples, or 0 to measure it");
  in_range(lines, "batch.critical_fraction", recipe.critical_fraction, recipe.critical_fraction > 0,
           "use more than 0; 1 is the critical batch itself");
  in_range(lines, "schedule.floor", recipe.floor, recipe.floor >= 0 && recipe.floor <= 1,
           "use a fraction of the peak rate, 0 to 1");
  in_range(lines, "budget in minutes", recipe.budget_minutes, recipe.budget_minutes >= 0,
           "use 0 (no limit) or more");
  in_range(lines, "evaluate.early_stop.min_delta", recipe.min_delta, recipe.min_delta >= 0,
           "use 0 or more");
  in_range(lines, "divergence_z", recipe.divergence_z, recipe.divergence_z >= 0,
           "use 0 (off) or more");
}

// Written without sums, which could overflow.
void check_lengths(Lines& lines, const Recipe& recipe) {
  const std::int64_t end = leg_at(recipe, 0).end;
  if (recipe.warmup_samples > end) {
    lines.push_back(
        fmt::format("schedule.warmup of {} samples is longer than the budget of {}; shorten the "
                    "warmup or raise the budget",
                    recipe.warmup_samples, end));
  } else if (recipe.schedule == ScheduleKind::kWsd &&
             recipe.decay_samples > end - recipe.warmup_samples) {
    lines.push_back(
        fmt::format("schedule.warmup of {} and schedule.decay of {} samples do not both fit into "
                    "the budget of {}; shorten one of them or raise the budget",
                    recipe.warmup_samples, recipe.decay_samples, end));
  }
}

void check_average(Lines& lines, const Recipe& recipe) {
  if (recipe.swa_start_samples != kNoSampleLimit &&
      recipe.swa_start_samples >= recipe.budget_samples) {
    lines.push_back(
        fmt::format("average.start of {} samples leaves no update of the budget of {} to average; "
                    "use 75% or so",
                    recipe.swa_start_samples, recipe.budget_samples));
  }
}

// What bends or moves the rate beside the rule.
void check_cap_and_policy(Lines& lines, const Recipe& recipe) {
  const bool fixed = recipe.batch_policy == BatchPolicyKind::kFixed;
  if (recipe.surge_cap && fixed && recipe.critical_batch == 0) {
    lines.emplace_back(
        "scale.cap bends the rate at the critical batch, and a measured one enters at a change of "
        "the batch, which batch.policy fixed never makes; give batch.critical, or use another "
        "policy");
  } else if (recipe.surge_cap) {
    if (const auto line = lacks_critical_batch(recipe, "scale.cap")) {
      lines.push_back(*line);
    }
  }
  const std::string others = "scale.rule sqrt (Adam) or linear (SGD)";
  if (follows_gain(recipe) && !fixed) {
    lines.push_back(fmt::format(
        "scale.rule adascale does not go with batch.policy {}: a policy counts samples and leads "
        "the rate from the factor of one batch to that of the next, adascale counts tau and takes "
        "its rate from a measured gain; use batch.policy fixed, or {}",
        name_of(recipe.batch_policy), others));
  }
  if (follows_gain(recipe) && recipe.batch_follows_ranks) {
    lines.push_back(
        "scale.rule adascale does not go with batch.on_resize rescale, which leads the rate from "
        "the factor of one batch to that of the next; use batch.on_resize: hold, or " +
        others);
  }
  if (follows_gain(recipe) && recipe.surge_cap) {
    lines.push_back(
        "scale.rule adascale does not go with scale.cap: its gain levels off at the noise scale by "
        "itself, and its clock would count a gain that the rate does not have; use scale.cap: "
        "false, or " +
        others);
  }
}

void check_scaling(Lines& lines, const Recipe& recipe) {
  const bool fixed = recipe.batch_policy == BatchPolicyKind::kFixed;
  const std::int64_t samples = largest_update(recipe, largest_batch(recipe).batch);
  const double k = static_cast<double>(samples) / static_cast<double>(recipe.reference_batch);
  const bool adascale = follows_gain(recipe);
  if (adascale && recipe.noise_horizon_samples == 0) {
    lines.push_back(
        "scale.rule adascale needs the gradient noise scale, and noise.horizon is 0; set it to the "
        "samples to average over, such as " +
        std::to_string(usual_noise_horizon(recipe.global_batch)));
  }
  // The gain is at most k, and at most 1 below the reference batch.
  const double largest = adascale ? power(std::max(1.0, k), recipe.power)
                                  : lr_multiplier(recipe.rule, recipe.power, k);
  if (!std::isfinite(recipe.lr * largest)) {
    lines.push_back(
        fmt::format("optimizer.lr {} scaled by rule {} is not finite; use a smaller rate",
                    to_text(recipe.lr), name_of(recipe.rule)));
  }
  if (!recipe.scale_betas) {
    return;
  }
  for (const double beta : {recipe.beta1, recipe.beta2}) {
    if (!beta_can_scale(beta, k)) {
      const double limit = static_cast<double>(recipe.reference_batch) / (1 - beta);
      const auto largest = static_cast<std::int64_t>(std::ceil(limit - 1e-6)) - 1;
      const std::string batch =
          largest >= 1
              ? fmt::format("{} {}, ", fixed ? "batch.global" : "batch.max", at_most(largest))
              : "";
      lines.push_back(fmt::format(
          "scale.betas cannot scale beta {} to k = {}/{}: k (1 - beta) = {} must stay below 1; use "
          "{}a larger beta, or scale.betas: false",
          to_text(beta), samples, recipe.reference_batch, to_text(k * (1 - beta)), batch));
    }
  }
}

// Ranks without work, or with much less of it than others.
void advise_on_ranks(Lines& lines, const Recipe& recipe, int world_size) {
  const auto now = factorise_by_leaf(recipe.global_batch, world_size, recipe.leaf_size);
  const auto best = factorise(recipe.global_batch, world_size, recipe.leaf_size);
  if (now.idle_ranks > 0) {
    const std::string remedy = best.idle_ranks < now.idle_ranks
                                   ? "use batch.micro " + at_most(best.leaf_size)
                                   : "start at most " + counted(recipe.global_batch, "rank");
    lines.push_back(
        fmt::format("{} of {} ranks have nothing to do: batch.global {} makes {} of {}; {}",
                    now.idle_ranks, world_size, recipe.global_batch,
                    counted(now.leaves, "leaf", "leaves"), now.leaf_size, remedy));
    return;
  }
  constexpr double kUneven = 0.8;
  constexpr double kWorthwhile = 0.1;
  for (std::int64_t limit = now.leaf_size - 1; now.balance() < kUneven && limit >= 1; --limit) {
    const auto finer = factorise(recipe.global_batch, world_size, limit);
    const bool allowed = recipe.batch_policy == BatchPolicyKind::kFixed ||
                         batch_increment(recipe) % finer.leaf_size == 0;
    if (allowed && finer.balance() >= now.balance() + kWorthwhile) {
      lines.push_back(fmt::format("{} on {} ranks keep them {} % busy; batch.micro {} would {} %",
                                  counted(now.leaves, "leaf", "leaves"), world_size,
                                  to_text(std::round(100 * now.balance())), finer.leaf_size,
                                  to_text(std::round(100 * finer.balance()))));
      return;
    }
    limit = finer.leaf_size;
  }
}

constexpr std::int64_t kFewUpdates = 100;  // of a LoRA run; 1000 are better

void advise_on_length(Lines& lines, const Recipe& recipe) {
  constexpr std::int64_t kFewUpdatesPerEpoch = 20;
  const std::int64_t steps = steps_from(recipe, recipe.global_batch, 0);
  const std::int64_t per_epoch = steps_per_epoch(recipe, recipe.global_batch);
  if (steps < kFewUpdates) {
    const std::int64_t smaller =
        std::min(recipe.budget_samples / kFewUpdates, recipe.global_batch - 1);
    const bool helps = smaller >= 1 && !recipe.budget_in_steps;
    const std::string remedy =
        helps ? "use a longer budget, or batch.global " + at_most(smaller) : "use a longer budget";
    lines.push_back(fmt::format("only {} in the whole run; LoRA wants {} or more; {}",
                                counted(steps, "update"), kFewUpdates, remedy));
  }
  if (recipe.global_batch > recipe.samples_per_epoch) {
    lines.push_back(fmt::format(
        "batch.global {} is more than the {} of an epoch: an update ends with the epoch, so none "
        "has more than that; use a smaller batch{}",
        recipe.global_batch, counted(recipe.samples_per_epoch, "sample"), packing_text(recipe)));
  } else if (per_epoch < kFewUpdatesPerEpoch) {
    const std::int64_t smaller = recipe.samples_per_epoch / kFewUpdatesPerEpoch;
    lines.push_back(fmt::format(
        "only {} per epoch of {} at batch.global {}; {}{}", counted(per_epoch, "update"),
        counted(recipe.samples_per_epoch, "sample"), recipe.global_batch,
        smaller >= 1 ? "use " + at_most(smaller) : "the training set is very small",
        packing_text(recipe)));
  }
}

void advise_on_rate(Lines& lines, const Recipe& recipe) {
  constexpr double kBeyondAll = 100;  // LARS, whose rates are the largest, takes 1 to 30
  if (recipe.lr > kBeyondAll) {
    lines.push_back("optimizer.lr " + to_text(recipe.lr) +
                    " is beyond what any optimizer takes; adamw takes 1e-5 to 1e-3");
  }
}

void advise_on_batch_policy(Lines& lines, const Recipe& recipe) {
  const BatchLimit largest = largest_batch(recipe);
  if (recipe.batch_policy != BatchPolicyKind::kFixed && largest.batch == recipe.global_batch) {
    lines.push_back(
        fmt::format("batch.policy {} cannot grow batch.global {}: {} allows no more; begin with a "
                    "smaller batch, lower batch.min_steps or raise batch.max",
                    name_of(recipe.batch_policy), recipe.global_batch, largest.reason));
  }
}

void advise_on_resize(Lines& lines, const Recipe& recipe) {
  if (recipe.batch_follows_ranks && recipe.rule == ScaleRule::kNone) {
    lines.emplace_back(
        "batch.on_resize rescale lets the batch follow the number of ranks, and scale.rule none "
        "leaves the rate as it is; use scale.rule sqrt (Adam) or linear (SGD)");
  }
}

void advise_on_recovery(Lines& lines, const Recipe& recipe) {
  if (recipe.max_recoveries > 0 && recipe.recovery_warmup_samples > recipe.budget_samples) {
    lines.push_back(
        fmt::format("divergence.warmup of {} samples is longer than the budget of {}: after a "
                    "recovery the rate would not get to its half before the end; shorten it",
                    recipe.recovery_warmup_samples, recipe.budget_samples));
  }
}

void advise_on_average(Lines& lines, const Recipe& recipe) {
  if (recipe.ema_half_life_samples > recipe.budget_samples) {
    lines.push_back(
        fmt::format("average.half_life of {} samples is longer than the budget of {}: the first "
                    "updates count almost as much as the last; use a tenth of the budget or less",
                    recipe.ema_half_life_samples, recipe.budget_samples));
  }
  if (recipe.swa_start_samples != kNoSampleLimit && depends_on_budget(recipe.schedule)) {
    lines.push_back(
        fmt::format("average swa is made for a rate that stays up: under schedule {} the last "
                    "weights move little and are close to their mean; use schedule.name constant",
                    name_of(recipe.schedule)));
  }
}

void advise_on_schedule(Lines& lines, const Recipe& recipe) {
  if (recipe.warmup_samples > recipe.budget_samples - recipe.warmup_samples) {
    lines.push_back(fmt::format(
        "the warmup takes {} of {} samples, more than half the run; shorten schedule.warmup",
        recipe.warmup_samples, recipe.budget_samples));
  }
  // Adascale's first gain is 1. Beside few updates nothing is said: there a warmup in percent is
  // short, too.
  const std::int64_t first =
      follows_gain(recipe) ? recipe.reference_batch : largest_update(recipe, recipe.global_batch);
  if (recipe.warmup_samples > 0 && recipe.warmup_samples <= first &&
      steps_from(recipe, recipe.global_batch, 0) >= kFewUpdates) {
    lines.push_back(
        fmt::format("schedule.warmup of {} is over with the first update of {}, which has the full "
                    "rate already; use several updates, or 0",
                    counted(recipe.warmup_samples, "sample"), first));
  }
  if (recipe.schedule == ScheduleKind::kConstant && recipe.floor > 0) {
    lines.push_back(
        "schedule.floor " + to_text(recipe.floor) +
        " has no effect with schedule constant; remove it or use linear, cosine or wsd");
  }
  if (recipe.schedule == ScheduleKind::kWsd && recipe.decay_samples == 0) {
    lines.push_back("schedule wsd with a decay of 0 samples is constant; set schedule.decay");
  }
}

bool follows_measured_noise(const Recipe& recipe) {
  return recipe.critical_batch == 0 && (recipe.batch_policy == BatchPolicyKind::kNoiseScale ||
                                        recipe.batch_policy == BatchPolicyKind::kGoodput);
}

// What a noise scale that is never known leads to.
std::string consequence(const Recipe& recipe) {
  if (follows_gain(recipe)) {
    return ", and adascale's gain stays 1";
  }
  return follows_measured_noise(recipe)
             ? fmt::format(", and batch.policy {} never changes the batch",
                           name_of(recipe.batch_policy))
             : "";
}

// A noise scale that could never be known, or not all the way that the batch may grow.
void advise_on_noise(Lines& lines, const Recipe& recipe) {
  if (recipe.noise_horizon_samples == 0) {
    return;
  }
  const std::string effect = consequence(recipe);
  const std::int64_t full = largest_update(recipe, recipe.global_batch);
  if (full <= recipe.leaf_size) {
    lines.push_back(
        fmt::format("the noise scale cannot be measured: batch.global {} is a single leaf of "
                    "batch.micro {}{}; use {}",
                    recipe.global_batch, recipe.leaf_size, effect,
                    full > 1 ? "batch.micro " + at_most(full / 2) : "a larger batch"));
  }
  // The average of horizon H is as good as about 2 H / B equal updates.
  constexpr auto kLeastUpdates = static_cast<std::int64_t>(NoiseTracker::kFewestUpdates / 2 + 1);
  const std::int64_t least = kLeastUpdates * full;
  if (recipe.noise_horizon_samples < least) {
    lines.push_back(
        fmt::format("the noise scale is never known: noise.horizon of {} samples averages over too "
                    "few updates of batch.global {}{}; use {}, at least {}",
                    recipe.noise_horizon_samples, recipe.global_batch, effect,
                    usual_noise_horizon(full), least));
    return;
  }
  const std::int64_t enough = recipe.noise_horizon_samples / kLeastUpdates;
  const std::int64_t largest = largest_batch(recipe).batch;
  if (follows_measured_noise(recipe) && largest > enough) {
    lines.push_back(
        fmt::format("noise.horizon of {} samples averages over too few updates of more than {}, so "
                    "batch.policy {} cannot use the largest batch of {}; use {}, at least {}",
                    recipe.noise_horizon_samples, enough, name_of(recipe.batch_policy), largest,
                    usual_noise_horizon(largest), kLeastUpdates * largest));
  }
}

}  // namespace

std::vector<std::string> contradictions(const Recipe& recipe, int world_size) {
  Lines lines;
  check_counts(lines, recipe, world_size);
  check_values(lines, recipe);
  if (lines.empty()) {  // what follows divides by these values
    if (const auto line = leaf_contradiction(recipe.global_batch, recipe.leaf_size)) {
      lines.push_back(*line);
    }
    for (const std::string& line : leg_contradictions(recipe)) {
      lines.push_back(line);
    }
    check_lengths(lines, recipe);
    check_average(lines, recipe);
    check_cap_and_policy(lines, recipe);
    check_scaling(lines, recipe);
    for (const std::string& line : batch_contradictions(recipe)) {
      lines.push_back(line);
    }
  }
  return lines;
}

void check_recipe(const Recipe& recipe, int world_size) {
  std::string message;
  for (const std::string& line : contradictions(recipe, world_size)) {
    message += (message.empty() ? "" : "\n") + line;
  }
  if (!message.empty()) {
    throw_bad_config(message);
  }
}

std::string packing_text(const Recipe& recipe) {
  const std::int64_t rows = recipe.samples_per_epoch;
  if (!recipe.packed || recipe.documents < 2 * rows) {
    return {};
  }
  return fmt::format(
      "; packing made {} of {}: data.packing: false keeps them apart, and auto does where none is "
      "longer than a row",
      counted(rows, "row"), counted(recipe.documents, "document"));
}

std::vector<Remark> remarks(const Recipe& recipe, int world_size) {
  std::vector<Remark> found;
  const auto collect = [&](const char* topic, const std::function<void(Lines&)>& advise) {
    Lines lines;
    advise(lines);
    for (std::string& line : lines) {
      found.push_back({topic, std::move(line)});
    }
  };
  collect("updates", [&](Lines& lines) { advise_on_length(lines, recipe); });
  collect("rate", [&](Lines& lines) { advise_on_rate(lines, recipe); });
  collect("batch_policy", [&](Lines& lines) { advise_on_batch_policy(lines, recipe); });
  collect("schedule", [&](Lines& lines) { advise_on_schedule(lines, recipe); });
  collect("noise", [&](Lines& lines) { advise_on_noise(lines, recipe); });
  collect("resize", [&](Lines& lines) { advise_on_resize(lines, recipe); });
  collect("recovery", [&](Lines& lines) { advise_on_recovery(lines, recipe); });
  collect("average", [&](Lines& lines) { advise_on_average(lines, recipe); });
  collect("ranks", [&](Lines& lines) { advise_on_ranks(lines, recipe, world_size); });
  return found;
}

}  // namespace lorascale::coordinator
