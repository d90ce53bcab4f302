#include "coordinator/memory/leaf_choice.hpp"

#include <algorithm>

#include "coordinator/memory/leaf_table.hpp"
#include "coordinator/record/replay.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::small_recipe;

TEST(FastestLeaf, IsTheFastestBeyondNoise) {
  EXPECT_EQ(fastest_leaf({}), 0);
  EXPECT_EQ(fastest_leaf(std::vector<LeafSpeed>{{4, 10, 0}}), 4);
  // As a first user met it: the largest is far from the fastest.
  EXPECT_EQ(
      fastest_leaf(std::vector<LeafSpeed>{
          {1, 17.2, 0.01}, {2, 19.1, 0.02}, {4, 17.9, 0.01}, {8, 14.3, 0.02}, {16, 12, 0.01}}),
      2);
  EXPECT_EQ(fastest_leaf(std::vector<LeafSpeed>{{1, 5, 0}, {2, 8, 0}, {4, 12, 0}}), 4);
}

// Both sides of every limit: of the least noise, of what was measured, of the most that is
// believed.
TEST(FastestLeaf, TakesTheSmallestOfEquallyFastOnes) {
  const auto chosen = [](double slower_by, double noise_of_small, double noise_of_large) {
    return fastest_leaf(std::vector<LeafSpeed>{{2, 100 * (1 - slower_by), noise_of_small},
                                               {8, 100, noise_of_large}});
  };
  EXPECT_EQ(chosen(0.029, 0, 0), 2);
  EXPECT_EQ(chosen(0.031, 0, 0), 8);
  EXPECT_EQ(chosen(0.079, 0.08, 0), 2);
  EXPECT_EQ(chosen(0.081, 0.08, 0), 8);
  EXPECT_EQ(chosen(0.079, 0, 0.08), 2);
  EXPECT_EQ(chosen(0.149, 0.9, 0.9), 2);
  EXPECT_EQ(chosen(0.151, 0.9, 0.9), 8);
}

TEST(FastestLeaf, DoesNotDependOnTheOrder) {
  std::vector<LeafSpeed> speeds = {{1, 9.5, 0.01}, {2, 9.8, 0.02}, {4, 10, 0}, {8, 10, 0.04}};
  std::ranges::sort(speeds, {}, &LeafSpeed::leaf_size);
  const auto chosen = fastest_leaf(speeds);
  EXPECT_EQ(chosen, 2);
  while (std::ranges::next_permutation(speeds, {}, &LeafSpeed::leaf_size).found) {
    EXPECT_EQ(fastest_leaf(speeds), chosen);
  }
}

// Seconds of leaves of 4 and 8 on three ranks.
LeafTable table_of(double third_rank) {
  LeafTable table{{4, 8}, 0, {}, 24, 3};
  for (const double seconds : {1.0, 1.0, third_rank}) {
    RankMemory rank;
    rank.measured = {{4, true, 10, 5, seconds, 0.01}, {8, true, 20, 5, 2 * seconds, 0.05}};
    table.ranks.push_back(rank);
  }
  return table;
}

TEST(LeafTableSpeeds, AreThoseOfAnUpdateByTheSlowestRank) {
  EXPECT_DOUBLE_EQ(*table_of(1).samples_per_second(4), 12);  // 6 leaves, 2 on each
  EXPECT_DOUBLE_EQ(*table_of(1).samples_per_second(8), 12);
  EXPECT_DOUBLE_EQ(*table_of(2).samples_per_second(4), 6);
  // 16 samples in leaves of 8 are 2 for 3 ranks: an update takes as long as 24 would.
  auto idle = table_of(1);
  idle.global_batch = 16;
  EXPECT_DOUBLE_EQ(*idle.samples_per_second(8), 8);
  EXPECT_DOUBLE_EQ(*idle.samples_per_second(4), 8);
  const auto speeds = table_of(1).speeds();
  ASSERT_EQ(speeds.size(), 2U);
  EXPECT_EQ(speeds[1].noise, 0.05);
  auto short_of_memory = table_of(1);
  short_of_memory.ranks[2].measured[1].fits = false;
  EXPECT_EQ(short_of_memory.speeds().size(), 1U);
}

TEST(LeafMeasured, BySpeedIsExplainedAndReplayable) {
  auto table = table_of(1);
  table.chosen = fastest_leaf(table.speeds());
  EXPECT_EQ(table.chosen, 4);
  auto recipe = small_recipe();
  recipe.leaf_size = 4;
  Coordinator coordinator(recipe, 3);
  static_cast<void>(coordinator.take_decisions());
  const LeafFacts facts = table.facts(/*by_speed=*/true);
  coordinator.on_leaf_measured(facts);
  const auto decisions = coordinator.take_decisions();
  ASSERT_EQ(decisions.size(), 1U);
  for (const char* words : {"leaf 4 of those up to 8", "4: 12 (noise 3 %), 8: 12 (noise 5 %)",
                            "no rank knows a limit"}) {
    EXPECT_THAT(decisions[0].reason, ::testing::HasSubstr(words));
  }
  // Through a line of the event record and back.
  Recorder recorder(recipe);
  const auto read = event_from_json_line(to_json_line(recorder.record(facts)));
  Coordinator again(recipe, 3);
  static_cast<void>(again.take_decisions());
  again.on_leaf_measured(std::get<LeafFacts>(read.event));
  EXPECT_EQ(again.take_decisions()[0].reason, decisions[0].reason);
}

}  // namespace
}  // namespace lorascale::coordinator
