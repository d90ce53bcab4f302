#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "coordinator/record/decision_log.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::advance;
using testing::expect_error;
using testing::facts_of;
using ::testing::HasSubstr;
using testing::of_kind;
using testing::small_recipe;
using Json = nlohmann::ordered_json;

Recipe every_kind(ScheduleKind kind) {
  Recipe recipe = small_recipe();
  recipe.schedule = kind;
  recipe.decay_samples = 700;
  recipe.weight_decay = 0.01;
  recipe.scale_betas = recipe.scale_eps = recipe.scale_weight_decay = true;
  recipe.patience = 100;
  return recipe;
}

// Updates with a validation every third one and a skipped update now and then; returns the rates.
std::vector<StepPlan> run_to(Coordinator& coordinator, std::int64_t end) {
  std::vector<StepPlan> plans;
  while (coordinator.steps_done() < end) {
    const auto plan = coordinator.next_step();
    if (!plan) {
      break;
    }
    plans.push_back(*plan);
    StepFacts facts = facts_of(plan->step);
    facts.applied = plan->step % 11 != 0;
    coordinator.on_step(facts);
    if (plan->step % 3 == 0) {
      coordinator.on_evaluation({plan->step, 3 - facts.loss});
    }
  }
  return plans;
}

// V15: a run stopped after any update goes on with the same bits, on other ranks and with other
// leaves.
TEST(Restore, V15GoesOnWithTheSameBits) {
  for (const ScheduleKind kind : {ScheduleKind::kConstant, ScheduleKind::kLinear,
                                  ScheduleKind::kCosine, ScheduleKind::kWsd}) {
    const Recipe recipe = every_kind(kind);
    Coordinator whole(recipe, 4);
    const auto plans = run_to(whole, 1000);
    ASSERT_EQ(plans.size(), 48U);
    for (std::int64_t stop = 0; stop <= 48; ++stop) {
      Coordinator first(recipe, 4);
      run_to(first, stop);
      first.take_decisions();
      Recipe other = recipe;
      other.leaf_size = 16;
      Coordinator second = Coordinator::restore(other, 7, first.state());
      ASSERT_EQ(second.state_hash(), first.state_hash()) << stop;
      ASSERT_EQ(second.elapsed_minutes(), first.elapsed_minutes());
      const auto rest = run_to(second, 1000);
      ASSERT_EQ(rest.size(), plans.size() - static_cast<std::size_t>(stop));
      for (std::size_t i = 0; i < rest.size(); ++i) {
        const StepPlan& expected = plans[i + static_cast<std::size_t>(stop)];
        ASSERT_EQ(rest[i].step, expected.step);
        ASSERT_EQ(rest[i].first_position, expected.first_position);
        ASSERT_EQ(rest[i].samples, expected.samples);
        ASSERT_EQ(rest[i].lr, expected.lr);
        ASSERT_EQ(rest[i].beta1, expected.beta1);
        ASSERT_EQ(rest[i].beta2, expected.beta2);
        ASSERT_EQ(rest[i].eps, expected.eps);
        ASSERT_EQ(rest[i].weight_decay, expected.weight_decay);
        ASSERT_EQ(rest[i].leaf_size, 16);
      }
      ASSERT_EQ(second.state_hash(), whole.state_hash()) << stop;
      ASSERT_EQ(second.samples_skipped(), whole.samples_skipped());
      ASSERT_EQ(second.best_validation_step(), whole.best_validation_step());
    }
  }
}

TEST(Restore, TheLogGoesOnUnbroken) {
  Coordinator first(small_recipe(), 4);
  run_to(first, 20);
  auto log = first.take_decisions();
  Recipe other = small_recipe();
  other.leaf_size = 2;
  Coordinator second = Coordinator::restore(other, 3, first.state());
  run_to(second, 1000);
  const auto rest = second.take_decisions();
  log.insert(log.end(), rest.begin(), rest.end());
  EXPECT_FALSE(first_broken_link(log));
  EXPECT_EQ(log.back().sequence, static_cast<std::int64_t>(log.size()));
  EXPECT_EQ(rest[0].kind, "resume");
  EXPECT_THAT(rest[0].reason, HasSubstr("after step 20 and 1256 samples"));
  EXPECT_THAT(rest[0].reason, HasSubstr("world size 4 -> 3, leaf size 4 -> 2"));
  EXPECT_EQ(of_kind(log, "plan").size(), 1U);
  EXPECT_EQ(of_kind(log, "lr").size(), 1U);  // not announced again
  EXPECT_EQ(of_kind(log, "budget").size(), 1U);
}

TEST(Restore, AFinishedRunStaysFinished) {
  Coordinator first(small_recipe(), 4);
  advance(first, 1000);
  Coordinator again = Coordinator::restore(small_recipe(), 4, first.state());
  EXPECT_EQ(again.stop_reason(), StopReason::kBudget);
  EXPECT_TRUE(of_kind(again.take_decisions(), "budget").empty());
}

TEST(Restore, MonitorsRememberThatTheyStopped) {
  Recipe recipe = small_recipe();
  recipe.patience = 1;
  Coordinator stopped(recipe, 1);
  advance(stopped, 1);
  stopped.on_evaluation({1, 1.0});
  advance(stopped, 1);
  stopped.on_evaluation({2, 1.0});
  EXPECT_EQ(Coordinator::restore(recipe, 2, stopped.state()).stop_reason(), StopReason::kEarlyStop);

  recipe.max_skipped_in_row = 3;
  Coordinator skipping(recipe, 1);
  StepFacts facts;
  facts.applied = false;
  facts.loss = std::numeric_limits<double>::quiet_NaN();
  for (std::int64_t step = 1; step <= 3; ++step) {
    skipping = Coordinator::restore(recipe, 1, skipping.state());  // the row is part of the state
    facts.step = step;
    skipping.on_step(facts);
  }
  EXPECT_EQ(skipping.stop_reason(), StopReason::kDiverged);
  EXPECT_EQ(Coordinator::restore(recipe, 1, skipping.state()).stop_reason(), StopReason::kDiverged);
}

TEST(Restore, MoreMinutesLetATimedOutRunGoOn) {
  Recipe recipe = small_recipe();
  recipe.budget_minutes = 0.1;
  Coordinator first(recipe, 2);
  advance(first, 1000);
  ASSERT_EQ(first.stop_reason(), StopReason::kTime);
  recipe.budget_minutes = 0;
  Coordinator second = Coordinator::restore(recipe, 2, first.state());
  EXPECT_FALSE(second.stop_reason());
  EXPECT_THAT(second.take_decisions()[0].reason, HasSubstr("limit in time 0.1 minutes -> none"));
  advance(second, 1000);
  Coordinator unlimited(small_recipe(), 1);
  advance(unlimited, 1000);
  EXPECT_EQ(second.state_hash(), unlimited.state_hash());
}

TEST(Restore, ABudgetInSamplesMayFollowOneInTime) {
  Recipe recipe = small_recipe();
  recipe.schedule = ScheduleKind::kConstant;
  recipe.budget_samples = kNoSampleLimit;
  recipe.budget_minutes = 0.1;
  Coordinator first(recipe, 2);
  advance(first, 1000);
  recipe.budget_samples = 3000;
  recipe.budget_minutes = 0;
  Coordinator second = Coordinator::restore(recipe, 2, first.state());
  EXPECT_THAT(second.take_decisions()[0].reason, HasSubstr("budget of time alone -> 3000 samples"));
  advance(second, 1000);
  EXPECT_EQ(second.stop_reason(), StopReason::kBudget);
  EXPECT_EQ(second.samples_seen(), 3000);
  recipe.budget_samples = 400;  // passed already
  EXPECT_EQ(Coordinator::restore(recipe, 2, first.state()).stop_reason(), StopReason::kBudget);
}

TEST(Restore, TheBudgetMayGrowWhereTheScheduleDoesNotLookAtIt) {
  Recipe recipe = small_recipe();
  recipe.schedule = ScheduleKind::kConstant;
  recipe.budget_samples = 1010;  // cuts the last update short
  Coordinator first(recipe, 2);
  advance(first, 1000);
  recipe.budget_samples = 3000;
  Coordinator second = Coordinator::restore(recipe, 2, first.state());
  EXPECT_EQ(second.next_step()->first_position, 1010);
  const auto decisions = second.take_decisions();
  EXPECT_THAT(decisions[0].reason, HasSubstr("budget 1010 samples -> 3000 samples"));
  advance(second, 1000);
  EXPECT_EQ(second.samples_seen(), 3000);
  EXPECT_EQ(of_kind(second.take_decisions(), "budget").size(), 1U);  // the new end is announced

  recipe.budget_samples = 1000;
  expect_error(ExitCode::kBadConfig, {"budget.samples was 1010 and is 1000", "not shrink"},
               [&] { Coordinator::restore(recipe, 2, first.state()); });
}

TEST(Restore, TheBudgetMayNotGrowUnderASchedule) {
  for (const ScheduleKind kind : {ScheduleKind::kLinear, ScheduleKind::kCosine}) {
    Recipe recipe = every_kind(kind);
    Coordinator first(recipe, 2);
    advance(first, 10);
    recipe.budget_samples = 6000;
    expect_error(ExitCode::kBadConfig,
                 {"budget.samples was 3000 and is 6000", "schedule follows the budget", "new run"},
                 [&] { Coordinator::restore(recipe, 2, first.state()); });
  }
}

// Each field that decides about results, changed alone, is named.
TEST(Restore, RefusesAnotherRecipeAndNamesEachDifference) {
  struct Change {
    const char* words;
    std::function<void(Recipe&)> apply;
  };
  const Change changes[] = {
      {"run.seed was 7 and is 8", [](Recipe& r) { r.seed = 8; }},
      {"data.samples_per_epoch was 1000 and is 1001",
       [](Recipe& r) { r.samples_per_epoch = 1001; }},
      {"batch.global was 64 and is 32", [](Recipe& r) { r.global_batch = 32; }},
      {"batch.reference was 16 and is 64", [](Recipe& r) { r.reference_batch = 64; }},
      {"optimizer.lr was 0.0002 and is 0.0003", [](Recipe& r) { r.lr = 3e-4; }},
      {"optimizer.lr", [](Recipe& r) { r.lr = std::nextafter(2e-4, 1); }},
      {"optimizer.beta1", [](Recipe& r) { r.beta1 = 0.8; }},
      {"optimizer.beta2", [](Recipe& r) { r.beta2 = 0.99; }},
      {"optimizer.eps", [](Recipe& r) { r.eps = 1e-6; }},
      {"optimizer.weight_decay", [](Recipe& r) { r.weight_decay = 0.1; }},
      {"scale.rule was \"sqrt\" and is \"linear\"", [](Recipe& r) { r.rule = ScaleRule::kLinear; }},
      {"scale.power", [](Recipe& r) { r.power = 0.6; }},
      {"scale.betas", [](Recipe& r) { r.scale_betas = true; }},
      {"scale.eps", [](Recipe& r) { r.scale_eps = true; }},
      {"scale.weight_decay", [](Recipe& r) { r.scale_weight_decay = true; }},
      {"schedule.name was \"cosine\" and is \"wsd\"",
       [](Recipe& r) { r.schedule = ScheduleKind::kWsd; }},
      {"schedule.warmup_samples", [](Recipe& r) { r.warmup_samples = 301; }},
      {"schedule.decay_samples", [](Recipe& r) { r.decay_samples = 1; }},
      {"schedule.floor", [](Recipe& r) { r.floor = 0.1; }},
      {"early_stop.patience", [](Recipe& r) { r.patience = 3; }},
      {"early_stop.min_delta", [](Recipe& r) { r.min_delta = 0.1; }},
      {"divergence.z", [](Recipe& r) { r.divergence_z = 9; }},
      {"divergence.patience", [](Recipe& r) { r.divergence_patience = 9; }},
      {"divergence.max_skipped_in_row", [](Recipe& r) { r.max_skipped_in_row = 9; }},
  };
  Coordinator first(small_recipe(), 2);
  advance(first, 10);
  for (const Change& change : changes) {
    Recipe recipe = small_recipe();
    change.apply(recipe);
    expect_error(ExitCode::kBadConfig, {"another recipe", change.words, "run.output_dir"},
                 [&] { Coordinator::restore(recipe, 2, first.state()); });
  }
  Recipe recipe = small_recipe();
  recipe.lr = 1;
  recipe.seed = 1;
  expect_error(ExitCode::kBadConfig, {"run.seed was 7", "optimizer.lr was"},
               [&] { Coordinator::restore(recipe, 2, first.state()); });
  recipe = small_recipe();
  recipe.leaf_size = 5;
  expect_error(ExitCode::kBadConfig, {"does not divide"},
               [&] { Coordinator::restore(recipe, 2, first.state()); });
}

// I6: a rate that does not follow from the recipe, even by its last bit.
TEST(Restore, ComputesTheLastRateAgain) {
  Coordinator first(small_recipe(), 2);
  advance(first, 10);
  for (const char* key : {"lr", "lr_multiplier", "beta1", "beta2", "eps", "weight_decay"}) {
    Json state = Json::parse(first.state());
    const double value = state["last_step"][key];
    state["last_step"][key] = std::nextafter(value, 1.5);
    expect_error(ExitCode::kBadInput, {key, "of step 10", "earlier checkpoint"},
                 [&] { Coordinator::restore(small_recipe(), 2, state.dump()); });
  }
}

TEST(Restore, RefusesDamagedStates) {
  Coordinator first(small_recipe(), 2);
  advance(first, 10);
  const Json good = Json::parse(first.state());
  const auto refuse = [&](const char* words, const std::function<void(Json&)>& change) {
    Json state = good;
    change(state);
    expect_error(ExitCode::kBadInput, {words},
                 [&] { Coordinator::restore(small_recipe(), 2, state.dump()); });
  };
  refuse("another kind", [](Json& s) { s["format"] = "x"; });
  refuse("version 2, this program reads version 1", [](Json& s) { s["version"] = 2; });
  refuse("clock stands at", [](Json& s) { s["clock"]["samples"] = 641; });
  refuse("clock stands at step -1", [](Json& s) { s["clock"]["steps"] = -1; });
  refuse("clock stands at step 0", [](Json& s) { s["clock"]["steps"] = 0; });
  refuse("clock stands at step 10", [](Json& s) { s["last_step"] = nullptr; });
  refuse("begins at sample -64", [](Json& s) { s["last_step"]["first_position"] = -64; });
  refuse("begins at sample 3000", [](Json& s) { s["last_step"]["first_position"] = 3000; });
  refuse("damaged", [](Json& s) { s["last_step"]["lr"] = "fast"; });
  refuse("hexadecimal", [](Json& s) { s["log"]["chain"] = "zz"; });
  // Each member that is missing, at each level, but for what came later than the first states.
  const std::set<std::string> later = {"events", "advice"};
  for (const auto& [key, value] : good.items()) {
    refuse("damaged", [&key = key](Json& s) { s.erase(key); });
    if (value.is_object()) {
      for (const auto& [inner, unused] : value.items()) {
        if (later.contains(inner)) {
          continue;
        }
        refuse("damaged", [&key = key, &inner = inner](Json& s) { s[key].erase(inner); });
      }
    }
  }
  const std::string text = first.state();
  for (std::size_t length = 0; length < text.size(); length += 7) {
    expect_error(ExitCode::kBadInput, {"damaged"},
                 [&] { Coordinator::restore(small_recipe(), 2, text.substr(0, length)); });
  }
}

TEST(Restore, TheStateReadsBackToTheSameBytes) {
  Coordinator first(every_kind(ScheduleKind::kCosine), 4);
  run_to(first, 30);
  Coordinator second = Coordinator::restore(every_kind(ScheduleKind::kCosine), 4, first.state());
  Json before = Json::parse(first.state());
  Json after = Json::parse(second.state());
  before.erase("log");  // has one entry more: "resume"
  after.erase("log");
  EXPECT_EQ(before.dump(), after.dump());
}

TEST(StateHash, IsOfTheRecipeAndTheFactsAlone) {
  Coordinator one(small_recipe(), 1);
  Recipe other = small_recipe();
  other.leaf_size = 64;
  other.budget_minutes = 1000;
  Coordinator many(other, 1000);
  for (std::int64_t step = 1; step <= 30; ++step) {
    ASSERT_EQ(one.state_hash(), many.state_hash());
    one.on_step(facts_of(step));
    StepFacts slower = facts_of(step);
    slower.elapsed_minutes *= 3;
    many.on_step(slower);
  }
  EXPECT_EQ(one.state_hash(), many.state_hash());
  StepFacts facts = facts_of(31);
  one.on_step(facts);
  facts.loss = std::nextafter(facts.loss, 2);
  many.on_step(facts);
  EXPECT_NE(one.state_hash(), many.state_hash());
}

}  // namespace
}  // namespace lorascale::coordinator
