#include "coordinator/rates/recovery.hpp"

#include <limits>
#include <nlohmann/json.hpp>

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

Recipe recovering_recipe(std::int64_t recoveries = 2, std::int64_t warmup = 200) {
  Recipe recipe = small_recipe();
  recipe.schedule = ScheduleKind::kConstant;
  recipe.max_recoveries = recoveries;
  recipe.recovery_warmup_samples = warmup;
  return recipe;
}

// Updates that are not finite until the run has diverged.
void diverge(Coordinator& coordinator) {
  while (const auto plan = coordinator.next_step()) {
    StepFacts facts = facts_of(plan->step);
    facts.applied = false;
    coordinator.on_step(facts);
  }
  ASSERT_EQ(coordinator.stop_reason(), StopReason::kDiverged);
}

// The factor as the header words it: halves, and a straight rise from n0 to n0 + R, taken at the
// end of the update.
TEST(Recovery, FactorIsARiseToAPowerOfTwo) {
  EXPECT_EQ(recovery_factor({}, 0, 64), 1);
  EXPECT_EQ(recovery_factor({}, 123456, 1), 1);
  const Recovery second{2, 17, 1000, 300};
  EXPECT_DOUBLE_EQ(recovery_factor(second, 1000, 30), 0.25 * 0.1);
  EXPECT_DOUBLE_EQ(recovery_factor(second, 1120, 30), 0.25 * 0.5);
  EXPECT_EQ(recovery_factor(second, 1270, 30), 0.25);
  EXPECT_EQ(recovery_factor(second, 99999, 64), 0.25);
  EXPECT_EQ(recovery_factor({1, 17, 1000, 0}, 1000, 1), 0.5);
}

TEST(Recovery, GoesBackAndGoesOnAtHalfTheRate) {
  const Recipe recipe = recovering_recipe();
  Coordinator whole(recipe, 4);
  Coordinator coordinator(recipe, 4);
  advance(coordinator, 6);
  advance(whole, 6);
  const std::string saved = coordinator.state();
  advance(coordinator, 3);
  diverge(coordinator);
  ASSERT_TRUE(coordinator.recovery_due());
  EXPECT_FALSE(coordinator.next_step());
  EXPECT_EQ(coordinator.recoveries(), 0);

  coordinator.recover(saved);
  EXPECT_EQ(coordinator.recoveries(), 1);
  EXPECT_FALSE(coordinator.recovery_due());
  EXPECT_FALSE(coordinator.stop_reason());
  EXPECT_EQ(coordinator.steps_done(), 6);
  EXPECT_EQ(coordinator.samples_seen(), 6 * 64);
  EXPECT_EQ(coordinator.steps_skipped(), 0);
  while (const auto plan = whole.next_step()) {
    const auto again = coordinator.next_step();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->first_position, plan->first_position);
    EXPECT_EQ(again->samples, plan->samples);
    EXPECT_EQ(again->leaves, plan->leaves);
    const double rise =
        std::min(1.0, static_cast<double>(plan->first_position + plan->samples - 384) / 200);
    EXPECT_NEAR(again->lr, 0.5 * rise * plan->lr, 1e-15 * plan->lr) << plan->step;
    EXPECT_EQ(again->lr_multiplier, plan->lr_multiplier);
    EXPECT_EQ(again->beta2, plan->beta2);
    whole.on_step(facts_of(plan->step));
    coordinator.on_step(facts_of(plan->step));
  }
  EXPECT_EQ(coordinator.stop_reason(), StopReason::kBudget);
}

// The log is one unbroken chain that keeps what was undone.
TEST(Recovery, IsADecisionWithItsNumbers) {
  Coordinator coordinator(recovering_recipe(), 4);
  advance(coordinator, 6);
  auto decisions = coordinator.take_decisions();
  const std::string saved = coordinator.state();
  diverge(coordinator);
  coordinator.recover(saved);
  for (const Decision& decision : coordinator.take_decisions()) {
    decisions.push_back(decision);
  }
  EXPECT_FALSE(first_broken_link(decisions));
  EXPECT_EQ(of_kind(decisions, "skip").size(), 10U);
  EXPECT_EQ(of_kind(decisions, "diverged").size(), 1U);
  const auto found = of_kind(decisions, "recover");
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].step, 6);
  EXPECT_EQ(found[0].samples, 384);
  EXPECT_THAT(found[0].reason, HasSubstr("diverged at step 16 and 1000 samples: back to step 6"));
  EXPECT_THAT(found[0].reason,
              HasSubstr("recovery 1 of at most 2, and from here on rates are 0.5"));
  EXPECT_EQ(nlohmann::json::parse(found[0].inputs),
            nlohmann::json::parse(R"({"diverged_step": 16, "diverged_samples": 1000,
              "recovery": 1, "max_recoveries": 2, "lr_factor": 0.5, "warmup_samples": 200})"));
}

// What best/ holds is not given away for the first validation after going back.
TEST(Recovery, TheBestValidationStaysUntilItIsBeaten) {
  Coordinator coordinator(recovering_recipe(), 1);
  coordinator.on_evaluation({0, 3.0});
  advance(coordinator, 2);
  const std::string saved = coordinator.state();
  advance(coordinator, 2);
  EXPECT_TRUE(coordinator.on_evaluation({4, 1.5}));
  diverge(coordinator);
  coordinator.recover(saved);
  EXPECT_THAT(of_kind(coordinator.take_decisions(), "recover").at(0).reason,
              HasSubstr("the best validation stays that of step 4"));
  EXPECT_EQ(coordinator.best_validation_loss(), 1.5);
  coordinator = Coordinator::restore(recovering_recipe(), 1, coordinator.state());
  advance(coordinator, 2);
  EXPECT_FALSE(coordinator.on_evaluation({4, 2.0}));  // of the step of the best, but not it
  advance(coordinator, 1);
  EXPECT_TRUE(coordinator.on_evaluation({5, 1.4}));
  EXPECT_EQ(coordinator.best_validation_step(), 5);
}

TEST(Recovery, EndsAtTheLimit) {
  for (const std::int64_t limit : {0, 1, 3}) {
    Coordinator coordinator(recovering_recipe(limit), 1);
    const std::string saved = coordinator.state();  // of a run that has not begun
    for (std::int64_t i = 0; i < limit; ++i) {
      diverge(coordinator);
      ASSERT_TRUE(coordinator.recovery_due());
      coordinator.recover(saved);
      EXPECT_EQ(coordinator.recoveries(), i + 1);
      EXPECT_EQ(coordinator.steps_done(), 0);
    }
    diverge(coordinator);
    EXPECT_FALSE(coordinator.recovery_due());
    EXPECT_EQ(coordinator.stop_reason(), StopReason::kDiverged);
  }
}

// A loss that stays high is a divergence too, and does not count against the second attempt.
TEST(Recovery, ForgetsWhatWasCountedAgainstTheRun) {
  Recipe recipe = recovering_recipe();
  recipe.samples_per_epoch = recipe.budget_samples = 64000;
  Coordinator coordinator(recipe, 1);
  advance(coordinator, 100);
  const auto report_high = [&](int updates) {
    for (int i = 0; i < updates; ++i) {
      StepFacts facts = facts_of(coordinator.steps_done() + 1);
      facts.loss = 50;
      coordinator.on_step(facts);
    }
  };
  EXPECT_FALSE(coordinator.in_trouble());
  report_high(5);
  EXPECT_TRUE(coordinator.in_trouble());
  const std::string saved = coordinator.state();  // the worst place to go back to
  report_high(15);
  ASSERT_TRUE(coordinator.recovery_due());
  coordinator.recover(saved);
  EXPECT_FALSE(coordinator.in_trouble());
  report_high(19);
  EXPECT_FALSE(coordinator.stop_reason());
  report_high(1);
  EXPECT_TRUE(coordinator.recovery_due());
}

// Stopped at any point after a recovery, on other ranks too, the run goes on with the same bits,
// and knows how often it recovered.
TEST(Recovery, IsRememberedOverResumes) {
  const Recipe recipe = recovering_recipe(2, 500);
  const auto recovered = [&] {
    Coordinator coordinator(recipe, 4);
    advance(coordinator, 6);
    const std::string saved = coordinator.state();
    diverge(coordinator);
    coordinator.recover(saved);
    return coordinator;
  };
  Coordinator whole = recovered();
  advance(whole, 1000);
  for (std::int64_t stop = 0; stop <= 42; ++stop) {
    Coordinator first = recovered();
    advance(first, stop);
    Coordinator second =
        Coordinator::restore(recipe, 1 + static_cast<int>(stop % 3), first.state());
    EXPECT_EQ(second.state_hash(), first.state_hash());
    EXPECT_EQ(second.recoveries(), 1);
    advance(second, 1000);
    ASSERT_EQ(second.state_hash(), whole.state_hash()) << stop;
  }
}

// Back over an earlier recovery, whose checkpoint is lost: the last update before it was made at
// the full rate, and its rates are still found to be right.
TEST(Recovery, MayGoBackOverAnEarlierOne) {
  const Recipe recipe = recovering_recipe();
  Coordinator coordinator(recipe, 1);
  advance(coordinator, 6);
  const std::string early = coordinator.state();
  advance(coordinator, 4);
  const std::string late = coordinator.state();
  diverge(coordinator);
  EXPECT_FALSE(coordinator.recovered_step());
  coordinator.recover(late);
  EXPECT_EQ(coordinator.recovered_step(), 10);
  advance(coordinator, 2);
  diverge(coordinator);
  coordinator.take_decisions();
  coordinator.recover(early);
  EXPECT_EQ(coordinator.recovered_step(), 6);
  EXPECT_THAT(of_kind(coordinator.take_decisions(), "recover").at(0).reason,
              HasSubstr("for the checkpoint of step 10 was gone back to in vain"));
  EXPECT_EQ(coordinator.recoveries(), 2);
  EXPECT_EQ(coordinator.steps_done(), 6);
  const Coordinator again = Coordinator::restore(recipe, 1, coordinator.state());
  EXPECT_EQ(again.recoveries(), 2);
  EXPECT_EQ(again.next_step()->lr, coordinator.next_step()->lr);
  advance(coordinator, 20);
  EXPECT_EQ(coordinator.next_step()->lr, 0.25 * recipe.lr * 2);  // sqrt(64 / 16)
}

// What memory taught and the time that passed are not undone.
TEST(Recovery, KeepsLeafSizeAndMinutes) {
  Coordinator coordinator(recovering_recipe(), 1);
  const std::string saved = coordinator.state();
  coordinator.on_out_of_memory({1, 1, 0});
  diverge(coordinator);
  const double minutes = coordinator.elapsed_minutes();
  EXPECT_GT(minutes, 0);
  coordinator.recover(saved);
  EXPECT_EQ(coordinator.elapsed_minutes(), minutes);
  EXPECT_EQ(coordinator.next_step()->leaf_size, 2);
}

TEST(Recovery, RefusesStatesOfOtherRunsAndDamagedOnes) {
  Coordinator coordinator(recovering_recipe(), 1);
  const std::string good = coordinator.state();
  diverge(coordinator);
  Recipe other = recovering_recipe();
  other.lr *= 3;
  expect_error(ExitCode::kBadConfig, {"another recipe", "optimizer.lr"},
               [&] { coordinator.recover(Coordinator(other, 1).state()); });
  expect_error(ExitCode::kBadInput, {"damaged"}, [&] { coordinator.recover("{}"); });
  EXPECT_TRUE(coordinator.recovery_due());  // nothing has changed
  coordinator.recover(good);
  auto state = nlohmann::ordered_json::parse(coordinator.state());
  for (const char* key : {"count", "step", "at", "warmup"}) {
    auto damaged = state;
    damaged["recovery"]["now"][key] = -1;
    expect_error(ExitCode::kBadInput, {"damaged", "recovery"},
                 [&] { Coordinator::restore(recovering_recipe(), 1, damaged.dump()); });
  }
}

// Without recoveries a state is that of a version that knew none, and whether a run may recover can
// be decided later.
TEST(Recovery, CanBeAllowedLater) {
  Coordinator coordinator(recovering_recipe(0, 0), 1);
  advance(coordinator, 5);
  const std::string saved = coordinator.state();
  EXPECT_EQ(saved.find("recover"), std::string::npos);
  Coordinator allowed = Coordinator::restore(recovering_recipe(1), 1, saved);
  EXPECT_EQ(allowed.state_hash(), coordinator.state_hash());
  diverge(allowed);
  ASSERT_TRUE(allowed.recovery_due());
  allowed.recover(saved);
  EXPECT_EQ(allowed.next_step()->lr, 0.5 * 64 / 200 * coordinator.next_step()->lr);
}

}  // namespace
}  // namespace lorascale::coordinator
