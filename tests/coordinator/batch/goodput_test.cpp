#include <limits>

#include "batch_support.hpp"
#include "coordinator/batch/batch_guard.hpp"

namespace lorascale::coordinator {
namespace {

using testing::growing_recipe;
using testing::timed_facts;

// The policy after `updates` updates of `batch` on `ranks` whose times are those of `truth`.
std::unique_ptr<BatchPolicy> experienced(const Recipe& recipe, std::int64_t batch, int ranks,
                                         const ThroughputParameters& truth, int updates = 10) {
  auto policy = make_batch_policy(BatchPolicyKind::kGoodput);
  StepPlan plan;
  plan.samples = batch;
  plan.leaf_size = recipe.leaf_size;
  plan.leaves = batch / recipe.leaf_size;
  for (int i = 0; i < updates; ++i) {
    ++plan.step;
    policy->observe(plan, timed_facts(plan, ranks, truth), ranks);
  }
  return policy;
}

double true_goodput(const Recipe& recipe, const ThroughputParameters& truth, double phi,
                    std::int64_t batch, int ranks) {
  const std::int64_t leaves = batch / recipe.leaf_size;
  const std::int64_t busiest = (leaves + ranks - 1) / ranks;
  const double size = static_cast<double>(batch);
  return size / step_seconds(truth, {recipe.leaf_size, busiest, ranks}) *
         (phi + static_cast<double>(recipe.reference_batch)) / (phi + size);
}

struct Case {
  Recipe recipe;
  ThroughputParameters truth;
  double phi = 0;
  int ranks = 1;
  std::int64_t batch = 0;
};

template <typename Check>
void for_many_cases(std::int64_t increment, const Check& check) {
  for (const double overhead : {0.01, 0.3, 3.0}) {
    for (const double phi : {5.0, 50.0, 400.0, 1e5}) {
      for (const int ranks : {1, 3, 8}) {
        for (const std::int64_t batch : {64, 96, 128}) {
          Case now{growing_recipe(BatchPolicyKind::kGoodput), testing::true_times(), phi, ranks,
                   batch};
          now.truth.per_update = overhead;
          now.recipe.batch_increment = now.recipe.leaf_size = increment;
          now.recipe.batch_min = increment;
          now.recipe.batch_dwell_samples = 0;
          check(now);
        }
      }
    }
  }
}

std::optional<BatchWish> wish_of(const Case& now, BatchReach& reach) {
  const auto policy = experienced(now.recipe, now.batch, now.ranks, now.truth);
  reach = *batch_reach(now.recipe, {now.batch, 0, 0, 0}, 5000);
  return policy->wish({now.recipe,
                       5000,
                       now.batch,
                       reach,
                       {now.ranks, LeafSizer(now.recipe.leaf_size)},
                       {now.phi, 0.1, true}});
}

// V22: the wish is the best of all feasible batches by the true times, found by trying each; and
// there is none where the best is not more than 1.05 times the present.
TEST(Goodput, V22ArgmaxEqualsBruteForce) {
  int switched = 0;
  int stayed = 0;
  for_many_cases(8, [&](const Case& now) {
    BatchReach reach;
    const auto wish = wish_of(now, reach);
    std::int64_t best = now.batch;
    const auto value = [&](std::int64_t batch) {
      return true_goodput(now.recipe, now.truth, now.phi, batch, now.ranks);
    };
    for (std::int64_t batch = reach.least; batch <= reach.most; batch += 8) {
      best = value(batch) > value(best) * (1 + 1e-9) ? batch : best;
    }
    const double gain = value(best) / value(now.batch);
    ASSERT_GT(std::abs(gain - 1.05), 1e-4);  // no case on the edge
    ASSERT_EQ(wish.has_value(), gain > 1.05);
    if (wish) {
      EXPECT_NEAR(value(wish->batch) / value(best), 1, 1e-6);
      EXPECT_EQ(wish->batch, best);
      EXPECT_NEAR(wish->inputs.at("gain").get<double>(), gain, 1e-4);
      ++switched;
    } else {
      ++stayed;
    }
  });
  EXPECT_GE(switched, 20);
  EXPECT_GE(stayed, 20);
}

// With more feasible batches than candidates the best candidate is nearly the best of all.
TEST(Goodput, FiftyCandidatesAreEnough) {
  for_many_cases(1, [&](const Case& now) {
    BatchReach reach;
    const auto wish = wish_of(now, reach);
    const auto value = [&](std::int64_t batch) {
      return true_goodput(now.recipe, now.truth, now.phi, batch, now.ranks);
    };
    double best = 0;
    for (std::int64_t batch = reach.least; batch <= reach.most; ++batch) {
      best = std::max(best, value(batch));
    }
    EXPECT_GE(value(wish ? wish->batch : now.batch), best / (wish ? 1.02 : 1.07));
  });
}

// After memory ran out the times that count are those of the smaller leaves.
TEST(Goodput, PredictsForTheLeafThatFits) {
  Case now{growing_recipe(BatchPolicyKind::kGoodput), testing::true_times(), 1e5, 2, 64};
  now.truth.per_update = 3;
  LeafSizer leaves(4);
  const auto policy = experienced(now.recipe, now.batch, now.ranks, now.truth);
  DecisionLog log;
  ASSERT_TRUE(leaves.on_out_of_memory({11, 1, 0}, now.batch, 640, log));
  Recipe smaller = now.recipe;
  smaller.leaf_size = 2;
  StepPlan plan;
  plan.samples = now.batch;
  plan.leaf_size = 2;
  plan.leaves = now.batch / 2;
  for (plan.step = 11; plan.step <= 20; ++plan.step) {
    policy->observe(plan, timed_facts(plan, now.ranks, now.truth), now.ranks);
  }
  const auto wish = policy->wish(
      {now.recipe, 1280, now.batch, {64, 128}, {now.ranks, leaves}, {now.phi, 0.1, true}});
  ASSERT_TRUE(wish);
  const auto gain = [&](const Recipe& recipe) {
    return true_goodput(recipe, now.truth, now.phi, 128, now.ranks) /
           true_goodput(recipe, now.truth, now.phi, 64, now.ranks);
  };
  EXPECT_GT(gain(now.recipe) - gain(smaller), 0.02);
  EXPECT_EQ(wish->batch, 128);
  EXPECT_NEAR(wish->inputs.at("gain").get<double>(), gain(smaller), 1e-3);
}

TEST(Goodput, WaitsForMeasurements) {
  const Recipe recipe = growing_recipe(BatchPolicyKind::kGoodput);
  const BatchContext eager{recipe, 5000, 64, {32, 128}, {2, LeafSizer(4)}, {1e5, 0.1, true}};
  EXPECT_FALSE(experienced(recipe, 64, 2, testing::true_times(), 9)->wish(eager));
  const auto policy = experienced(recipe, 64, 2, testing::true_times(), 10);
  BatchContext blind = eager;
  blind.critical.known = false;
  EXPECT_FALSE(policy->wish(blind));
  blind.critical = {1e5, 0.25, true};
  EXPECT_FALSE(policy->wish(blind));
  EXPECT_EQ(policy->wish(eager)->batch, 128);
  EXPECT_FALSE(policy->wish(eager));  // not again before there are more
}

TEST(Goodput, IgnoresTimesThatMeanNothing) {
  const auto policy = make_batch_policy(BatchPolicyKind::kGoodput);
  const std::string empty = policy->save().dump();
  StepPlan plan;
  plan.samples = 64;
  plan.leaf_size = 4;
  plan.leaves = 16;
  for (const double seconds : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                               std::numeric_limits<double>::infinity(), 1e300}) {
    StepFacts facts;
    facts.leaf_seconds = seconds;
    facts.step_seconds = 1;
    policy->observe(plan, facts, 2);
    std::swap(facts.leaf_seconds, facts.step_seconds);
    policy->observe(plan, facts, 2);
  }
  plan.samples = 62;  // the last leaf is short
  StepFacts facts;
  facts.leaf_seconds = facts.step_seconds = 1;
  policy->observe(plan, facts, 2);
  EXPECT_EQ(policy->save().dump(), empty);
}

}  // namespace
}  // namespace lorascale::coordinator
