// Updates on 1 to 3 ranks against what a single process computes from the same rows, with a model
// whose every number a test can form on its own (regression.hpp).
#include "train/update.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "train/update_support.hpp"

namespace lorascale::train {
namespace {

using lorascale::test::same_bits;
using test::Expected;
using test::kLeaf;
using test::kSamples;
using test::rows_of_update;
using test::Training;
using test::UpdateTest;

TEST_F(UpdateTest, IsOfTheMeanOverAllTargets) {
  Training training(world_, config_);
  const at::Tensor before = training.weights();
  const auto result = training.update(1);
  const Expected expected(training.data(), before, rows_of_update(training, 0, kSamples), kLeaf);
  EXPECT_TRUE(result.facts.applied);
  EXPECT_FALSE(result.facts.without_targets);
  EXPECT_EQ(result.facts.step, 1);
  EXPECT_NEAR(result.facts.loss, expected.loss, 1e-6 * expected.loss);
  EXPECT_NEAR(result.facts.loss_error, expected.loss_error, 1e-5 * expected.loss_error);
  const double norm = expected.gradient.norm().item<double>();
  EXPECT_NEAR(result.facts.grad_norm, norm, 1e-5 * norm);
  EXPECT_EQ(static_cast<double>(result.targets), expected.targets);
  EXPECT_GT(result.targets, 110);
  EXPECT_EQ(result.units, test::kUnitsPerRow * kSamples);
  lorascale::test::expect_close(training.weights(), before - 0.125 * expected.gradient, 1e-6);
  EXPECT_TRUE(result.facts.noise.empty());
  EXPECT_FALSE(result.out_of_memory || result.stop_requested);
}

// Each with a denominator of its own, and of the weights before the update.
TEST_F(UpdateTest, MeasuresAreSumsOverSums) {
  Training training(world_, config_);
  const Expected expected(training.data(), training.weights(),
                          rows_of_update(training, 0, kSamples), kLeaf);
  const auto measures = training.update(1).measures;
  ASSERT_EQ(measures.size(), 2U);
  EXPECT_EQ(measures[0].first, "near");
  EXPECT_EQ(measures[1].first, "above");
  EXPECT_DOUBLE_EQ(measures[0].second, expected.near);
  EXPECT_DOUBLE_EQ(measures[1].second, expected.above);
}

// By samples, whether they have a target or not; the last leaf is a short one.
TEST_F(UpdateTest, StatisticsMoveOnceToTheMeanOverSamples) {
  Training training(world_, config_);
  training.update(1);
  const Expected first(training.data(), training.weights(), rows_of_update(training, 0, kSamples),
                       kLeaf);
  EXPECT_EQ(training.model().moves, 1);
  const at::Tensor once = test::kStatisticsMove * first.mean_x;
  lorascale::test::expect_close(training.model().statistics(), once, 1e-6);
  training.update(2);
  const Expected second(training.data(), training.weights(),
                        rows_of_update(training, kSamples, kSamples), kLeaf);
  EXPECT_EQ(training.model().moves, 2);
  lorascale::test::expect_close(training.model().statistics(),
                                once + test::kStatisticsMove * (second.mean_x - once), 1e-6);
}

// They never become numbers again, whatever the losses of leaves, which do not depend on them.
TEST_F(UpdateTest, RunningStatisticsThatAreNoNumbersAreALossThatIsNone) {
  Training training(world_, config_);
  EXPECT_TRUE(std::isfinite(training.update(1).facts.loss));
  training.model().statistics().fill_(std::numeric_limits<float>::infinity());
  const auto result = training.update(2);
  EXPECT_TRUE(std::isnan(result.facts.loss));
  EXPECT_TRUE(std::isfinite(result.facts.grad_norm));
}

void expect_same_facts(const UpdateResult& a, const UpdateResult& b) {
  EXPECT_EQ(a.facts.loss, b.facts.loss);
  EXPECT_EQ(a.facts.loss_error, b.facts.loss_error);
  EXPECT_EQ(a.measures, b.measures);
  EXPECT_EQ(a.targets, b.targets);
  EXPECT_EQ(a.units, b.units);
}

// The bits of everything, where sums are exact; also where ranks have no leaf.
TEST_F(UpdateTest, IsTheSameBitsOnAnyNumberOfRanks) {
  config_.run.reduction = config::Reduction::kExact;
  config_.optimizer.name = config::OptimizerName::kAdamW;
  config_.optimizer.clip_norm = 0.5;
  config_.noise.horizon = {48, Unit::kSamples};
  for (const std::int64_t leaf_size : {kLeaf, std::int64_t{75}, kSamples}) {
    Training many(world_, config_);
    Training one(alone_, config_);
    for (std::int64_t step = 1; step <= 3; ++step) {
      const auto result = many.update(step, leaf_size);
      const auto reference = one.update(step, leaf_size);
      expect_same_facts(result, reference);
      EXPECT_EQ(result.facts.grad_norm, reference.facts.grad_norm);
      ASSERT_EQ(result.facts.noise.size(), 2U);
      for (std::size_t group = 0; group < 2; ++group) {
        EXPECT_EQ(result.facts.noise[group].raw.weighted_leaf_square,
                  reference.facts.noise[group].raw.weighted_leaf_square);
        EXPECT_EQ(result.facts.noise[group].raw.mean_square,
                  reference.facts.noise[group].raw.mean_square);
      }
      EXPECT_EQ(many.digest(), one.digest()) << "step " << step << ", leaves of " << leaf_size;
    }
  }
}

// Without exact sums it is the gradient alone that depends on the ranks.
TEST_F(UpdateTest, FastSumsChangeTheGradientAlone) {
  Training many(world_, config_);
  Training one(alone_, config_);
  expect_same_facts(many.update(1), one.update(1));
  EXPECT_TRUE(same_bits(many.model().statistics(), one.model().statistics()));
  lorascale::test::expect_close(many.weights(), one.weights(), 1e-6);
}

TEST_F(UpdateTest, NormsOfLeavesMakeTheNoise) {
  config_.noise.horizon = {48, Unit::kSamples};
  Training training(world_, config_);
  const at::Tensor weights = training.weights();
  const auto result = training.update(1);
  double weighted = 0;
  for (std::int64_t first = 0; first < kSamples; first += kLeaf) {
    const Expected leaf(training.data(), weights,
                        rows_of_update(training, first, std::min(kLeaf, kSamples - first)), kLeaf);
    const at::Tensor matrix = leaf.gradient.narrow(0, 0, test::kWidth);
    weighted += leaf.targets * matrix.square().sum().item<double>();
  }
  const Expected whole(training.data(), weights, rows_of_update(training, 0, kSamples), kLeaf);
  ASSERT_EQ(result.facts.noise.size(), 2U);
  const auto& matrix = result.facts.noise[0];
  EXPECT_EQ(matrix.group, "matrix");
  EXPECT_EQ(matrix.leaves, 10);
  EXPECT_EQ(matrix.weight, whole.targets);
  EXPECT_NEAR(matrix.raw.weighted_leaf_square, weighted, 1e-5 * weighted);
  const double mean = whole.gradient.narrow(0, 0, test::kWidth).square().sum().item<double>();
  EXPECT_NEAR(matrix.raw.mean_square, mean, 1e-5 * mean);
  EXPECT_FALSE(matrix.preconditioned);
  // Whatever else is known of a leaf stands beside its norms.
  EXPECT_DOUBLE_EQ(result.measures[0].second, whole.near);
  EXPECT_DOUBLE_EQ(result.measures[1].second, whole.above);
  lorascale::test::expect_close(training.model().statistics(), test::kStatisticsMove * whole.mean_x,
                                1e-6);
}

// Adam's moments have seen as many updates as there were before this one.
TEST_F(UpdateTest, NoiseHasAMetricOnceThereIsAHistory) {
  config_.noise.horizon = {48, Unit::kSamples};
  config_.optimizer.name = config::OptimizerName::kAdamW;
  Training training(world_, config_);
  for (std::int64_t step = 1; step <= NoiseMeter::kHistory + 1; ++step) {
    const auto noise = training.update(step).facts.noise;
    EXPECT_EQ(noise[0].preconditioned.has_value(), step > NoiseMeter::kHistory) << step;
  }
}

// Two updates of AdamW by its definition, with numbers that are far from each other.
TEST_F(UpdateTest, FollowsTheRatesOfThePlan) {
  config_.optimizer.name = config::OptimizerName::kAdamW;
  Training training(world_, config_);
  auto& rates = training.rates;
  rates.lr = 0.0625;
  rates.beta1 = 0.7;
  rates.beta2 = 0.95;
  rates.eps = 0.03;
  rates.weight_decay = 0.5;
  at::Tensor decay = at::full({test::kWidth + 1}, 0.5, at::kDouble);
  decay[test::kWidth] = 0;  // of the bias
  at::Tensor weights = training.weights().to(at::kDouble);
  at::Tensor first = at::zeros_like(weights);
  at::Tensor second = at::zeros_like(weights);
  for (std::int64_t step = 1; step <= 2; ++step) {
    const at::Tensor rows = rows_of_update(training, (step - 1) * kSamples, kSamples);
    const at::Tensor gradient = Expected(training.data(), weights, rows, kLeaf).gradient;
    first = 0.7 * first + 0.3 * gradient;
    second = 0.95 * second + 0.05 * gradient.square();
    const auto power = static_cast<double>(step);
    const at::Tensor root = (second / (1 - std::pow(0.95, power))).sqrt() + 0.03;
    weights = weights * (1 - 0.0625 * decay) - 0.0625 * first / (1 - std::pow(0.7, power)) / root;
    EXPECT_TRUE(training.update(step).facts.applied);
    lorascale::test::expect_close(training.weights(), weights, 1e-6);
  }
}

TEST_F(UpdateTest, ClipsTheMeanGradient) {
  config_.optimizer.clip_norm = 0.25;
  Training training(world_, config_);
  const at::Tensor before = training.weights();
  const auto result = training.update(1);
  const Expected expected(training.data(), before, rows_of_update(training, 0, kSamples), kLeaf);
  const double norm = expected.gradient.norm().item<double>();
  ASSERT_GT(norm, 0.5);
  EXPECT_NEAR(result.facts.grad_norm, norm, 1e-5 * norm) << "before clipping";
  lorascale::test::expect_close(training.weights(),
                                before - 0.125 * 0.25 / norm * expected.gradient, 1e-5);
}

}  // namespace
}  // namespace lorascale::train
