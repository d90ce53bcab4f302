#include <limits>

#include "batch_support.hpp"
#include "coordinator/batch/batch_controller.hpp"
#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/plan_report.hpp"
#include "coordinator/rates/schedule.hpp"

namespace lorascale::coordinator {
namespace {

using testing::facts_of;
using testing::growing_recipe;
using ::testing::HasSubstr;

std::optional<BatchWish> wish_of(BatchPolicyKind kind, const Recipe& recipe, std::int64_t samples,
                                 std::int64_t batch, const CriticalBatch& noise = {}) {
  const BatchState state{batch, 0, 0, 0};
  Recipe patient = recipe;
  patient.batch_dwell_samples = 0;
  return make_batch_policy(kind)->wish(
      {recipe, samples, batch, *batch_reach(patient, state, samples), {2, LeafSizer(4)}, noise});
}

TEST(BatchPolicies, NamesAreThoseOfTheConfig) {
  EXPECT_EQ(name_of(BatchPolicyKind::kFixed), "fixed");
  EXPECT_EQ(name_of(BatchPolicyKind::kRamp), "ramp");
  EXPECT_EQ(name_of(BatchPolicyKind::kNoiseScale), "noise-scale");
  EXPECT_EQ(name_of(BatchPolicyKind::kSeesaw), "seesaw");
  EXPECT_EQ(name_of(BatchPolicyKind::kGoodput), "goodput");
}

TEST(BatchPolicies, FixedStays) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kFixed);
  recipe.surge_cap = true;
  EXPECT_FALSE(wish_of(BatchPolicyKind::kFixed, recipe, 5000, 32, {1e6, 0, true}));
  Coordinator coordinator(recipe, 2);
  while (const auto plan = coordinator.next_step()) {
    ASSERT_EQ(coordinator.batch(), 32);
    coordinator.on_step(testing::timed_facts(*plan, 2, testing::true_times()));
  }
  EXPECT_TRUE(testing::of_kind(coordinator.take_decisions(), "batch").empty());
}

// B = 32 + 8 floor(28 n / 9000): increment i begins at the first sample n with 28 n >= 9000 i.
TEST(BatchPolicies, RampGoesUpInEqualIncrements) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kRamp);
  for (std::int64_t n = 0; n < 15000; ++n) {
    std::int64_t increments = 0;
    while (increments < 28 && 28 * n >= 9000 * (increments + 1)) {
      ++increments;
    }
    const auto wish = wish_of(BatchPolicyKind::kRamp, recipe, n, 32);
    ASSERT_EQ(wish ? wish->batch : 32, 32 + 8 * increments) << n;
  }
  // In a run: each update has the batch of the ramp at its first sample, so long as that is not
  // more than twice the batch before.
  recipe.batch_dwell_samples = 0;
  Coordinator coordinator(recipe, 2);
  while (const auto plan = coordinator.next_step()) {
    const std::int64_t passed = std::min<std::int64_t>(28, 28 * plan->first_position / 9000);
    ASSERT_EQ(coordinator.batch(), 32 + 8 * passed);
    coordinator.on_step(facts_of(plan->step));
  }
  EXPECT_EQ(coordinator.batch(), 256);
}

TEST(BatchPolicies, NoiseScaleFollowsTheCriticalBatchUpwards) {
  const Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  const auto wanted = [&](const CriticalBatch& noise, std::int64_t batch = 64) {
    const auto wish = wish_of(BatchPolicyKind::kNoiseScale, recipe, 5000, batch, noise);
    return wish ? wish->batch : batch;
  };
  EXPECT_EQ(wanted({100.9, 0.1, true}), 100);
  EXPECT_EQ(wanted({63, 0.1, true}), 64);  // never down
  EXPECT_EQ(wanted({1e300, 0.1, true}), std::int64_t{1} << 53);
  EXPECT_EQ(wanted({100, 0.1, false}), 64);
  EXPECT_EQ(wanted({100, 0.25, true}), 64);  // I10: known too badly
  EXPECT_EQ(wanted({100, 0.2499, true}), 100);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(wanted({nan, 0.1, true}), 64);
  EXPECT_EQ(wanted({100, nan, true}), 64);
  EXPECT_EQ(wanted({std::numeric_limits<double>::infinity(), 0.1, true}), 64);
  EXPECT_EQ(wanted({-100, 0.1, true}), 64);
  Recipe half = recipe;
  half.critical_fraction = 0.5;
  EXPECT_EQ(wish_of(BatchPolicyKind::kNoiseScale, half, 5000, 64, {180, 0.1, true})->batch, 90);
}

// A reading that jumps: the batch follows by doubling, one dwell at a time, and stays when the
// reading falls or is lost.
TEST(BatchPolicies, NoiseScaleInARun) {
  const Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  BatchController controller(recipe);
  DecisionLog log;
  std::vector<std::int64_t> batches;
  StepPlan plan;
  for (std::int64_t n = 100; n <= 3000; n += 100) {
    plan.first_position = n - 100;
    plan.samples = 100;
    plan.leaf_size = 4;
    const CriticalBatch noise{n <= 1500 ? 200.0 : 40.0, 0.1, n != 1000};
    controller.on_step(plan, facts_of(++plan.step), 2);
    controller.decide(recipe, plan, {2, LeafSizer(recipe.leaf_size)}, noise, log);
    if (batches.empty() || batches.back() != controller.state().batch) {
      batches.push_back(controller.state().batch);
    }
  }
  EXPECT_EQ(batches, (std::vector<std::int64_t>{32, 64, 128}));
  const auto decisions = log.take();
  ASSERT_EQ(decisions.size(), 2U);
  EXPECT_EQ(decisions[0].samples, 500);
  EXPECT_EQ(decisions[1].samples, 1100);  // 1000 had no reading
  EXPECT_THAT(decisions[0].reason, HasSubstr("batch 32 -> 64 from update 6 on: the critical batch "
                                             "is 200 +- 10 %, and 1 of it may be used, at most "
                                             "doubled at a time; the rate goes from a factor of "
                                             "1.41421 to 2 over 700 samples"));
  const Json inputs = Json::parse(decisions[0].inputs);
  EXPECT_EQ(inputs.at("effective_step"), 6);
  EXPECT_EQ(inputs.at("wanted"), 200);
  EXPECT_EQ(inputs.at("policy_inputs").at("critical_batch"), 200);
  EXPECT_EQ(inputs.at("leaves"), 16);
}

Recipe seesaw_recipe(ScheduleKind schedule, ScaleRule rule) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kSeesaw);
  recipe.schedule = schedule;
  recipe.rule = rule;
  recipe.samples_per_epoch = recipe.budget_samples = 1 << 20;
  recipe.warmup_samples = 0;
  recipe.batch_dwell_samples = 0;
  recipe.ramp_samples = 0;
  recipe.batch_max = 0;
  recipe.batch_min_steps = 0;
  return recipe;
}

// Linear decay: at sample n the batch is 32 * 2^j with the largest j that has 2^j (N - n) <= N.
// The linear rule's rate per sample, lr / B, and the sqrt rule's, lr / sqrt(B), are those of the
// schedule without seesaw at every update.
TEST(BatchPolicies, SeesawDoublesWhereTheScheduleHalves) {
  for (const ScaleRule rule : {ScaleRule::kSqrt, ScaleRule::kLinear}) {
    const Recipe recipe = seesaw_recipe(ScheduleKind::kLinear, rule);
    const double exponent = rule == ScaleRule::kSqrt ? 0.5 : 1;
    const double first = recipe.lr * std::pow(2, exponent);  // k = 32 / 16
    Coordinator coordinator(recipe, 4);
    std::int64_t doublings = 0;
    while (const auto plan = coordinator.next_step()) {
      const std::int64_t left = recipe.budget_samples - plan->first_position;
      std::int64_t expected = 32;
      while (expected / 32 * 2 * left <= recipe.budget_samples) {
        expected *= 2;
      }
      // Near the end half a rest is less than an update: one doubling at a time.
      if (plan->samples == coordinator.batch() && left > 1 << 12) {
        ASSERT_EQ(coordinator.batch(), expected) << plan->first_position;
        const double schedule =
            static_cast<double>(left) / static_cast<double>(recipe.budget_samples);
        const double growth = std::pow(static_cast<double>(coordinator.batch()) / 32, exponent);
        ASSERT_NEAR(plan->lr / growth / (first * schedule), 1, 1e-12);
        if (expected != 32 << doublings) {  // from doubling to doubling: 1 / sqrt(2), or constant
          ++doublings;
          ASSERT_NEAR(plan->lr / first, std::pow(2, -doublings * (1 - exponent)), 2e-2);
        }
      }
      coordinator.on_step(facts_of(plan->step));
    }
    EXPECT_GE(doublings, 7);
  }
}

// Intervals of N / 2^(j+1) samples in updates of 2^j B: N / (2 B) (1 + 1/4 + 1/16 + ...) = 2/3 of
// the updates. For cosine the sum over acos(1 - 2 / 2^j) / pi is 0.6225: 38 % fewer, near the 36 %
// that the paper reports.
TEST(BatchPolicies, SeesawSavesAThirdOfTheUpdates) {
  const auto share = [](ScheduleKind schedule) {
    const Recipe recipe = seesaw_recipe(schedule, ScaleRule::kSqrt);
    Coordinator coordinator(recipe, 4);
    testing::advance(coordinator, 1 << 20);
    EXPECT_EQ(coordinator.samples_seen(), 1 << 20);
    return static_cast<double>(coordinator.steps_done()) / ((1 << 20) / 32.0);
  };
  EXPECT_NEAR(share(ScheduleKind::kLinear), 2.0 / 3, 2e-3);
  double cosine = 0;
  double begin = 0;
  for (int j = 0; j < 30; ++j) {
    const double end = std::acos(2 * std::pow(0.5, j + 1) - 1) / std::acos(-1.0);
    cosine += (end - begin) / std::pow(2, j);
    begin = end;
  }
  EXPECT_NEAR(cosine, 0.62, 0.01);
  EXPECT_NEAR(share(ScheduleKind::kCosine), cosine, 2e-3);
}

TEST(BatchPolicies, SeesawWaitsForTheEndOfTheWarmup) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kSeesaw);
  for (std::int64_t n = 0; n < recipe.budget_samples; n += 50) {
    const auto wish = wish_of(BatchPolicyKind::kSeesaw, recipe, n, 32);
    ASSERT_EQ(wish.has_value(),
              n >= recipe.warmup_samples && schedule_multiplier(recipe, n, 1) <= 0.5)
        << n;
  }
}

TEST(BatchPolicies, ThePlanTellsWhatTheBatchWillDo) {
  const auto text = [](BatchPolicyKind policy) {
    return make_plan_report(growing_recipe(policy), 2).reason;
  };
  EXPECT_THAT(text(BatchPolicyKind::kRamp),
              HasSubstr("batch policy ramp: the batch grows from 32 to 256 in 28 increments over "
                        "the first 9000 samples, never above 256 (batch.max 256), in whole "
                        "increments of 8, at most doubled at a time and 500 samples apart; the "
                        "rate follows over 700 samples"));
  EXPECT_THAT(text(BatchPolicyKind::kNoiseScale), HasSubstr("given critical batch of 1000"));
  EXPECT_THAT(text(BatchPolicyKind::kSeesaw), HasSubstr("each time schedule cosine has halved"));
  EXPECT_THAT(text(BatchPolicyKind::kGoodput), HasSubstr("two runs may choose differently"));
  EXPECT_THAT(text(BatchPolicyKind::kFixed), ::testing::Not(HasSubstr("batch policy")));
  const Json plan =
      make_plan_report(growing_recipe(BatchPolicyKind::kGoodput), 2).inputs.at("plan");
  EXPECT_EQ(plan.at("largest_batch"), 256);
  EXPECT_EQ(plan.at("smallest_batch"), 32);
}

}  // namespace
}  // namespace lorascale::coordinator
