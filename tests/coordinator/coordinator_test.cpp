#include "coordinator/coordinator.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/rng.hpp"
#include "coordinator/rates/scaling.hpp"
#include "coordinator/rates/schedule.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::advance;
using ::testing::ElementsAre;
using testing::facts_of;
using ::testing::HasSubstr;
using testing::of_kind;
using testing::small_recipe;

// Every update in order covers the run exactly once, within epochs, with rates of its own true
// size.
void check_whole_run(const Recipe& recipe) {
  Coordinator coordinator(recipe, 3);
  const std::int64_t expected = coordinator.steps_expected();
  std::int64_t position = 0;
  std::int64_t step = 0;
  while (const auto plan = coordinator.next_step()) {
    ASSERT_EQ(plan->step, step + 1);
    ASSERT_EQ(plan->first_position, position);
    ASSERT_GE(plan->samples, 1);
    const std::int64_t last = position + plan->samples - 1;
    ASSERT_EQ(position / recipe.samples_per_epoch, last / recipe.samples_per_epoch);
    ASSERT_LT(last, recipe.budget_samples);
    if (plan->samples < recipe.global_batch) {  // only where an epoch or the budget ends
      ASSERT_TRUE((last + 1) % recipe.samples_per_epoch == 0 || last + 1 == recipe.budget_samples);
    }
    ASSERT_LE(plan->samples, recipe.global_batch);
    ASSERT_EQ(plan->leaf_size, recipe.leaf_size);
    ASSERT_GE(plan->leaves * plan->leaf_size, plan->samples);
    ASSERT_LT((plan->leaves - 1) * plan->leaf_size, plan->samples);
    const ScaledRates rates = scaled_rates(recipe, plan->samples);
    ASSERT_EQ(plan->lr_multiplier, rates.multiplier);
    ASSERT_EQ(plan->lr,
              recipe.lr * rates.multiplier * schedule_multiplier(recipe, position, plan->samples));
    ASSERT_EQ(plan->weight_decay, rates.weight_decay);
    ASSERT_DOUBLE_EQ(plan->epoch,
                     static_cast<double>(position) / static_cast<double>(recipe.samples_per_epoch));
    ASSERT_EQ(coordinator.steps_expected(), expected);
    StepFacts facts;
    facts.step = plan->step;
    facts.loss = 1;
    coordinator.on_step(facts);
    position += plan->samples;
    step = plan->step;
    ASSERT_EQ(coordinator.samples_seen(), position);
    ASSERT_EQ(coordinator.steps_done(), step);
  }
  EXPECT_EQ(position, recipe.budget_samples);
  EXPECT_EQ(step, expected);
  EXPECT_EQ(coordinator.steps_expected(), step);
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kBudget);
}

TEST(Coordinator, EveryUpdateOfSmallRuns) {
  for (std::int64_t epoch = 1; epoch <= 12; ++epoch) {
    for (std::int64_t batch = 1; batch <= 14; ++batch) {
      for (std::int64_t budget = 1; budget <= 30; ++budget) {
        Recipe recipe = small_recipe();
        recipe.samples_per_epoch = epoch;
        recipe.global_batch = batch;
        recipe.budget_samples = budget;
        recipe.warmup_samples = budget / 3;
        recipe.leaf_size = batch % 2 == 0 ? 2 : 1;
        check_whole_run(recipe);
        if (HasFatalFailure()) {
          FAIL() << epoch << " " << batch << " " << budget;
        }
      }
    }
  }
}

TEST(Coordinator, RatesOfWholeAndShortUpdates) {
  Recipe recipe = small_recipe();
  recipe.schedule = ScheduleKind::kConstant;
  recipe.warmup_samples = 0;
  Coordinator coordinator(recipe, 1);
  EXPECT_EQ(coordinator.next_step()->lr, 2e-4 * 2);  // sqrt(64/16)
  advance(coordinator, 15);
  const auto tail = coordinator.next_step();
  EXPECT_EQ(tail->samples, 40);
  EXPECT_EQ(tail->leaves, 10);
  EXPECT_EQ(tail->lr, 2e-4 * std::sqrt(40.0 / 16.0));
  advance(coordinator, 1);
  EXPECT_EQ(coordinator.next_step()->samples, 64);
  EXPECT_EQ(coordinator.next_step()->epoch, 1.0);
}

TEST(Coordinator, ShortLastLeafIsCounted) {
  Recipe recipe = small_recipe();
  recipe.samples_per_epoch = 67;
  Coordinator coordinator(recipe, 1);
  advance(coordinator, 1);
  EXPECT_EQ(coordinator.next_step()->samples, 3);
  EXPECT_EQ(coordinator.next_step()->leaves, 1);
}

TEST(Coordinator, HugeRunsDoNotOverflow) {
  Recipe recipe = small_recipe();
  recipe.samples_per_epoch = std::numeric_limits<std::int64_t>::max();
  recipe.budget_samples = std::numeric_limits<std::int64_t>::max();
  Coordinator coordinator(recipe, 1024);
  EXPECT_EQ(coordinator.steps_expected(), std::numeric_limits<std::int64_t>::max() / 64 + 1);
  recipe.samples_per_epoch = 1000;
  EXPECT_GT(Coordinator(recipe, 1024).steps_expected(),
            std::numeric_limits<std::int64_t>::max() / 64);
}

TEST(Coordinator, LogsThePlanFirst) {
  Coordinator coordinator(small_recipe(), 8);
  const auto decisions = coordinator.take_decisions();
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].sequence, 1);
  EXPECT_EQ(decisions[0].kind, "plan");
  EXPECT_THAT(decisions[0].reason, HasSubstr("48 steps over 3000 samples"));
  EXPECT_EQ(nlohmann::json::parse(decisions[0].inputs).at("recipe").at("batch.global"), 64);
  EXPECT_TRUE(coordinator.take_decisions().empty());
}

TEST(Coordinator, LogsTheFirstShortUpdateOnceAndTheEnd) {
  Coordinator coordinator(small_recipe(), 8);
  coordinator.take_decisions();
  advance(coordinator, 14);
  EXPECT_TRUE(coordinator.take_decisions().empty());
  advance(coordinator, 1);
  const auto before_tail = coordinator.take_decisions();
  ASSERT_EQ(before_tail.size(), 1U);
  EXPECT_EQ(before_tail[0].kind, "lr");
  EXPECT_EQ(before_tail[0].step, 16);
  EXPECT_EQ(before_tail[0].samples, 960);
  EXPECT_THAT(before_tail[0].reason, HasSubstr("the last 40 samples of the epoch instead of 64"));
  EXPECT_THAT(before_tail[0].reason, HasSubstr("k = 40/16 = 2.5"));
  advance(coordinator, 1000);
  const auto rest = coordinator.take_decisions();
  ASSERT_EQ(rest.size(), 1U);
  EXPECT_EQ(rest[0].kind, "budget");
  EXPECT_EQ(rest[0].step, 48);
  EXPECT_EQ(rest[0].samples, 3000);
}

TEST(Coordinator, SaysNothingOfShortUpdatesThatChangeNoRate) {
  Recipe recipe = small_recipe();
  recipe.rule = ScaleRule::kNone;
  Coordinator coordinator(recipe, 8);
  advance(coordinator, 1000);
  EXPECT_TRUE(of_kind(coordinator.take_decisions(), "lr").empty());
  recipe.scale_eps = true;  // a companion alone is enough
  Coordinator scaled(recipe, 8);
  advance(scaled, 1000);
  EXPECT_EQ(of_kind(scaled.take_decisions(), "lr").size(), 1U);
}

// I13 as this project reads it: the samples of a skipped update are gone, so the clock counts them.
TEST(Coordinator, SkippedUpdatesConsumeTheirSamples) {
  Coordinator skipping(small_recipe(), 2);
  Coordinator whole(small_recipe(), 2);
  for (std::int64_t step = 1; step <= 20; ++step) {
    StepFacts facts = facts_of(step);
    whole.on_step(facts);
    if (step == 5 || step == 16) {
      facts.applied = false;
      facts.loss = std::numeric_limits<double>::quiet_NaN();
      facts.grad_norm = std::numeric_limits<double>::infinity();
    }
    skipping.on_step(facts);
    EXPECT_EQ(skipping.next_step()->first_position, whole.next_step()->first_position);
    EXPECT_EQ(skipping.next_step()->lr, whole.next_step()->lr);
  }
  EXPECT_EQ(skipping.steps_done(), 20);
  EXPECT_EQ(skipping.steps_skipped(), 2);
  EXPECT_EQ(skipping.samples_skipped(), 64 + 40);
  EXPECT_EQ(skipping.samples_seen(), whole.samples_seen());
  EXPECT_NE(skipping.state_hash(), whole.state_hash());
  const auto skips = of_kind(skipping.take_decisions(), "skip");
  ASSERT_EQ(skips.size(), 2U);
  EXPECT_EQ(skips[0].step, 5);
  EXPECT_THAT(skips[0].reason, HasSubstr("loss nan, gradient norm inf"));
  EXPECT_EQ(nlohmann::json::parse(skips[0].inputs).at("loss"), "nan");
  EXPECT_TRUE(of_kind(whole.take_decisions(), "skip").empty());
}

TEST(Coordinator, EndsWithTheMinutes) {
  Recipe recipe = small_recipe();
  recipe.budget_minutes = 0.1;
  Coordinator coordinator(recipe, 2);
  advance(coordinator, 9);
  EXPECT_FALSE(coordinator.stop_reason());
  advance(coordinator, 1000);  // a step takes 0.01 minutes
  EXPECT_EQ(coordinator.steps_done(), 10);
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kTime);
  EXPECT_FALSE(coordinator.next_step());
  const auto ends = of_kind(coordinator.take_decisions(), "time");
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_THAT(ends[0].reason,
              HasSubstr("0.1 minutes are used up after 10 steps and 640 samples of 3000"));
}

TEST(Coordinator, NamesNoEndInSamplesWhereThereIsNone) {
  Recipe recipe = small_recipe();
  recipe.schedule = ScheduleKind::kConstant;
  recipe.budget_samples = kNoSampleLimit;
  recipe.budget_minutes = 0.1;
  Coordinator coordinator(recipe, 2);
  advance(coordinator, 1000);
  const auto ends = of_kind(coordinator.take_decisions(), "time");
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_THAT(ends[0].reason, ::testing::EndsWith("used up after 10 steps and 640 samples"));
}

TEST(Coordinator, ASetBackClockDoesNotMakeTheRunYounger) {
  Coordinator coordinator(small_recipe(), 2);
  StepFacts facts = facts_of(1);
  facts.elapsed_minutes = 5;
  coordinator.on_step(facts);
  coordinator.on_step(facts_of(2));
  EXPECT_EQ(coordinator.elapsed_minutes(), 5);
}

// Where both would end the run in the same update, the budget is the reason: the run is complete.
TEST(Coordinator, AFinishedBudgetIsNotATimeout) {
  Recipe recipe = small_recipe();
  recipe.budget_samples = 64;
  recipe.warmup_samples = 0;
  recipe.budget_minutes = 0.001;
  Coordinator coordinator(recipe, 2);
  advance(coordinator, 1);
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kBudget);
}

TEST(CoordinatorDeathTest, RefusesFactsOfAnotherStep) {
  EXPECT_DEATH(
      {
        Coordinator coordinator(small_recipe(), 1);
        coordinator.on_step(facts_of(2));
      },
      "facts.step == plan->step");
  EXPECT_DEATH(
      {
        Coordinator coordinator(small_recipe(), 1);
        coordinator.on_evaluation({3, 1.0});
      },
      "facts.step == self.steps");
}

TEST(Coordinator, CanBeMoved) {
  Coordinator first(small_recipe(), 1);
  advance(first, 3);
  const std::uint64_t hash = first.state_hash();
  Coordinator second(std::move(first));
  EXPECT_EQ(second.state_hash(), hash);
  Coordinator third(small_recipe(), 2);
  third = std::move(second);
  EXPECT_EQ(third.state_hash(), hash);
  EXPECT_EQ(third.world_size(), 1);
}

}  // namespace
}  // namespace lorascale::coordinator
