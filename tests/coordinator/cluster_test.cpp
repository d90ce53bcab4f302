// A cluster in one process: 1,024 ranks with a coordinator each, fed with the same facts. I7: all
// hold the same state after every update; I1: their leaves are the update's leaves, each exactly
// once.
#include <limits>
#include <vector>

#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::facts_of;

constexpr int kRanks = 1024;
constexpr std::int64_t kUpdates = 300;

Recipe large_recipe() {
  Recipe recipe = testing::small_recipe();
  recipe.samples_per_epoch = 100003;  // prime: every epoch ends in a short update
  recipe.global_batch = 4096;
  recipe.reference_batch = 64;
  recipe.leaf_size = 2;
  recipe.budget_samples = 100003 * 12;
  recipe.warmup_samples = 40000;
  recipe.scale_eps = true;
  return recipe;
}

TEST(Cluster, RanksAgreeAndLeavesPartition) {
  std::vector<Coordinator> ranks;
  ranks.reserve(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) {
    ranks.emplace_back(large_recipe(), kRanks);
  }
  std::int64_t position = 0;
  for (std::int64_t step = 1; step <= kUpdates; ++step) {
    const StepPlan plan = *ranks[0].next_step();
    ASSERT_EQ(plan.first_position, position);
    std::int64_t next_leaf = 0;
    for (int rank = 0; rank < kRanks; ++rank) {
      const StepPlan mine = *ranks[static_cast<std::size_t>(rank)].next_step();
      ASSERT_EQ(mine.samples, plan.samples);
      ASSERT_EQ(mine.lr, plan.lr);
      const LeafRange range = leaves_of_rank(mine.leaves, rank, kRanks);
      ASSERT_EQ(range.begin, next_leaf);
      next_leaf = range.end;
    }
    ASSERT_EQ(next_leaf, plan.leaves);
    ASSERT_EQ((plan.samples + 1) / 2, plan.leaves);
    StepFacts facts = facts_of(step);
    facts.applied = step % 37 != 0;
    for (Coordinator& rank : ranks) {
      rank.on_step(facts);
      if (step % 50 == 0) {
        rank.on_evaluation({step, facts.loss});
      }
    }
    position += plan.samples;
  }
  const std::uint64_t hash = ranks[0].state_hash();
  const std::string state = ranks[0].state();
  const auto log = ranks[0].take_decisions();
  for (Coordinator& rank : ranks) {
    ASSERT_EQ(rank.state_hash(), hash);
    ASSERT_EQ(rank.state(), state);
    const auto mine = rank.take_decisions();
    if (&rank != &ranks[0]) {
      ASSERT_EQ(mine.size(), log.size());
      ASSERT_EQ(mine.back().chain, log.back().chain);
    }
  }
}

// Another number of ranks at every restart: the same samples, rates and state as one machine that
// never stopped.
TEST(Cluster, ChangesOfSizeDoNotShow) {
  Coordinator alone(large_recipe(), 1);
  Coordinator moving(large_recipe(), 1000);
  std::int64_t step = 0;
  for (const int world_size : {7, 1024, 3, 64, 1, 999}) {
    Recipe recipe = large_recipe();
    recipe.leaf_size = world_size > 100 ? 1 : 4;
    moving = Coordinator::restore(recipe, world_size, moving.state());
    for (int i = 0; i < 40; ++i) {
      ++step;
      ASSERT_EQ(moving.next_step()->lr, alone.next_step()->lr);
      ASSERT_EQ(moving.next_step()->first_position, alone.next_step()->first_position);
      alone.on_step(facts_of(step));
      moving.on_step(facts_of(step));
    }
    ASSERT_EQ(moving.state_hash(), alone.state_hash());
    ASSERT_EQ(moving.world_size(), world_size);
  }
}

}  // namespace
}  // namespace lorascale::coordinator
