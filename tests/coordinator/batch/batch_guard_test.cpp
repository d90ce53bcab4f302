#include "coordinator/batch/batch_guard.hpp"

#include <limits>

#include "batch_support.hpp"
#include "coordinator/batch/batch_controller.hpp"
#include "coordinator/batch/factorise.hpp"
#include "coordinator/recipe_check.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

using testing::advice;
using testing::growing_recipe;
using testing::uniform;

TEST(BatchGuard, LargestBatchIsTheTightestLimit) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  EXPECT_EQ(largest_batch(recipe).batch, 256);
  EXPECT_EQ(largest_batch(recipe).reason, "batch.max 256");
  recipe.batch_max = 0;
  EXPECT_EQ(largest_batch(recipe).batch, 15009 / 50 / 8 * 8);  // 300 -> 296
  EXPECT_THAT(largest_batch(recipe).reason, ::testing::HasSubstr("batch.min_steps 50"));
  recipe.batch_min_steps = 0;
  EXPECT_EQ(largest_batch(recipe).batch, 5000);
  EXPECT_THAT(largest_batch(recipe).reason, ::testing::HasSubstr("an epoch of 5003"));
  recipe.batch_increment = 0;  // then whole multiples of batch.global
  EXPECT_EQ(largest_batch(recipe).batch, 5003 / 32 * 32);
  recipe.batch_min_steps = 1000;  // 15 samples: below what the run begins with
  EXPECT_EQ(largest_batch(recipe).batch, 32);
  recipe.batch_policy = BatchPolicyKind::kFixed;
  EXPECT_EQ(largest_batch(recipe).batch, 32);
}

TEST(BatchGuard, GrantsTheNearestWithinReach) {
  const Recipe recipe = growing_recipe(BatchPolicyKind::kGoodput);
  const BatchState at64{64, 1000, 1, 0};
  EXPECT_FALSE(batch_reach(recipe, at64, 1499));  // dwells 500 samples
  const BatchReach reach = *batch_reach(recipe, at64, 1500);
  EXPECT_EQ(reach.least, 32);
  EXPECT_EQ(reach.most, 128);
  EXPECT_EQ(grant(recipe, at64, reach, 96)->batch, 96);
  EXPECT_EQ(grant(recipe, at64, reach, 96)->limit, "");
  EXPECT_EQ(grant(recipe, at64, reach, 103)->batch, 96);
  EXPECT_EQ(grant(recipe, at64, reach, 103)->limit, "in whole increments of 8");
  EXPECT_EQ(grant(recipe, at64, reach, 500)->batch, 128);
  EXPECT_EQ(grant(recipe, at64, reach, 500)->limit, "at most doubled at a time");
  EXPECT_EQ(grant(recipe, at64, reach, 1)->batch, 32);
  EXPECT_EQ(grant(recipe, at64, reach, 1)->limit, "limited by the smallest batch of 32");
  EXPECT_FALSE(grant(recipe, at64, reach, 71));  // less than an increment more
  EXPECT_FALSE(grant(recipe, at64, reach, 57));
  const BatchState at200{200, 0, 0, 0};
  const BatchReach high = *batch_reach(recipe, at200, 1500);
  EXPECT_EQ(high.most, 256);
  EXPECT_EQ(grant(recipe, at200, high, 1000)->limit, "limited by batch.max 256");
  EXPECT_EQ(high.least, 104);  // the least multiple of 8 that is at least half
  EXPECT_EQ(grant(recipe, at200, high, 8)->limit, "at most halved at a time");
}

// Wants anything at any time.
class Wild : public BatchPolicy {
 public:
  explicit Wild(std::uint64_t seed) : seed_(seed) {}
  std::optional<BatchWish> wish(const BatchContext& context) override {
    const double draw = uniform(seed_, ++asked_);
    std::int64_t batch = static_cast<std::int64_t>(4.0 * static_cast<double>(context.batch) * draw);
    if (draw < 0.05) {
      batch = std::numeric_limits<std::int64_t>::max();
    } else if (draw < 0.1) {
      batch = std::numeric_limits<std::int64_t>::min();
    } else if (draw < 0.3) {
      return std::nullopt;
    }
    return BatchWish{batch, "dice", {{"draw", draw}}};
  }
  [[nodiscard]] std::string describe(const Recipe&) const override { return "wild"; }

 private:
  std::uint64_t seed_ = 0;
  std::uint64_t asked_ = 0;
};

Recipe random_recipe(std::uint64_t seed) {
  const auto among = [&](std::uint64_t index, std::int64_t low, std::int64_t high) {
    return low +
           static_cast<std::int64_t>(uniform(seed, index) * static_cast<double>(high - low + 1));
  };
  Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  recipe.leaf_size = among(1, 1, 4);
  recipe.batch_increment = recipe.leaf_size * among(2, 1, 5);
  recipe.global_batch = recipe.batch_increment * among(3, 1, 10);
  recipe.batch_min = among(4, 0, 1) * among(5, 1, recipe.global_batch);
  recipe.batch_max = among(6, 0, 1) * among(7, recipe.global_batch, 3000);
  recipe.batch_dwell_samples = among(8, 0, 1) * among(9, 1, 3000);
  recipe.batch_min_steps = among(10, 0, 200);
  recipe.samples_per_epoch = among(11, 2000, 30000);
  recipe.budget_samples = among(12, 20000, 60000);
  recipe.ramp_samples = among(13, 0, 2000);
  return recipe;
}

// I9 for every decision, I1 for every update, over random recipes and wishes.
TEST(BatchGuard, I9HoldsWhateverAPolicyWants) {
  std::int64_t changes = 0;
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    const Recipe recipe = random_recipe(seed);
    ASSERT_TRUE(contradictions(recipe, 3).empty()) << contradictions(recipe, 3)[0];
    BatchController controller(recipe, std::make_unique<Wild>(seed));
    DecisionLog log;
    std::int64_t position = 0;
    std::int64_t changed_at = 0;
    std::int64_t logged = 0;
    for (std::int64_t step = 1; position < recipe.budget_samples; ++step) {
      const std::int64_t batch = controller.state().batch;
      const StepPlan plan = plan_step(recipe, controller.state(), step, position);
      ASSERT_LE(plan.samples, batch);
      std::int64_t owned = 0;  // I1
      for (int rank = 0; rank < 7; ++rank) {
        const LeafRange range = leaves_of_rank(plan.leaves, rank, 7);
        ASSERT_EQ(range.begin, owned);
        owned = range.end;
      }
      ASSERT_EQ(owned, plan.leaves);
      ASSERT_EQ((plan.samples + recipe.leaf_size - 1) / recipe.leaf_size, plan.leaves);
      position += plan.samples;
      StepFacts facts;
      facts.step = step;
      controller.on_step(plan, facts, 7);
      controller.decide(recipe, plan, {7, LeafSizer(recipe.leaf_size)}, {}, log);
      const auto decisions = log.take();
      const std::int64_t next = controller.state().batch;
      ASSERT_EQ(decisions.size(), next == batch ? 0U : 1U);  // never silently
      if (next == batch) {
        continue;
      }
      ++changes;
      ++logged;
      ASSERT_EQ(decisions[0].kind, "batch");
      ASSERT_EQ(decisions[0].step, step + 1);
      ASSERT_GE(position - changed_at, recipe.batch_dwell_samples);
      changed_at = position;
      ASSERT_EQ(next % recipe.batch_increment, 0);
      ASSERT_EQ(next % recipe.leaf_size, 0);
      ASSERT_LE(next, 2 * batch);
      ASSERT_GE(2 * next, batch);
      ASSERT_GE(next, recipe.batch_min > 0 ? recipe.batch_min : recipe.global_batch);
      if (next > batch) {
        ASSERT_TRUE(recipe.batch_max == 0 || next <= recipe.batch_max);
        ASSERT_LE(next * recipe.batch_min_steps, recipe.budget_samples);
        ASSERT_LE(next, recipe.samples_per_epoch);
      }
      for (const int ranks : {1, 3, 64}) {
        ASSERT_EQ(factorise_by_leaf(next, ranks, recipe.leaf_size).global_batch, next);
      }
    }
    ASSERT_EQ(log.sequence(), logged);
  }
  EXPECT_GT(changes, 1000);
}

TEST(BatchGuard, NamesContradictions) {
  const auto refused = [](const char* words, const std::function<void(Recipe&)>& change,
                          BatchPolicyKind policy = BatchPolicyKind::kNoiseScale) {
    Recipe recipe = growing_recipe(policy);
    change(recipe);
    const auto lines = contradictions(recipe, 2);
    ASSERT_EQ(lines.size(), 1U) << words;
    EXPECT_THAT(lines[0], ::testing::HasSubstr(words));
  };
  refused("batch.increment 12 does not divide batch.global 32",
          [](Recipe& r) { r.batch_increment = 12; });
  refused("batch.micro 16 does not divide batch.increment 8", [](Recipe& r) { r.leaf_size = 16; });
  refused("batch.min 33 is more than batch.global 32", [](Recipe& r) { r.batch_min = 33; });
  refused("batch.max 31 is less than batch.global 32", [](Recipe& r) { r.batch_max = 31; });
  refused("batch.min is -1", [](Recipe& r) { r.batch_min = -1; });
  refused("batch.dwell in samples is -1", [](Recipe& r) { r.batch_dwell_samples = -1; });
  refused("batch.critical is nan", [](Recipe& r) { r.critical_batch = std::nan(""); });
  refused("batch.critical_fraction is 0", [](Recipe& r) { r.critical_fraction = 0; });
  refused("scale.ramp in samples is -5", [](Recipe& r) { r.ramp_samples = -5; });
  refused(
      "batch.policy ramp grows to batch.max, which is not set", [](Recipe& r) { r.batch_max = 0; },
      BatchPolicyKind::kRamp);
  refused(
      "use batch.max 256", [](Recipe& r) { r.batch_max = 260; }, BatchPolicyKind::kRamp);
  refused(
      "batch.ramp is 0", [](Recipe& r) { r.batch_ramp_samples = 0; }, BatchPolicyKind::kRamp);
  refused(
      "batch.min_steps 100 allows 144", [](Recipe& r) { r.batch_min_steps = 100; },
      BatchPolicyKind::kRamp);
  refused(
      "which this one never does", [](Recipe& r) { r.schedule = ScheduleKind::kConstant; },
      BatchPolicyKind::kSeesaw);
  refused(
      "which this one never does", [](Recipe& r) { r.floor = 0.6; }, BatchPolicyKind::kSeesaw);
  refused(
      "through scale.rule, which is none", [](Recipe& r) { r.rule = ScaleRule::kNone; },
      BatchPolicyKind::kSeesaw);
  refused("give batch.critical", [](Recipe& r) {
    r.batch_policy = BatchPolicyKind::kFixed;
    r.surge_cap = true;
    r.critical_batch = 0;
  });
  // The betas must scale as far as the batch may go: 256 / 16 (1 - 0.9) is 1.6.
  refused("use batch.max 159 or less", [](Recipe& r) { r.scale_betas = true; });
}

TEST(BatchGuard, AdvisesWhereThereIsNoRoom) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  recipe.batch_min_steps = 1000;
  EXPECT_THAT(advice(recipe, 2), ::testing::Contains(::testing::HasSubstr(
                                     "noise-scale cannot grow batch.global 32: a budget of 15009 "
                                     "samples in batch.min_steps 1000 allows no more")));
}

}  // namespace
}  // namespace lorascale::coordinator
