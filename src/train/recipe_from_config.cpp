#include "train/recipe_from_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "coordinator/batch/factorise.hpp"

namespace lorascale::train {
namespace {

constexpr std::int64_t kDefaultLeaf = 8;

// In the units that the user wrote; the recipe knows samples alone.
void require_lengths_that_fit(const config::RunConfig& config, const coordinator::Recipe& recipe) {
  const auto written = [](const char* key, const Amount& amount, std::int64_t samples) {
    return fmt::format("{}: {} ({})", key, to_string(amount), counted(samples, "sample"));
  };
  const auto& schedule = config.schedule;
  const std::string warmup = written("schedule.warmup", schedule.warmup, recipe.warmup_samples);
  const std::string budget = written("budget", config.budget, recipe.budget_samples);
  if (recipe.warmup_samples > recipe.budget_samples) {
    throw_bad_config(fmt::format(
        "{} is longer than the run, {}; shorten the warmup or raise the budget", warmup, budget));
  }
  if (recipe.decay_samples > recipe.budget_samples - recipe.warmup_samples) {
    throw_bad_config(fmt::format(
        "{} and {} do not both fit into the run, {}; shorten one of them or raise the budget",
        warmup, written("schedule.decay", schedule.decay, recipe.decay_samples), budget));
  }
}

// What a share of the budget means only where the budget has an end.
std::int64_t average_samples(const std::string& key, const Amount& amount,
                             const config::RunConfig& config, const UnitContext& context) {
  if (amount.unit == Unit::kFraction && config.budget.unit == Unit::kMinutes) {
    throw_bad_config(
        fmt::format("{0}: budget: {1} has no end in samples; give {0} in samples, steps or epochs",
                    key, to_string(config.budget)));
  }
  return to_samples(amount, context);
}

void set_average(coordinator::Recipe& recipe, const config::RunConfig& config,
                 const UnitContext& context) {
  const auto& section = config.average;
  if (section.name == config::Average::kEma) {
    // Less than a sample means the same as one: the average is the newest weights.
    recipe.ema_half_life_samples = std::max<std::int64_t>(
        1, average_samples("average.half_life", section.half_life, config, context));
  } else if (section.name == config::Average::kSwa) {
    recipe.swa_start_samples = average_samples("average.start", section.start, config, context);
  }
}

// What the recipe knows of changes of the batch. Lengths are resolved by `units`, the budget
// included.
void add_batch_policy(const config::RunConfig& config, const UnitContext& units,
                      coordinator::Recipe* recipe) {
  const config::BatchSection& batch = config.batch;
  if (config.budget.unit == Unit::kMinutes) {
    const Amount dwell = batch.dwell.value_or(Amount());
    for (const auto& [key, length] :
         {std::pair("batch.dwell", dwell), std::pair("batch.ramp", batch.ramp),
          std::pair("scale.ramp", config.scale.ramp)}) {
      if (length.unit == Unit::kFraction && length.value > 0) {
        throw_bad_config(fmt::format(
            "{}: {} of a budget of {} is no number of samples; give it in samples or steps", key,
            to_string(length), to_string(config.budget)));
      }
    }
  }
  recipe->batch_policy = batch.policy;
  recipe->batch_follows_ranks = batch.on_resize == config::OnResize::kRescale;
  recipe->batch_increment = batch.increment.value_or(0);
  recipe->batch_min = batch.min.value_or(0);
  recipe->batch_max = batch.max.value_or(0);
  recipe->batch_min_steps = batch.min_steps;
  const bool measures = batch.policy == coordinator::BatchPolicyKind::kNoiseScale ||
                        batch.policy == coordinator::BatchPolicyKind::kGoodput;
  recipe->batch_dwell_samples = batch.dwell ? to_samples(*batch.dwell, units)
                                : measures  ? recipe->noise_horizon_samples
                                            : 0;
  recipe->batch_ramp_samples = to_samples(batch.ramp, units);
  recipe->critical_batch = batch.critical;
  recipe->critical_fraction = batch.critical_fraction;
  recipe->ramp_samples = to_samples(config.scale.ramp, units);
  recipe->surge_cap = config.scale.cap;
}

// The largest leaf that `micro: auto` takes before memory is measured.
std::int64_t usual_leaf(const config::BatchSection& batch, int world_size) {
  const std::int64_t increment = batch.increment.value_or(batch.global);
  const auto leaf = coordinator::factorise(batch.global, world_size, kDefaultLeaf).leaf_size;
  return std::gcd(leaf, increment);
}

}  // namespace

coordinator::Recipe make_recipe(const config::RunConfig& config, std::int64_t rows,
                                double tokens_per_row, int world_size, UnitContext* units) {
  UnitContext context{rows, config.batch.global, tokens_per_row, 0};
  coordinator::Recipe recipe;
  recipe.seed = config.run.seed;
  recipe.samples_per_epoch = rows;
  recipe.global_batch = config.batch.global;
  recipe.reference_batch = config.batch.reference.value_or(config.batch.global);
  recipe.leaf_size =
      config.batch.micro ? *config.batch.micro : usual_leaf(config.batch, world_size);
  if (config.budget.unit == Unit::kMinutes) {
    // A budget in time has no end in samples that a rate could be planned by.
    if (config.schedule.name != coordinator::ScheduleKind::kConstant ||
        (config.schedule.warmup.unit == Unit::kFraction && config.schedule.warmup.value > 0)) {
      throw_bad_config(
          "budget: " + to_string(config.budget) +
          " has no end in samples; use schedule.name: constant with schedule.warmup in samples or "
          "steps, or give the budget in samples, steps or epochs");
    }
    recipe.budget_minutes = config.budget.value;
    recipe.budget_samples = coordinator::kNoSampleLimit;
  } else {
    recipe.budget_samples = to_samples(config.budget, context);
  }
  context.budget_samples = recipe.budget_samples;
  recipe.lr = config.optimizer.lr;
  recipe.beta1 =
      config.optimizer.has_moments() ? config.optimizer.beta1 : config.optimizer.momentum;
  recipe.beta2 = config.optimizer.beta2;
  recipe.eps = config.optimizer.eps;
  recipe.weight_decay = config.optimizer.weight_decay;
  recipe.rule =
      config.scale.rule.value_or(config.optimizer.has_moments() ? coordinator::ScaleRule::kSqrt
                                                                : coordinator::ScaleRule::kLinear);
  // AdaScale's exponent: the gain itself for SGD; for Adam its root, as rule sqrt has it of k.
  recipe.power = recipe.rule != coordinator::ScaleRule::kAdascale ? config.scale.power
                 : config.optimizer.has_moments()                 ? 0.5
                                                                  : 1.0;
  recipe.noise_horizon_samples = to_samples(config.noise.horizon, context);
  add_batch_policy(config, context, &recipe);
  recipe.scale_betas = config.scale.betas && config.optimizer.has_moments();
  recipe.scale_eps = config.scale.eps;
  recipe.scale_weight_decay = config.scale.weight_decay;
  recipe.schedule = config.schedule.name;
  recipe.warmup_samples = to_samples(config.schedule.warmup, context);
  recipe.decay_samples = recipe.schedule == coordinator::ScheduleKind::kWsd
                             ? to_samples(config.schedule.decay, context)
                             : 0;
  require_lengths_that_fit(config, recipe);
  recipe.floor = config.schedule.floor;
  set_average(recipe, config, context);
  if (config.divergence.action == config::OnDivergence::kRecover) {
    recipe.max_recoveries = config.divergence.max_recoveries;
    recipe.recovery_warmup_samples = to_samples(config.divergence.warmup, context);
  }
  recipe.patience = config.evaluate.early_stop.patience;
  recipe.min_delta = config.evaluate.early_stop.min_delta;
  recipe.advise = config.advice;
  recipe.budget_in_steps = config.budget.unit == Unit::kSteps;
  recipe.shuffled = config.data.shuffle;
  recipe.adapter_rank = config.adapter.type == "lora" ? config.adapter.rank : 0;
  if (units != nullptr) {
    *units = context;
  }
  return recipe;
}

}  // namespace lorascale::train
