#include "coordinator/advice/recipe_findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/rates/scaling.hpp"
#include "coordinator/recipe_check.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

constexpr std::int64_t kFewestUpdatesPerEpoch = 20;

// Below it the root of k changes the rate by less than 1.4, which no search for a rate resolves.
constexpr double kWorthRescaling = 2;

// A model stores about two bits per parameter (Allen-Zhu and Li 2024), and a target is worth a few
// bits: one parameter per target is enough to learn a set by heart. Fine-tuning of large models
// works with hundreds times that, because a low rate and few epochs hold it back, so only far
// beyond it the rank is worth a word.
constexpr double kParametersPerTarget = 500;
constexpr double kSuggestedPerTarget = 100;

std::optional<Finding> rate_not_rescaled(const Recipe& recipe) {
  const std::int64_t batch = largest_update(recipe, largest_batch(recipe).batch);
  const double k = static_cast<double>(batch) / static_cast<double>(recipe.reference_batch);
  if (recipe.rule != ScaleRule::kNone || k < kWorthRescaling) {
    return std::nullopt;
  }
  return Finding{
      "rate_not_rescaled",
      fmt::format("scale.rule none leaves the rate at {}, as tuned for batches of {}, although "
                  "updates (with accumulation) take {} samples, {} times as many; use scale.rule "
                  "sqrt for adamw (rate {}) or linear for sgd (rate {}), or set batch.reference {} "
                  "if the rate was tuned for that",
                  to_text(recipe.lr), recipe.reference_batch, batch, to_text(k),
                  to_text(recipe.lr * std::sqrt(k)), to_text(recipe.lr * k), batch),
      {{"lr", recipe.lr}, {"batch", batch}, {"reference_batch", recipe.reference_batch}, {"k", k}}};
}

std::optional<Finding> rank_too_high(const Recipe& recipe) {
  if (recipe.adapter_rank <= 1 || recipe.targets_per_epoch <= 0) {
    return std::nullopt;
  }
  const auto targets = static_cast<double>(recipe.targets_per_epoch);
  const auto rank = static_cast<double>(recipe.adapter_rank);
  const double ratio = static_cast<double>(recipe.trainable_parameters) / targets;
  if (ratio <= kParametersPerTarget) {
    return std::nullopt;
  }
  const double fitting = std::floor(rank * kSuggestedPerTarget / ratio);
  const double suggested = std::max(1.0, fitting);
  return Finding{
      "rank_too_high",
      fmt::format(
          "adapter.rank {} trains {} parameters on {} targets, {} parameters for each: enough to "
          "learn them by heart many times over; use adapter.rank {}{}, or more data",
          recipe.adapter_rank, recipe.trainable_parameters, recipe.targets_per_epoch,
          to_text(std::round(ratio)), to_text(suggested),
          fitting < 1 ? " and fewer adapter.targets" : ""),
      {{"rank", recipe.adapter_rank},
       {"trainable_parameters", recipe.trainable_parameters},
       {"targets_per_epoch", recipe.targets_per_epoch},
       {"parameters_per_target", ratio},
       {"suggested_rank", suggested}}};
}

std::optional<Finding> batch_above_critical(const Recipe& recipe) {
  // These policies weigh the critical batch themselves; only what they begin with may be above it.
  const bool weighed = recipe.batch_policy == BatchPolicyKind::kNoiseScale ||
                       recipe.batch_policy == BatchPolicyKind::kGoodput;
  const std::int64_t most = weighed ? recipe.global_batch : largest_batch(recipe).batch;
  const std::int64_t batch = largest_update(recipe, most);
  const double critical = recipe.critical_batch;
  if (critical <= 0 || static_cast<double>(batch) <= critical) {
    return std::nullopt;
  }
  const double times = 1 + static_cast<double>(batch) / critical;
  return Finding{
      "batch_above_critical",
      fmt::format(
          "a batch of {} samples is above the critical one of {} (batch.critical): a target loss "
          "costs about {} times the samples that small batches would take; use {} {} or less",
          batch, to_text(critical), to_text(times),
          most == recipe.global_batch || critical < static_cast<double>(recipe.global_batch)
              ? "batch.global"
              : "batch.max",
          to_text(std::max(1.0, std::floor(critical)))),
      {{"batch", batch}, {"critical_batch", critical}, {"samples_factor", times}}};
}

}  // namespace

std::optional<Finding> early_stop_finding(const Recipe& recipe, std::int64_t batch,
                                          std::optional<std::int64_t> stopped) {
  const std::int64_t per_epoch = steps_per_epoch(recipe, batch);
  if (recipe.patience == 0 || per_epoch >= kFewestUpdatesPerEpoch) {
    return std::nullopt;
  }
  const std::int64_t smaller = recipe.samples_per_epoch / kFewestUpdatesPerEpoch;
  const std::string what =
      stopped ? fmt::format("early stopping ended the run after {} updates", *stopped)
              : fmt::format("early stopping after {} validations may end the run too soon",
                            recipe.patience);
  const std::string remedy =
      smaller >= 1 ? fmt::format("use batch.global {} or less", smaller) : "get more data";
  return Finding{
      "early_stop",
      fmt::format("{}: an epoch of {} samples has {} updates of {}, where 20 to 50 are usual; {}, "
                  "or raise evaluate.early_stop.patience and evaluate.every{}",
                  what, recipe.samples_per_epoch, per_epoch, batch, remedy, packing_text(recipe)),
      {{"updates_per_epoch", per_epoch},
       {"samples_per_epoch", recipe.samples_per_epoch},
       {"batch", batch},
       {"patience", recipe.patience},
       {"stopped_after", stopped ? Json(*stopped) : Json(nullptr)}}};
}

Findings findings_at_start(const Recipe& recipe, int world_size) {
  Findings findings;
  for (const auto& finding :
       {rate_not_rescaled(recipe), early_stop_finding(recipe, recipe.global_batch, std::nullopt),
        rank_too_high(recipe), batch_above_critical(recipe)}) {
    if (finding) {
      findings.push_back(*finding);
    }
  }
  for (const auto& [topic, text] : remarks(recipe, world_size)) {
    findings.push_back({topic, text, {{"world_size", world_size}}});
  }
  return findings;
}

}  // namespace lorascale::coordinator
