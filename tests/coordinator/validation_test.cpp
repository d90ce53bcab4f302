#include "coordinator/validation.hpp"

#include <limits>

#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::advance;
using ::testing::HasSubstr;
using testing::of_kind;
using testing::small_recipe;

Recipe with_patience(std::int64_t patience, double min_delta = 0) {
  Recipe recipe = small_recipe();
  recipe.patience = patience;
  recipe.min_delta = min_delta;
  return recipe;
}

// One update, then a validation with `loss`.
bool validate(Coordinator& coordinator, double loss) {
  advance(coordinator, 1);
  return coordinator.on_evaluation({coordinator.steps_done(), loss});
}

TEST(Validation, TracksTheBest) {
  Coordinator coordinator(small_recipe(), 1);
  EXPECT_EQ(coordinator.best_validation_step(), -1);
  EXPECT_FALSE(coordinator.best_validation_loss());
  EXPECT_TRUE(coordinator.on_evaluation({0, 3.0}));  // before the first update
  EXPECT_TRUE(validate(coordinator, 2.0));
  EXPECT_FALSE(validate(coordinator, 2.0));  // equal is not better
  EXPECT_FALSE(validate(coordinator, 2.5));
  EXPECT_FALSE(validate(coordinator, std::numeric_limits<double>::quiet_NaN()));
  EXPECT_FALSE(validate(coordinator, -std::numeric_limits<double>::infinity()));
  EXPECT_TRUE(validate(coordinator, 1.5));
  EXPECT_EQ(coordinator.best_validation_loss(), 1.5);
  EXPECT_EQ(coordinator.best_validation_step(), 6);
  const auto decisions = of_kind(coordinator.take_decisions(), "best");
  ASSERT_EQ(decisions.size(), 3U);
  EXPECT_THAT(decisions[0].reason, HasSubstr("3 is the first"));
  EXPECT_EQ(decisions[2].reason, "validation loss 1.5 is below 2 of step 1");
  EXPECT_EQ(decisions[2].step, 6);
  EXPECT_FALSE(coordinator.stop_reason());  // patience 0 is off
}

// Weights that no update has changed are no reason to stop; what skips them all is.
TEST(Validation, PatienceIsNotUsedUpWhileUpdatesAreSkipped) {
  Coordinator coordinator(with_patience(2), 1);
  validate(coordinator, 1.0);
  validate(coordinator, 1.5);
  const std::string saved = coordinator.state();
  for (int i = 0; i < 3; ++i) {
    StepFacts facts = testing::facts_of(coordinator.steps_done() + 1);
    facts.applied = false;
    coordinator.on_step(facts);
    coordinator.on_evaluation({facts.step, 1.5});
    ASSERT_FALSE(coordinator.stop_reason());
  }
  coordinator = Coordinator::restore(with_patience(2), 1, coordinator.state());
  validate(coordinator, 1.5);
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kEarlyStop);
}

TEST(Validation, StopsWhenPatienceIsUsedUp) {
  Coordinator coordinator(with_patience(3), 1);
  for (const double loss : {2.0, 1.0, 1.1, 1.2, 0.9, 1.0, 0.9}) {
    validate(coordinator, loss);
    ASSERT_FALSE(coordinator.stop_reason());
  }
  validate(coordinator, 5.0);
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kEarlyStop);
  EXPECT_FALSE(coordinator.next_step());
  const auto decisions = of_kind(coordinator.take_decisions(), "early_stop");
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].step, 8);
  EXPECT_THAT(decisions[0].reason, HasSubstr("3 validations"));
  EXPECT_THAT(decisions[0].reason, HasSubstr("0.9 at step 5"));
}

// Gains below min_delta are the best so far, yet no improvement; together they count.
TEST(Validation, MinDeltaIsMeasuredFromTheLastImprovement) {
  Coordinator creeping(with_patience(2, 0.1), 1);
  EXPECT_TRUE(validate(creeping, 2.0));
  EXPECT_TRUE(validate(creeping, 1.95));
  EXPECT_FALSE(creeping.stop_reason());
  EXPECT_TRUE(validate(creeping, 1.92));
  EXPECT_EQ(creeping.stop_reason(), StopReason::kEarlyStop);
  Coordinator steady(with_patience(2, 0.1), 1);
  for (const double loss : {2.0, 1.95, 1.89, 1.84, 1.78}) {  // every second one is 0.11 below
    validate(steady, loss);
    ASSERT_FALSE(steady.stop_reason()) << loss;
  }
  Coordinator exact(with_patience(1, 0.5), 1);
  validate(exact, 2.0);
  validate(exact, 1.5);  // not more than min_delta below
  EXPECT_EQ(exact.stop_reason(), StopReason::kEarlyStop);
}

TEST(Validation, LossesThatAreNotFiniteUsePatience) {
  Coordinator coordinator(with_patience(2), 1);
  validate(coordinator, std::numeric_limits<double>::quiet_NaN());
  EXPECT_FALSE(coordinator.stop_reason());
  validate(coordinator, std::numeric_limits<double>::infinity());
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kEarlyStop);
  EXPECT_FALSE(coordinator.best_validation_loss());
}

TEST(Validation, TheSameStepCountsOnce) {
  Coordinator coordinator(with_patience(2), 1);
  EXPECT_TRUE(validate(coordinator, 1.0));
  EXPECT_TRUE(coordinator.on_evaluation({1, 1.0}));
  EXPECT_FALSE(validate(coordinator, 2.0));
  EXPECT_FALSE(coordinator.on_evaluation({2, 2.0}));
  EXPECT_FALSE(coordinator.stop_reason());
}

// A validation after the last update finds nothing left to stop.
TEST(Validation, AFinishedRunIsNotStoppedEarly) {
  Coordinator coordinator(with_patience(1), 1);
  validate(coordinator, 1.0);
  advance(coordinator, 1000);
  EXPECT_FALSE(coordinator.on_evaluation({coordinator.steps_done(), 2.0}));
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kBudget);
}

}  // namespace
}  // namespace lorascale::coordinator
