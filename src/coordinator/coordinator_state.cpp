// Saving and restoring. The state has two kinds of members: those that follow from (recipe, facts),
// which the hash covers, and `layout` and `log`, which depend on the machines the run had.
#include <fmt/format.h>

#include <string>
#include <utility>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "coordinator/coordinator_impl.hpp"
#include "coordinator/rates/continuation.hpp"
#include "coordinator/rates/recovery.hpp"
#include "coordinator/recipe_check.hpp"
#include "coordinator/record/recipe_json.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

constexpr const char* kFormat = "lorascale-coordinator";
constexpr std::int64_t kVersion = 1;

[[noreturn]] void refuse_damaged(const std::string& what) {
  throw_bad_input("the coordinator's state is damaged: " + what + "; use an earlier checkpoint");
}

Json last_step_json(const StepPlan& plan) {
  return {{"first_position", plan.first_position},
          {"samples", plan.samples},
          {"lr", plan.lr},
          {"lr_multiplier", plan.lr_multiplier},
          {"beta1", plan.beta1},
          {"beta2", plan.beta2},
          {"eps", plan.eps},
          {"weight_decay", plan.weight_decay}};
}

// The kinds of end that the coordinator itself announces.
Json end_to_json(const std::optional<StopReason>& end) {
  if (!end) {
    return nullptr;
  }
  return *end == StopReason::kTime ? "time" : "budget";
}

std::optional<StopReason> end_from_json(const Json& json) {
  if (json.is_null()) {
    return std::nullopt;
  }
  return json.get<std::string>() == "time" ? StopReason::kTime : StopReason::kBudget;
}

Json parsed(const std::string& text) {
  try {
    Json state = Json::parse(text);
    if (state.at("format") != kFormat) {
      refuse_damaged("it is of another kind");
    }
    const auto version = state.at("version").get<std::int64_t>();
    if (version != kVersion) {
      throw_bad_input(
          fmt::format("the coordinator's state has version {}, this program reads version {}; "
                      "continue with the lorascale that wrote it",
                      version, kVersion));
    }
    return state;
  } catch (const Json::exception& error) {
    refuse_damaged(error.what());
  }
}

// Where the schedule stands: samples, or adascale's tau.
double position_of(const Json& state, const Recipe& recipe) {
  return follows_gain(recipe)
             ? state.at("monitors").at("adascale").at("now").at("tau").get<double>()
             : static_cast<double>(state.at("clock").at("samples").get<std::int64_t>());
}

void check_changes(const Recipe& then, const Recipe& now, const Json& state) {
  std::string lines;
  for (const std::string& line : forbidden_changes(then, now, position_of(state, then))) {
    lines += (lines.empty() ? "" : ", ") + line;
  }
  if (!lines.empty()) {
    throw_bad_config("the checkpoint belongs to another recipe: " + lines +
                     "; set it back, or start a new run in another run.output_dir");
  }
}

// I6: rates are pure functions of (recipe, samples or tau and gain, batch), so those of the last
// update can be had again, bit for bit. `then` is the recipe that the update was made under: its
// budget may have cut that update short.
StepPlan checked_last_step(const RunState& self, const Recipe& then, const Json& saved) {
  Recipe recipe = then;
  recipe.leaf_size = self.recipe.leaf_size;
  const std::int64_t budget = recipe.budget_samples;
  const std::int64_t steps = self.steps;
  const std::int64_t samples = self.samples;
  const AdaScale& adascale = self.monitors.adascale;
  const bool gained = follows_gain(recipe);
  const auto first = saved.at("first_position").get<std::int64_t>();
  if (first < 0 || (!gained && first >= budget)) {
    refuse_damaged("its last update begins at sample " + std::to_string(first));
  }
  const StepPlan plan = plan_step(recipe, self.batching.last_state(), steps, first,
                                  adascale.last_clock(), self.recovery.last());
  if (gained && plan.tau + plan.tau_advance != adascale.clock().tau) {
    refuse_damaged(fmt::format("its last update ends at tau {}, its clock stands at {}",
                               to_text(plan.tau + plan.tau_advance),
                               to_text(adascale.clock().tau)));
  }
  if (first + plan.samples != samples) {
    refuse_damaged(fmt::format("its last update ends at sample {}, its clock stands at {}",
                               first + plan.samples, samples));
  }
  const Json again = last_step_json(plan);
  for (const auto& [key, value] : again.items()) {
    if (saved.at(key) != value) {
      refuse_damaged(fmt::format("{} of step {} was {}, the recipe gives {}", key, steps,
                                 saved.at(key).dump(), value.dump()));
    }
  }
  return plan;
}

std::string change_text(const char* what, const Json& before, const Json& after) {
  return before == after ? fmt::format("{} {} as before", what, after.dump())
                         : fmt::format("{} {} -> {}", what, before.dump(), after.dump());
}

// What the hash covers, beside the recipe.
Json trajectory(const RunState& self) {
  Json json;
  json["clock"] = {{"samples", self.samples},
                   {"steps", self.steps},
                   {"skipped_samples", self.skipped_samples},
                   {"skipped_steps", self.skipped_steps}};
  json["last_step"] = self.last ? last_step_json(*self.last) : Json(nullptr);
  if (const Json batch = self.batching.save(); !batch.is_null()) {
    json["batch"] = batch;
  }
  if (const Json recovery = self.recovery.save(); !recovery.is_null()) {
    json["recovery"] = recovery;
  }
  for (const Monitor* monitor : self.monitors.all()) {
    json["monitors"][std::string(monitor->name())] = monitor->save();
  }
  return json;
}

void load_trajectory(RunState& self, const Recipe& then, const Json& state) {
  const Json& clock = state.at("clock");
  self.samples = clock.at("samples").get<std::int64_t>();
  self.steps = clock.at("steps").get<std::int64_t>();
  self.skipped_samples = clock.at("skipped_samples").get<std::int64_t>();
  self.skipped_steps = clock.at("skipped_steps").get<std::int64_t>();
  const Json& last = state.at("last_step");
  const bool begun = self.steps > 0;
  if (self.steps < 0 || begun == last.is_null() || begun != (self.samples > 0)) {
    refuse_damaged(
        fmt::format("its clock stands at step {} and sample {}", self.steps, self.samples));
  }
  if (self.recipe.batch_policy != BatchPolicyKind::kFixed || state.contains("batch")) {
    self.batching.load(self.recipe, self.samples, state.at("batch"));
  }
  if (const auto recovery = state.find("recovery"); recovery != state.end()) {
    self.recovery.load(*recovery);
    const Recovery& now = self.recovery.now();
    if (now.count < 1 || now.step < 0 || now.step > self.steps || now.at < 0 ||
        now.at > self.samples || now.warmup < 0) {
      refuse_damaged(fmt::format("its recovery is number {} at sample {}", now.count, now.at));
    }
  }
  for (Monitor* monitor : self.monitors.all()) {
    monitor->load(state.at("monitors").at(std::string(monitor->name())));
  }
  if (begun) {
    self.last = checked_last_step(self, then, last);
  }
}

void log_resume(RunState& self, const Recipe& then, const Json& layout) {
  const Recipe& now = self.recipe;
  const Json& ranks = layout.at("world_size");
  std::string reason = fmt::format("goes on after step {} and {} samples: {}, {}", self.steps,
                                   self.samples, change_text("world size", ranks, self.world_size),
                                   change_text("leaf size", then.leaf_size, now.leaf_size));
  if (then.budget_samples != now.budget_samples) {
    const auto text = [](std::int64_t budget) {
      return budget == kNoSampleLimit ? "of time alone" : fmt::format("{} samples", budget);
    };
    reason += fmt::format(", budget {} -> {}", text(then.budget_samples), text(now.budget_samples));
  }
  if (then.budget_minutes != now.budget_minutes) {
    const auto text = [](double minutes) {
      return minutes > 0 ? to_text(minutes) + " minutes" : "none";
    };
    reason += fmt::format(", limit in time {} -> {}", text(then.budget_minutes),
                          text(now.budget_minutes));
  }
  const bool follows = now.batch_follows_ranks && ranks != self.world_size;
  self.log.add(self.steps, self.samples, "resume",
               reason + (follows ? "; the order of samples is the same, the batch follows the ranks"
                                 : "; batch, rates and sample order are the same"),
               {{"world_size", {ranks, self.world_size}},
                {"leaf_size", {then.leaf_size, now.leaf_size}},
                {"budget_samples", {then.budget_samples, now.budget_samples}},
                {"budget_minutes", {then.budget_minutes, now.budget_minutes}},
                {"elapsed_minutes", self.elapsed_minutes}});
}

void log_legs(RunState& self, const Recipe& then) {
  const Recipe& now = self.recipe;
  for (std::size_t i = then.legs.size(); i < now.legs.size(); ++i) {
    const Leg& leg = now.legs[i];
    if (leg.begin != self.tau()) {
      refuse_damaged(fmt::format("a leg of the schedule begins at {}, its clock stands at {}",
                                 to_text(leg.begin), to_text(self.tau())));
    }
    self.log.add(
        self.steps, self.samples, "leg", leg_text(now, leg),
        {{"leg", leg_to_json(leg)}, {"budget_samples", {then.budget_samples, now.budget_samples}}});
  }
}

// The batch of the recipe may have gone with every other setting, and that of more ranks not.
void follow_ranks(RunState& self, int before) {
  if (before < 1) {
    refuse_damaged(fmt::format("it was saved by {} ranks", before));
  }
  if (!self.recipe.batch_follows_ranks || before == self.world_size || self.stop_reason()) {
    return;
  }
  self.batching.follow_ranks(self.recipe, self.steps, self.samples, before,
                             {self.world_size, self.leaf_sizer}, self.log);
  Recipe resized = self.recipe;
  resized.global_batch = self.batch();
  resized.leaf_size = self.leaf_sizer.leaf_size(self.batch());
  check_recipe(resized, self.world_size);
}

void log_recovery(RunState& self, const RunState& diverged, bool keeps_best) {
  const Recipe& recipe = self.recipe;
  const Recovery& recovery = self.recovery.now();
  const Recovery& before = diverged.recovery.now();
  const double factor = recovery_factor(recovery, self.samples, recovery.warmup);
  const std::string in_vain =
      before.count > 0 && self.steps < before.step
          ? fmt::format(", for the checkpoint of step {} was gone back to in vain", before.step)
          : "";
  const std::string best =
      keeps_best
          ? fmt::format(
                "; the best validation stays that of step {}, undone as it is, until it is beaten",
                self.monitors.validation.best_step())
          : "";
  self.log.add(
      self.steps, self.samples, "recover",
      fmt::format("training diverged at step {} and {} samples: back to step {} and {} samples{}; "
                  "recovery {} of at most {}, and from here on rates are {} of the recipe's, after "
                  "a rise over {} samples{}",
                  diverged.steps, diverged.samples, self.steps, self.samples, in_vain,
                  recovery.count, recipe.max_recoveries, to_text(factor), recovery.warmup, best),
      {{"diverged_step", diverged.steps},
       {"diverged_samples", diverged.samples},
       {"recovery", recovery.count},
       {"max_recoveries", recipe.max_recoveries},
       {"lr_factor", factor},
       {"warmup_samples", recovery.warmup}});
}

}  // namespace

std::string Coordinator::state() const {
  const RunState& self = *impl_;
  Json state;
  state["format"] = kFormat;
  state["version"] = kVersion;
  state["recipe"] = recipe_to_json(self.recipe);
  state.update(trajectory(self));
  state["layout"] = {{"world_size", self.world_size},
                     {"elapsed_minutes", self.elapsed_minutes},
                     {"leaf", self.leaf_sizer.save()}};
  state["log"] = {{"sequence", self.log.sequence()},
                  {"chain", hex64(self.log.chain())},
                  {"short_update_announced", self.short_update_announced},
                  {"end_announced", end_to_json(self.end_announced)},
                  {"events", self.events},
                  {"advice", self.advisor.save()}};
  return state.dump();
}

std::int64_t Coordinator::saved_leaf_size(const std::string& text) {
  try {
    return recipe_from_json(parsed(text).at("recipe")).leaf_size;
  } catch (const Json::exception& error) {
    refuse_damaged(error.what());
  }
}

Coordinator::SavedTerms Coordinator::saved_terms(const std::string& text) {
  const Json state = parsed(text);
  try {
    Recipe recipe = recipe_from_json(state.at("recipe"));
    const double position = position_of(state, recipe);
    return {std::move(recipe), position};
  } catch (const Json::exception& error) {
    refuse_damaged(error.what());
  }
}

std::uint64_t Coordinator::state_hash() const {
  const RunState& self = *impl_;
  Json json = trajectory(self);
  json["recipe"] = hex64(recipe_fingerprint(self.recipe));
  json["budget_samples"] = self.recipe.budget_samples;
  return fnv1a64(json.dump());
}

Coordinator Coordinator::restore(Recipe recipe, int world_size, const std::string& text) {
  const Json state = parsed(text);
  check_recipe(recipe, world_size);
  auto impl = std::make_unique<Impl>(recipe, world_size);
  RunState& self = *impl;
  try {
    const Recipe then = recipe_from_json(state.at("recipe"));
    check_changes(then, recipe, state);
    load_trajectory(self, then, state);
    const Json& layout = state.at("layout");
    self.elapsed_minutes = layout.at("elapsed_minutes").get<double>();
    self.leaf_sizer.load(layout.at("leaf"));
    const Json& log = state.at("log");
    self.log = DecisionLog(log.at("sequence").get<std::int64_t>(),
                           hex64_from(log.at("chain").get<std::string>()));
    self.short_update_announced = log.at("short_update_announced").get<bool>();
    const auto end_announced = end_from_json(log.at("end_announced"));
    self.events = log.value("events", std::int64_t{0}) + 1;
    self.advisor.load(log.value("advice", Json(nullptr)));
    // Without a reason to stop there is more to do than there was: the end is yet to come.
    if (self.stop_reason()) {
      self.end_announced = end_announced;
    }
    log_resume(self, then, layout);
    log_legs(self, then);
    follow_ranks(self, layout.at("world_size").get<int>());
    self.advisor.at_start(world_size, self.batch(), self.steps, self.samples, self.log);
  } catch (const Json::exception& error) {
    refuse_damaged(error.what());
  }
  self.announce();
  return Coordinator(std::move(impl));
}

void Coordinator::recover(const std::string& text) {
  LS_ASSERT(recovery_due());
  const RunState& diverged = *impl_;
  const Json state = parsed(text);
  auto impl = std::make_unique<Impl>(diverged.recipe, diverged.world_size);
  RunState& self = *impl;
  int saved_by = 0;
  try {
    const Recipe then = recipe_from_json(state.at("recipe"));
    check_changes(then, self.recipe, state);
    load_trajectory(self, then, state);
    self.advisor.go_back(state.at("log").value("advice", Json(nullptr)), diverged.advisor);
    saved_by = state.at("layout").at("world_size").get<int>();
  } catch (const Json::exception& error) {
    refuse_damaged(error.what());
  }
  self.leaf_sizer = diverged.leaf_sizer;
  self.elapsed_minutes = diverged.elapsed_minutes;
  self.log = diverged.log;
  self.events = diverged.events + 1;
  self.short_update_announced = diverged.short_update_announced;
  const Recovery& before = diverged.recovery.now();
  self.recovery.go_back(
      {before.count + 1, self.steps, self.samples, self.recipe.recovery_warmup_samples});
  self.monitors.divergence.forgive();
  const bool keeps_best = self.monitors.validation.keep_best_of(diverged.monitors.validation);
  log_recovery(self, diverged, keeps_best);
  follow_ranks(self, saved_by);
  impl_ = std::move(impl);
  impl_->announce();
}

}  // namespace lorascale::coordinator
