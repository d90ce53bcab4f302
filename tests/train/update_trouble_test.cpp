// Updates that are not applied, or not as they were meant, on 1 to 3 ranks.
#include <gtest/gtest.h>

#include <cmath>

#include "train/update_support.hpp"

namespace lorascale::train {
namespace {

using test::Expected;
using test::kLeaf;
using test::kSamples;
using test::rows_of_update;
using test::Training;
using test::UpdateTest;

// One rank's NaN is enough; nothing of the run's state moves, and the run goes on.
TEST_F(UpdateTest, IsSkippedWhereTheGradientIsNoNumber) {
  config_.optimizer.name = config::OptimizerName::kAdamW;
  for (const auto reduction : {config::Reduction::kFast, config::Reduction::kExact}) {
    config_.run.reduction = reduction;
    Training training(world_, with("nan step=2 rank=" + last_rank()));
    training.update(1);
    const auto before = training.digest();
    const auto result = training.update(2);
    EXPECT_FALSE(result.facts.applied);
    EXPECT_FALSE(result.facts.without_targets);
    EXPECT_FALSE(std::isfinite(result.facts.grad_norm));
    EXPECT_TRUE(std::isfinite(result.facts.loss)) << "that was well";
    EXPECT_EQ(training.digest(), before) << "weights, moments and statistics";
    EXPECT_TRUE(training.update(3).facts.applied);
    EXPECT_NE(training.digest(), before);
  }
}

TEST_F(UpdateTest, IsSkippedWithoutASingleTarget) {
  config_.noise.horizon = {48, Unit::kSamples};
  Training training(world_, with("mask step=2 times=100"));
  training.update(1);
  const auto before = training.digest();
  const auto result = training.update(2);
  EXPECT_FALSE(result.facts.applied);
  EXPECT_TRUE(result.facts.without_targets);
  EXPECT_TRUE(std::isnan(result.facts.loss));
  EXPECT_EQ(result.targets, 0);
  EXPECT_EQ(result.units, test::kUnitsPerRow * kSamples) << "they were read all the same";
  EXPECT_TRUE(result.measures.empty());
  EXPECT_EQ(result.facts.noise[0].leaves, 0);
  EXPECT_EQ(training.digest(), before);
}

// A leaf without targets has no say; its samples still count for the statistics.
TEST_F(UpdateTest, GoesOnWithoutTheTargetsOfALeaf) {
  Training training(world_, with("mask step=1 rank=0"));
  const at::Tensor before = training.weights();
  const auto result = training.update(1);
  const at::Tensor rows = rows_of_update(training, 0, kSamples);
  const Expected rest(training.data(), before, rows.narrow(0, kLeaf, kSamples - kLeaf), kLeaf);
  const Expected all(training.data(), before, rows, kLeaf);
  EXPECT_TRUE(result.facts.applied);
  EXPECT_EQ(static_cast<double>(result.targets), rest.targets);
  EXPECT_NEAR(result.facts.loss, rest.loss, 1e-6 * rest.loss);
  EXPECT_NEAR(result.facts.loss_error, rest.loss_error, 1e-5 * rest.loss_error);
  lorascale::test::expect_close(training.model().statistics(), test::kStatisticsMove * all.mean_x,
                                1e-6);
}

// Memory that ran out on one rank, wherever in the update, and the same samples once more: as if
// nothing had been.
TEST_F(UpdateTest, IsNotAppliedWhereARankRunsOutOfMemory) {
  config_.run.reduction = config::Reduction::kExact;
  config_.optimizer.name = config::OptimizerName::kAdamW;
  Training clean(world_, config_);
  clean.update(1);
  clean.update(2, 8);
  for (const char* phase : {"forward", "backward", "optimizer"}) {
    Training training(world_,
                      with("oom step=2 phase=" + std::string(phase) + " rank=" + last_rank()));
    training.update(1);
    const auto before = training.digest();
    const auto result = training.update(2);
    ASSERT_TRUE(result.out_of_memory) << phase;
    EXPECT_EQ(result.out_of_memory->step, 2);
    EXPECT_EQ(result.out_of_memory->ranks, 1);
    EXPECT_EQ(result.out_of_memory->rank, host_.size() - 1);
    EXPECT_EQ(training.digest(), before) << phase;
    EXPECT_EQ(training.model().moves, 1) << phase;
    EXPECT_FALSE(training.update(2, 8).out_of_memory);
    EXPECT_EQ(training.digest(), clean.digest()) << phase;
  }
}

TEST_F(UpdateTest, CarriesTheBallotsOfAllRanks) {
  Training training(world_, config_);
  training.ballot.stop_requested = host_.rank() == host_.size() - 1;
  training.ballot.elapsed_minutes = 2.5 + host_.rank();
  const auto result = training.update(1);
  EXPECT_TRUE(result.stop_requested);
  EXPECT_EQ(result.facts.elapsed_minutes, 2.5);
  EXPECT_TRUE(result.facts.applied);
}

}  // namespace
}  // namespace lorascale::train
