#include "coordinator/record/recipe_json.hpp"

#include <fmt/format.h>

#include <type_traits>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/rates/continuation.hpp"

namespace lorascale::coordinator {
namespace {

enum class Role {
  kResult,  // changes what is computed
  // As kResult. Not written where it has its default: so recipes, digests and event records from
  // before it existed stay as they are, and one that lacks it had the default.
  kLaterResult,
  // May change from start to start, and says nothing of what was computed. Not written where it has
  // its default, for the same reason.
  kLaterFree,
  kLength,  // changes how far the run goes, and under some schedules what is computed
  // Where the last part of the run begins: changes what is computed from there on.
  kTail,
  kLaterTail,  // the same, not written where it has its default
  kLaterLegs,  // grows only, by what the run has not come to; not written where it has its default
  kSpeed,      // changes how fast it is computed
};

// The one list of fields; a new one is a line here, as one of the kLater or with a new version of
// the state. `RecipeType` is Recipe or const Recipe.
template <typename RecipeType, typename Visitor>
void visit_fields(RecipeType& recipe, Visitor&& visit) {
  visit("run.seed", recipe.seed, Role::kResult);
  visit("data.samples_per_epoch", recipe.samples_per_epoch, Role::kResult);
  visit("batch.global", recipe.global_batch, Role::kResult);
  visit("batch.reference", recipe.reference_batch, Role::kResult);
  visit("batch.micro", recipe.leaf_size, Role::kSpeed);
  visit("budget.samples", recipe.budget_samples, Role::kLength);
  visit("budget.minutes", recipe.budget_minutes, Role::kSpeed);
  visit("optimizer.lr", recipe.lr, Role::kResult);
  visit("optimizer.beta1", recipe.beta1, Role::kResult);
  visit("optimizer.beta2", recipe.beta2, Role::kResult);
  visit("optimizer.eps", recipe.eps, Role::kResult);
  visit("optimizer.weight_decay", recipe.weight_decay, Role::kResult);
  visit("scale.rule", recipe.rule, Role::kResult);
  visit("scale.power", recipe.power, Role::kResult);
  visit("scale.betas", recipe.scale_betas, Role::kResult);
  visit("scale.eps", recipe.scale_eps, Role::kResult);
  visit("scale.weight_decay", recipe.scale_weight_decay, Role::kResult);
  visit("schedule.name", recipe.schedule, Role::kResult);
  visit("schedule.warmup_samples", recipe.warmup_samples, Role::kResult);
  visit("schedule.decay_samples", recipe.decay_samples, Role::kTail);
  visit("schedule.floor", recipe.floor, Role::kResult);
  visit("early_stop.patience", recipe.patience, Role::kResult);
  visit("early_stop.min_delta", recipe.min_delta, Role::kResult);
  visit("divergence.z", recipe.divergence_z, Role::kResult);
  visit("divergence.patience", recipe.divergence_patience, Role::kResult);
  visit("divergence.max_skipped_in_row", recipe.max_skipped_in_row, Role::kResult);
  visit("noise.horizon_samples", recipe.noise_horizon_samples, Role::kLaterResult);
  visit("batch.policy", recipe.batch_policy, Role::kLaterResult);
  visit("batch.increment", recipe.batch_increment, Role::kLaterResult);
  visit("batch.min", recipe.batch_min, Role::kLaterResult);
  visit("batch.max", recipe.batch_max, Role::kLaterResult);
  visit("batch.min_steps", recipe.batch_min_steps, Role::kLaterResult);
  visit("batch.dwell_samples", recipe.batch_dwell_samples, Role::kLaterResult);
  visit("batch.ramp_samples", recipe.batch_ramp_samples, Role::kLaterResult);
  visit("batch.critical_fraction", recipe.critical_fraction, Role::kLaterResult);
  visit("batch.critical", recipe.critical_batch, Role::kLaterResult);
  visit("batch.follows_ranks", recipe.batch_follows_ranks, Role::kLaterFree);
  visit("scale.ramp_samples", recipe.ramp_samples, Role::kLaterResult);
  visit("scale.cap", recipe.surge_cap, Role::kLaterResult);
  visit("average.half_life_samples", recipe.ema_half_life_samples, Role::kLaterResult);
  visit("average.start_samples", recipe.swa_start_samples, Role::kLaterTail);
  visit("schedule.first_leg_end", recipe.first_leg_end, Role::kLaterLegs);
  visit("schedule.legs", recipe.legs, Role::kLaterLegs);
  visit("advice", recipe.advise, Role::kLaterFree);
  visit("data.shuffle", recipe.shuffled, Role::kLaterFree);
  visit("adapter.rank", recipe.adapter_rank, Role::kLaterFree);
  visit("adapter.parameters", recipe.trainable_parameters, Role::kLaterFree);
  visit("data.targets_per_epoch", recipe.targets_per_epoch, Role::kLaterFree);
  visit("data.pieces_left_out", recipe.pieces_left_out, Role::kLaterFree);
  visit("data.pieces", recipe.pieces, Role::kLaterFree);
  visit("data.documents", recipe.documents, Role::kLaterFree);
  visit("data.packed", recipe.packed, Role::kLaterFree);
  visit("budget.in_steps", recipe.budget_in_steps, Role::kLaterFree);
  visit("divergence.max_recoveries", recipe.max_recoveries, Role::kLaterFree);
  visit("divergence.warmup_samples", recipe.recovery_warmup_samples, Role::kLaterFree);
}

Json value_to_json(const std::vector<Leg>& legs) {
  Json json = Json::array();
  for (const Leg& leg : legs) {
    json.push_back(leg_to_json(leg));
  }
  return json;
}

template <typename T>
Json value_to_json(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return std::string(name_of(value));
  } else {
    return value;
  }
}

template <typename T>
T value_from_json(const Json& json) {
  if constexpr (std::is_enum_v<T>) {
    const auto& text = json.get_ref<const std::string&>();
    if (const auto mode = mode_named<T>(text)) {
      return *mode;
    }
    throw_bad_input(fmt::format("'{}' is not a name this version knows", text));
  } else if constexpr (std::is_same_v<T, std::vector<Leg>>) {
    std::vector<Leg> legs;
    for (const Json& leg : json) {
      legs.push_back(leg_from_json(leg));
    }
    return legs;
  } else {
    return json.get<T>();
  }
}

bool came_later(Role role) {
  return role == Role::kLaterResult || role == Role::kLaterFree || role == Role::kLaterTail ||
         role == Role::kLaterLegs;
}

bool changes_results(Role role) {
  return role == Role::kResult || role == Role::kLaterResult || role == Role::kTail ||
         role == Role::kLaterTail || role == Role::kLaterLegs;
}

Json all_fields(const Recipe& recipe) {
  Json json = Json::object();
  visit_fields(recipe,
               [&](const char* key, const auto& value, Role) { json[key] = value_to_json(value); });
  return json;
}

Json written_fields(const Recipe& recipe, bool results_only) {
  const Json defaults = all_fields(Recipe());
  Json json = Json::object();
  visit_fields(recipe, [&](const char* key, const auto& value, Role role) {
    const Json written = value_to_json(value);
    const bool implied = came_later(role) && written == defaults.at(key);
    if (!implied && (!results_only || changes_results(role))) {
      json[key] = written;
    }
  });
  return json;
}

}  // namespace

Json leg_to_json(const Leg& leg) {
  return {{"cause", name_of(leg.cause)}, {"begin", leg.begin}, {"end", leg.end},
          {"shape", name_of(leg.shape)}, {"from", leg.from},   {"peak", leg.peak},
          {"warmup", leg.warmup},        {"decay", leg.decay}, {"floor", leg.floor}};
}

Leg leg_from_json(const Json& json) {
  return {value_from_json<Leg::Cause>(json.at("cause")),
          json.at("begin").get<double>(),
          json.at("end").get<std::int64_t>(),
          value_from_json<ScheduleKind>(json.at("shape")),
          json.at("from").get<double>(),
          json.at("peak").get<double>(),
          json.at("warmup").get<std::int64_t>(),
          json.at("decay").get<std::int64_t>(),
          json.at("floor").get<double>()};
}

Json recipe_to_json(const Recipe& recipe) {
  return written_fields(recipe, false);
}

Recipe recipe_from_json(const Json& json) {
  Recipe recipe;
  visit_fields(recipe, [&](const char* key, auto& value, Role role) {
    if (came_later(role) && !json.contains(key)) {
      return;
    }
    value = value_from_json<std::remove_reference_t<decltype(value)>>(json.at(key));
  });
  return recipe;
}

std::vector<std::string> forbidden_changes(const Recipe& then, const Recipe& now, double position) {
  std::vector<std::string> lines;
  const Json before = all_fields(then);
  const Json after = all_fields(now);
  visit_fields(now, [&](const char* key, const auto&, Role role) {
    if (role == Role::kLength || role == Role::kTail || role == Role::kLaterTail ||
        role == Role::kLaterLegs || !changes_results(role) || before.at(key) == after.at(key)) {
      return;
    }
    lines.push_back(
        fmt::format("{} was {} and is {}", key, before.at(key).dump(), after.at(key).dump()));
  });
  for (std::string& line : changes_of_the_past(then, now, position)) {
    lines.push_back(std::move(line));
  }
  return lines;
}

std::uint64_t recipe_fingerprint(const Recipe& recipe) {
  return fnv1a64(written_fields(recipe, true).dump());
}

}  // namespace lorascale::coordinator
