// batch.on_resize: rescale, where a run goes on with another number of ranks.
#include <cmath>
#include <string>

#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/record/decision_log.hpp"
#include "coordinator/record/replay.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::advance;
using testing::expect_error;
using testing::facts_of;
using ::testing::HasSubstr;
using testing::of_kind;
using testing::small_recipe;

// 64 samples on 4 ranks, constant rate after the warmup, sqrt rule from 16.
Recipe following_recipe() {
  Recipe recipe = small_recipe();
  recipe.samples_per_epoch = 10000;
  recipe.budget_samples = 10000;
  recipe.schedule = ScheduleKind::kConstant;
  recipe.batch_follows_ranks = true;
  return recipe;
}

// Trained on 4 ranks for `steps`, then resumed on `ranks`.
Coordinator resumed(const Recipe& recipe, std::int64_t steps, int ranks) {
  Coordinator before(recipe, 4);
  advance(before, steps);
  before.take_decisions();
  return Coordinator::restore(recipe, ranks, before.state());
}

TEST(Resize, EachRankKeepsItsShare) {
  Recipe recipe = following_recipe();
  for (int before = 1; before <= 64; before *= 2) {
    for (int after = 1; after <= 100; ++after) {
      EXPECT_EQ(batch_on_ranks(recipe, 64, before, after), 64 / before * after);
    }
  }
  // 64 on 3 ranks has no whole share: the nearest whole batch.
  EXPECT_EQ(batch_on_ranks(recipe, 64, 3, 2), 42);
  EXPECT_EQ(batch_on_ranks(recipe, 64, 3, 5), 106);
  recipe.batch_increment = 16;
  EXPECT_EQ(batch_on_ranks(recipe, 64, 4, 3), 48);
  EXPECT_EQ(batch_on_ranks(recipe, 64, 5, 3), 32);   // of 38.4
  EXPECT_EQ(batch_on_ranks(recipe, 64, 16, 1), 16);  // never less than one increment
  recipe.batch_max = 100;
  EXPECT_EQ(batch_on_ranks(recipe, 64, 1, 8), 96);
  recipe.batch_min = 33;
  EXPECT_EQ(batch_on_ranks(recipe, 64, 8, 1), 48);
  recipe.batch_max = 0;
  recipe.samples_per_epoch = 130;
  EXPECT_EQ(batch_on_ranks(recipe, 64, 1, 8), 128);
}

TEST(Resize, RateFollowsOverTenUpdates) {
  const Recipe recipe = following_recipe();
  Coordinator run = resumed(recipe, 20, 8);
  EXPECT_EQ(run.batch(), 128);
  const auto decisions = run.take_decisions();
  ASSERT_EQ(of_kind(decisions, "batch").size(), 1U);
  EXPECT_THAT(of_kind(decisions, "batch")[0].reason,
              HasSubstr("batch 64 -> 128 from update 21 on: ranks 4 -> 8"));
  EXPECT_THAT(of_kind(decisions, "resume")[0].reason, HasSubstr("the batch follows the ranks"));
  const double old_rate = recipe.lr * std::sqrt(64.0 / 16);
  const double new_rate = recipe.lr * std::sqrt(128.0 / 16);
  for (int update = 0; update < 12; ++update) {
    const auto plan = run.next_step();
    ASSERT_EQ(plan->samples, 128);
    const double passed = std::min(1.0, update / 10.0);
    EXPECT_NEAR(plan->lr, old_rate + (new_rate - old_rate) * passed, 1e-12 * new_rate) << update;
    run.on_step(facts_of(plan->step));
  }
}

TEST(Resize, HoldKeepsWhatRescaleMadeOfIt) {
  Recipe recipe = following_recipe();
  Coordinator wide = resumed(recipe, 20, 8);
  advance(wide, 3);
  wide.take_decisions();
  recipe.batch_follows_ranks = false;
  Coordinator held = Coordinator::restore(recipe, 2, wide.state());
  EXPECT_EQ(held.batch(), 128);
  EXPECT_EQ(held.state_hash(), wide.state_hash());
  EXPECT_EQ(held.next_step()->lr, wide.next_step()->lr);
  // And a run that always held never hears of it.
  Coordinator never(recipe, 4);
  advance(never, 20);
  EXPECT_EQ(Coordinator::restore(recipe, 8, never.state()).batch(), 64);
}

TEST(Resize, SameRanksChangeNothing) {
  const Recipe recipe = following_recipe();
  Coordinator whole(recipe, 4);
  advance(whole, 40);
  Coordinator stopped = resumed(recipe, 20, 4);
  advance(stopped, 20);
  EXPECT_EQ(stopped.state_hash(), whole.state_hash());
  EXPECT_TRUE(of_kind(stopped.take_decisions(), "batch").empty());
}

TEST(Resize, ThereAndBack) {
  const Recipe recipe = following_recipe();
  Coordinator wide = resumed(recipe, 20, 8);
  advance(wide, 15);
  wide.take_decisions();
  Coordinator back = Coordinator::restore(recipe, 4, wide.state());
  EXPECT_EQ(back.batch(), 64);
  advance(back, 10);
  EXPECT_EQ(back.next_step()->lr, recipe.lr * 2);
}

TEST(Resize, ReplaysFromTheRecord) {
  const Recipe recipe = following_recipe();
  Recorder recorder(recipe);
  std::vector<RecordedEvent> events;
  Coordinator run(recipe, 4);
  const auto train = [&](int updates) {
    for (int i = 0; i < updates; ++i) {
      const StepFacts facts = facts_of(run.next_step()->step);
      run.on_step(facts);
      events.push_back(recorder.record(facts));
    }
  };
  train(20);
  run.take_decisions();
  run = Coordinator::restore(recipe, 6, run.state());
  events.push_back(recorder.record(ResumeFacts{20, 6, recipe.leaf_size, recipe.budget_samples,
                                               recipe.budget_minutes, recipe.advise, true}));
  train(9);
  const ReplayResult again = replay(recipe, 4, events);
  EXPECT_EQ(again.state, run.state());
  std::vector<RecordedEvent> read;
  for (const RecordedEvent& event : events) {
    read.push_back(event_from_json_line(to_json_line(event)));
  }
  EXPECT_EQ(replay(recipe, 4, read).state_hash, run.state_hash());
}

TEST(Resize, PoliciesGoOnFromTheNewBatch) {
  Recipe recipe = following_recipe();
  recipe.batch_policy = BatchPolicyKind::kRamp;
  recipe.batch_increment = 16;
  recipe.batch_max = 192;
  recipe.batch_min_steps = 20;
  recipe.batch_ramp_samples = 8000;
  Coordinator run = resumed(recipe, 5, 6);
  EXPECT_EQ(run.batch() % 16, 0);
  EXPECT_GT(run.batch(), 64);
  std::int64_t largest = 0;
  while (const auto plan = run.next_step()) {
    EXPECT_EQ(plan->samples % 16 == 0 || plan->first_position + plan->samples == 10000, true);
    largest = std::max(largest, plan->samples);
    run.on_step(facts_of(plan->step));
  }
  EXPECT_EQ(largest, 192);
  EXPECT_EQ(run.samples_seen(), 10000);
}

TEST(Resize, RefusesWhatCannotFollow) {
  Recipe recipe = following_recipe();
  recipe.scale_betas = true;  // beta1 0.9 scales up to k < 10
  expect_error(ExitCode::kBadConfig, {"scale.betas", "192/16"}, [&] { resumed(recipe, 20, 12); });
  recipe = following_recipe();
  recipe.rule = ScaleRule::kAdascale;
  recipe.noise_horizon_samples = 1000;
  expect_error(ExitCode::kBadConfig, {"adascale", "batch.on_resize"},
               [&] { Coordinator(recipe, 4); });
}

}  // namespace
}  // namespace lorascale::coordinator
