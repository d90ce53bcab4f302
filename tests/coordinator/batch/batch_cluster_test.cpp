// 1,024 ranks with a coordinator each, whose policies change the batch: all agree after every
// update (I7), their leaves are the update's leaves, each exactly once (I1).
#include "batch_support.hpp"

namespace lorascale::coordinator {
namespace {

constexpr int kRanks = 1024;

TEST(BatchCluster, RanksAgreeUnderEveryPolicy) {
  for (const BatchPolicyKind policy : testing::kGrowing) {
    Recipe recipe = testing::growing_recipe(policy);
    recipe.samples_per_epoch = 60013;
    recipe.budget_samples = 2 * 60013;
    recipe.global_batch = 1024;
    recipe.batch_max = 8192;
    recipe.batch_min_steps = 10;
    recipe.critical_batch = 1e5;
    recipe.batch_ramp_samples = policy == BatchPolicyKind::kRamp ? 50000 : 0;
    std::vector<Coordinator> ranks;
    ranks.reserve(kRanks);
    for (int rank = 0; rank < kRanks; ++rank) {
      ranks.emplace_back(recipe, kRanks);
    }
    const int updates = policy == BatchPolicyKind::kGoodput ? 25 : 60;
    for (int i = 0; i < updates; ++i) {
      const auto plan = ranks[0].next_step();
      if (!plan) {
        break;
      }
      std::int64_t next_leaf = 0;
      for (int rank = 0; rank < kRanks; ++rank) {
        const StepPlan mine = *ranks[static_cast<std::size_t>(rank)].next_step();
        ASSERT_EQ(mine.samples, plan->samples);
        ASSERT_EQ(mine.first_position, plan->first_position);
        ASSERT_EQ(mine.lr, plan->lr);
        const LeafRange range = leaves_of_rank(mine.leaves, rank, kRanks);
        ASSERT_EQ(range.begin, next_leaf);
        next_leaf = range.end;
      }
      ASSERT_EQ(next_leaf, plan->leaves);
      const StepFacts facts = testing::timed_facts(*plan, kRanks, testing::true_times(), 0.02, 3);
      for (Coordinator& rank : ranks) {
        rank.on_step(facts);
      }
    }
    const std::uint64_t hash = ranks[0].state_hash();
    const std::string state = ranks[0].state();
    for (Coordinator& rank : ranks) {
      ASSERT_EQ(rank.state_hash(), hash);
      ASSERT_EQ(rank.state(), state);
    }
    EXPECT_GT(ranks[0].batch(), 1024);
  }
}

}  // namespace
}  // namespace lorascale::coordinator
