#include "coordinator/memory/leaf_sizer.hpp"

#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::facts_of;
using testing::of_kind;
using testing::small_recipe;

std::int64_t leaf_of(const Coordinator& coordinator) {
  return coordinator.next_step()->leaf_size;
}

void run_out(Coordinator& coordinator) {
  EXPECT_TRUE(coordinator.on_out_of_memory({coordinator.steps_done() + 1, 1, 2}));
}

Recipe long_recipe() {
  Recipe recipe = small_recipe();
  recipe.budget_samples = 1000 * 100;
  return recipe;
}

void clean(Coordinator& coordinator, std::int64_t updates) {
  for (std::int64_t i = 0; i < updates; ++i) {
    coordinator.on_step(facts_of(coordinator.steps_done() + 1));
  }
}

TEST(LeafSizer, HalvesToTheNextDivisorDownToOne) {
  Recipe recipe = small_recipe();
  recipe.global_batch = 60;
  recipe.leaf_size = 15;
  Coordinator coordinator(recipe, 4);
  std::vector<std::int64_t> sizes = {leaf_of(coordinator)};
  while (coordinator.on_out_of_memory({1, 2, 0})) {
    sizes.push_back(leaf_of(coordinator));
  }
  EXPECT_EQ(sizes, (std::vector<std::int64_t>{15, 6, 3, 1, 1}));  // at 1 once more
  EXPECT_EQ(leaf_of(coordinator), 1);
  EXPECT_THAT(coordinator.take_decisions().back().reason,
              ::testing::HasSubstr("leaves of one sample: the update is done once more"));
}

// A recovery comes by the same updates again.
TEST(LeafSizer, TheSecondTryIsThereAgainAfterARecovery) {
  Recipe recipe = small_recipe();
  recipe.leaf_size = 1;
  recipe.max_recoveries = 1;
  recipe.max_skipped_in_row = 2;
  Coordinator coordinator(recipe, 4);
  coordinator.on_step(facts_of(1));
  const std::string saved = coordinator.state();
  run_out(coordinator);
  coordinator.on_step(facts_of(2));
  for (std::int64_t step = 3; step <= 4; ++step) {
    StepFacts facts = facts_of(step);
    facts.applied = false;
    coordinator.on_step(facts);
  }
  coordinator.recover(saved);
  ASSERT_EQ(coordinator.steps_done(), 1);
  run_out(coordinator);
}

TEST(LeafSizer, GrowsOnlyAfterUpdatesThatNeededNoSecondTry) {
  Coordinator coordinator(long_recipe(), 4);
  run_out(coordinator);
  run_out(coordinator);
  ASSERT_EQ(leaf_of(coordinator), 1);
  for (int i = 0; i < 2 * LeafSizer::kPatience; ++i) {
    run_out(coordinator);
    clean(coordinator, 1);
  }
  EXPECT_EQ(leaf_of(coordinator), 1);
  clean(coordinator, LeafSizer::kPatience);
  EXPECT_EQ(leaf_of(coordinator), 2);
}

TEST(LeafSizer, EveryUpdateInLeavesOfOneHasASecondTry) {
  Recipe recipe = small_recipe();
  recipe.leaf_size = 1;
  Coordinator coordinator(recipe, 4);
  for (std::int64_t step = 1; step <= 3; ++step) {
    run_out(coordinator);
    coordinator.on_step(facts_of(step));
  }
  run_out(coordinator);
  EXPECT_FALSE(coordinator.on_out_of_memory({4, 1, 2}));
}

// I12: neither batch nor rates nor samples change, and neither does what the hash covers.
TEST(LeafSizer, ChangesNothingButTheLeaf) {
  Coordinator coordinator(small_recipe(), 4), undisturbed(small_recipe(), 4);
  for (std::int64_t step = 1; step <= 40; ++step) {
    if (step == 3 || step == 17) {
      run_out(coordinator);
    }
    StepPlan plan = *coordinator.next_step();
    const StepPlan expected = *undisturbed.next_step();
    EXPECT_EQ(plan.leaves, (plan.samples - 1) / plan.leaf_size + 1);
    EXPECT_EQ(plan.samples, expected.samples);
    EXPECT_EQ(plan.first_position, expected.first_position);
    EXPECT_EQ(plan.lr, expected.lr);
    EXPECT_EQ(plan.beta2, expected.beta2);
    coordinator.on_step(facts_of(step));
    undisturbed.on_step(facts_of(step));
    EXPECT_EQ(coordinator.state_hash(), undisturbed.state_hash());
  }
  EXPECT_EQ(leaf_of(coordinator), 1);
  EXPECT_EQ(leaf_of(undisturbed), 4);
}

TEST(LeafSizer, GrowsBackAfterCleanUpdatesAndWaitsLongerAfterEachFailure) {
  Coordinator coordinator(long_recipe(), 4);
  run_out(coordinator);
  EXPECT_EQ(leaf_of(coordinator), 2);
  clean(coordinator, LeafSizer::kPatience - 1);
  EXPECT_EQ(leaf_of(coordinator), 2);
  clean(coordinator, 1);
  EXPECT_EQ(leaf_of(coordinator), 4);
  run_out(coordinator);  // still too large
  clean(coordinator, 2 * LeafSizer::kPatience - 1);
  EXPECT_EQ(leaf_of(coordinator), 2);
  clean(coordinator, 1);
  EXPECT_EQ(leaf_of(coordinator), 4);
  run_out(coordinator);
  clean(coordinator, 4 * LeafSizer::kPatience - 1);
  EXPECT_EQ(leaf_of(coordinator), 2);
  const auto decisions = of_kind(coordinator.take_decisions(), "memory");
  ASSERT_EQ(decisions.size(), 5U);
  EXPECT_THAT(decisions[0].reason,
              ::testing::AllOf(::testing::HasSubstr("on 1 rank (the first is rank 2)"),
                               ::testing::HasSubstr("leaf 4 -> 2"),
                               ::testing::HasSubstr("same samples, batch and rates")));
}

TEST(LeafSizer, GoesOnAfterAResumeUnlessTheLeafWasChosenAnew) {
  Coordinator coordinator(long_recipe(), 4);
  run_out(coordinator);
  clean(coordinator, 10);
  auto same = Coordinator::restore(long_recipe(), 2, coordinator.state());
  EXPECT_EQ(leaf_of(same), 2);
  clean(same, LeafSizer::kPatience - 10);
  EXPECT_EQ(leaf_of(same), 4);
  Recipe other = long_recipe();
  other.leaf_size = 16;
  EXPECT_EQ(leaf_of(Coordinator::restore(other, 2, coordinator.state())), 16);
}

}  // namespace
}  // namespace lorascale::coordinator
