#include "coordinator/divergence.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/rng.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using ::testing::HasSubstr;
using testing::of_kind;
using testing::small_recipe;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Uniform in [-1, 1), the same on every machine.
double noise(std::int64_t i) {
  return static_cast<double>(mix64(static_cast<std::uint64_t>(i)) >> 11) * 0x1p-52 - 1;
}

Recipe long_recipe() {
  Recipe recipe = small_recipe();
  recipe.samples_per_epoch = 64000;
  recipe.budget_samples = 640000;
  return recipe;
}

// Reports `loss` for the next update.
void report(Coordinator& coordinator, double loss, bool applied = true) {
  const auto plan = coordinator.next_step();
  ASSERT_TRUE(plan);
  StepFacts facts;
  facts.step = plan->step;
  facts.loss = loss;
  facts.applied = applied;
  coordinator.on_step(facts);
}

void report_normal(Coordinator& coordinator, int updates) {
  for (int i = 0; i < updates; ++i) {
    report(coordinator, 2 + 0.1 * noise(i));
  }
}

// Against the definition: weights written out, mean and reliability-weighted variance by two
// passes.
TEST(WeightedWindow, EqualsTheDefinition) {
  constexpr double kMemory = 0.9;
  WeightedWindow window;
  std::vector<double> values;
  std::vector<double> weights;
  for (int i = 0; i < 40; ++i) {
    const double value = 3 + noise(i);
    const double weight = 1 + i % 3;
    for (double& earlier : weights) {
      earlier *= kMemory;
    }
    values.push_back(value);
    weights.push_back(weight);
    window.add(value, weight, kMemory);
    double sum = 0;
    double squares = 0;
    double mean = 0;
    for (std::size_t j = 0; j < values.size(); ++j) {
      sum += weights[j];
      squares += weights[j] * weights[j];
      mean += weights[j] * values[j];
    }
    mean /= sum;
    double variance = 0;
    for (std::size_t j = 0; j < values.size(); ++j) {
      variance += weights[j] * (values[j] - mean) * (values[j] - mean);
    }
    ASSERT_NEAR(window.mean(), mean, 1e-12);
    ASSERT_NEAR(window.variance(), i == 0 ? 0 : variance / (sum - squares / sum), 1e-12);
  }
}

TEST(WeightedWindow, WithoutForgettingItIsTheSampleVariance) {
  WeightedWindow window;
  for (const double value : {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0}) {
    window.add(value, 64, 1);
  }
  EXPECT_DOUBLE_EQ(window.mean(), 5);
  EXPECT_NEAR(window.variance(), 32.0 / 7, 1e-12);
}

TEST(Divergence, ALossThatStaysHighEndsTheRunAfterPatience) {
  Coordinator coordinator(long_recipe(), 1);
  report_normal(coordinator, 100);
  for (int i = 0; i < 19; ++i) {
    report(coordinator, 50);
    ASSERT_FALSE(coordinator.stop_reason()) << i;
  }
  report(coordinator, 50);
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kDiverged);
  EXPECT_FALSE(coordinator.next_step());
  const auto decisions = of_kind(coordinator.take_decisions(), "diverged");
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].step, 120);
  EXPECT_THAT(decisions[0].reason, HasSubstr("20 updates in a row"));
  // What to do is said where the run ends, for a recovery may follow.
  EXPECT_THAT(decisions[0].reason, ::testing::Not(HasSubstr("lower optimizer.lr")));
  EXPECT_GT(nlohmann::json::parse(decisions[0].inputs).at("z"), 8.0);
}

// The point of keeping outliers out: if they entered, the spread would grow until they looked
// normal, and 20 in a row would never come together.
TEST(Divergence, OutliersDoNotEnterTheWindow) {
  const Recipe recipe = long_recipe();
  DivergenceDetector detector(recipe);
  DecisionLog log;
  StepPlan plan;
  plan.samples = 64;
  StepFacts facts;
  for (int i = 0; i < 100; ++i) {
    facts.loss = 2 + 0.1 * noise(i);
    detector.on_step(plan, facts, log);
  }
  const double z = detector.z_score(50);
  for (int i = 0; i < 10; ++i) {
    facts.loss = 50;
    detector.on_step(plan, facts, log);
    ASSERT_EQ(detector.z_score(50), z);
  }
  // The same losses let in: the z-score collapses at once.
  WeightedWindow naive;
  for (int i = 0; i < 100; ++i) {
    naive.add(2 + 0.1 * noise(i), 64, DivergenceDetector::kMemory);
  }
  for (int i = 0; i < 3; ++i) {
    naive.add(50, 64, DivergenceDetector::kMemory);
  }
  EXPECT_LT((50 - naive.mean()) / std::sqrt(naive.variance()), 8);
}

// The limit of 8 standard deviations, from both sides.
TEST(Divergence, TheLimitIsWhatTheRecipeSays) {
  for (const double limit : {8.0, 3.0}) {
    for (const double z : {limit - 0.01, limit + 0.01}) {
      Recipe recipe = long_recipe();
      ASSERT_EQ(recipe.divergence_z, 8);
      recipe.divergence_z = limit;
      DivergenceDetector detector(recipe);
      DecisionLog log;
      StepPlan plan;
      plan.samples = 64;
      StepFacts facts;
      for (int i = 0; i < 100; ++i) {
        facts.loss = 2 + 0.1 * noise(i);
        detector.on_step(plan, facts, log);
      }
      // The score is linear in the loss.
      const double slope = detector.z_score(4) - detector.z_score(3);
      facts.loss = 3 + (z - detector.z_score(3)) / slope;
      ASSERT_NEAR(detector.z_score(facts.loss), z, 1e-9);
      detector.on_step(plan, facts, log);
      EXPECT_EQ(detector.in_trouble(), z > limit) << z;
    }
  }
}

TEST(Divergence, ASpikeIsForgiven) {
  Coordinator coordinator(long_recipe(), 1);
  report_normal(coordinator, 100);
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 19; ++i) {
      report(coordinator, 50);
    }
    report(coordinator, 2);
  }
  EXPECT_FALSE(coordinator.stop_reason());
}

TEST(Divergence, IsNotArmedInTheFirstUpdates) {
  const Recipe recipe = long_recipe();
  DivergenceDetector detector(recipe);
  DecisionLog log;
  StepPlan plan;
  plan.samples = 64;
  StepFacts facts;
  for (int i = 0; i < DivergenceDetector::kMinimumUpdates; ++i) {
    EXPECT_EQ(detector.z_score(1e6), 0) << i;
    facts.loss = 2 + 0.1 * noise(i);
    detector.on_step(plan, facts, log);
  }
  EXPECT_GT(detector.z_score(1e6), 8);
}

TEST(Divergence, FallingAndSteadyLossesAreSound) {
  Coordinator falling(long_recipe(), 1);
  for (int i = 0; i < 2000; ++i) {
    report(falling, 0.5 + 8 * std::exp(-i / 60.0) + 0.05 * noise(i));
    ASSERT_FALSE(falling.stop_reason()) << i;
  }
  // A loss without any noise, then 5 % higher for good: a shift, not a divergence.
  Coordinator steady(long_recipe(), 1);
  for (int i = 0; i < 200; ++i) {
    report(steady, i < 100 ? 2.0 : 2.1);
  }
  EXPECT_FALSE(steady.stop_reason());
}

TEST(Divergence, NoUpdateIsNoUsableLoss) {
  // Applied, yet without a usable loss: an outlier even before the detector is armed.
  for (const double loss : {kNan, std::numeric_limits<double>::infinity(), 1e200}) {
    Coordinator coordinator(long_recipe(), 1);
    for (int i = 0; i < 20; ++i) {
      ASSERT_FALSE(coordinator.stop_reason());
      report(coordinator, loss);
    }
    EXPECT_EQ(coordinator.stop_reason(), StopReason::kDiverged);
  }
}

TEST(Divergence, SkippedUpdatesInARowEndTheRun) {
  Coordinator coordinator(long_recipe(), 1);
  for (int i = 0; i < 9; ++i) {
    report(coordinator, kNan, false);
  }
  report(coordinator, 2);  // breaks the row
  for (int i = 0; i < 9; ++i) {
    report(coordinator, kNan, false);
  }
  EXPECT_FALSE(coordinator.stop_reason());
  report(coordinator, kNan, false);
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kDiverged);
  const auto decisions = coordinator.take_decisions();
  EXPECT_EQ(of_kind(decisions, "skip").size(), 19U);
  ASSERT_EQ(of_kind(decisions, "diverged").size(), 1U);
  EXPECT_THAT(of_kind(decisions, "diverged")[0].reason,
              HasSubstr("10 updates in a row were not finite"));
}

TEST(Divergence, ZeroSwitchesEachCheckOff) {
  Recipe recipe = long_recipe();
  recipe.max_skipped_in_row = 0;
  Coordinator skipping(recipe, 1);
  for (int i = 0; i < 100; ++i) {
    report(skipping, kNan, false);
  }
  EXPECT_FALSE(skipping.stop_reason());
  for (const bool by_z : {true, false}) {
    recipe = long_recipe();
    (by_z ? recipe.divergence_z : recipe.min_delta) = 0;
    recipe.divergence_patience = by_z ? 20 : 0;
    Coordinator coordinator(recipe, 1);
    report_normal(coordinator, 50);
    for (int i = 0; i < 50; ++i) {
      report(coordinator, i % 2 == 0 ? 1e6 : kNan);
    }
    EXPECT_FALSE(coordinator.stop_reason());
  }
}

// The memory is of samples: two updates of half the batch forget as much as a whole one.
TEST(Divergence, ForgetsInSampleTime) {
  const Recipe recipe = long_recipe();
  DecisionLog log;
  const auto after = [&](std::int64_t samples, int updates) {
    DivergenceDetector detector(recipe);
    StepPlan plan;
    StepFacts facts;
    plan.samples = 64;
    facts.loss = 3;
    detector.on_step(plan, facts, log);
    facts.loss = 1;
    plan.samples = samples;
    for (int i = 0; i < updates; ++i) {
      detector.on_step(plan, facts, log);
    }
    return detector.save().at("window").at("weight").get<double>();
  };
  // The first update's own weight is remembered alike; the rest differs by where in the stretch
  // samples stand.
  EXPECT_NEAR(after(64, 50), after(32, 100), 0.01 * after(64, 50));
}

}  // namespace
}  // namespace lorascale::coordinator
