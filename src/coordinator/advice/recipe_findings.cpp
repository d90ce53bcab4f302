#include "coordinator/advice/recipe_findings.hpp"

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
      "scale.rule none leaves the rate at " + to_text(recipe.lr) + ", as tuned for batches of " +
          std::to_string(recipe.reference_batch) + ", although updates (with accumulation) take " +
          std::to_string(batch) + " samples, " + to_text(k) +
          " times as many; use scale.rule sqrt for adamw (rate " +
          to_text(recipe.lr * std::sqrt(k)) + ") or linear for sgd (rate " +
          to_text(recipe.lr * k) + "), or set batch.reference " + std::to_string(batch) +
          " if the rate was tuned for that",
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
      "adapter.rank " + std::to_string(recipe.adapter_rank) + " trains " +
          std::to_string(recipe.trainable_parameters) + " parameters on " +
          std::to_string(recipe.targets_per_epoch) + " targets, " + to_text(std::round(ratio)) +
          " parameters for each: enough to learn them by heart many times over; use "
          "adapter.rank " +
          to_text(suggested) + (fitting < 1 ? " and fewer adapter.targets" : "") + ", or more data",
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
      "a batch of " + std::to_string(batch) + " samples is above the critical one of " +
          to_text(critical) + " (batch.critical): a target loss costs about " + to_text(times) +
          " times the samples that small batches would take; use " +
          (most == recipe.global_batch || critical < static_cast<double>(recipe.global_batch)
               ? "batch.global "
               : "batch.max ") +
          to_text(std::max(1.0, std::floor(critical))) + " or less",
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
  const std::string patience = std::to_string(recipe.patience);
  const std::string what =
      stopped ? "early stopping ended the run after " + std::to_string(*stopped) + " updates"
              : "early stopping after " + patience + " validations may end the run too soon";
  return Finding{"early_stop",
                 what + ": an epoch of " + std::to_string(recipe.samples_per_epoch) +
                     " samples has " + std::to_string(per_epoch) + " updates of " +
                     std::to_string(batch) + ", where 20 to 50 are usual; " +
                     (smaller >= 1 ? "use batch.global " + std::to_string(smaller) + " or less, or "
                                   : std::string("get more data, or ")) +
                     "raise evaluate.early_stop.patience and evaluate.every" + packing_text(recipe),
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
