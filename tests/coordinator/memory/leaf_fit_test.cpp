#include "coordinator/memory/leaf_fit.hpp"

#include <algorithm>
#include <functional>
#include <map>

#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::small_recipe;

LeafMeasurement seen(std::int64_t leaf, double compute, double rest = 0) {
  return {leaf, true, compute, rest, 1.0};
}

TEST(MemoryLine, IsExactThroughPointsOnALine) {
  const std::vector<LeafMeasurement> points = {seen(1, 130, 90), seen(2, 160, 80),
                                               seen(8, 340, 70)};
  const auto line = fit_memory(points, 50);
  EXPECT_DOUBLE_EQ(line.fixed, 100);
  EXPECT_DOUBLE_EQ(line.per_sample, 30);
  EXPECT_EQ(line.rest, 70);  // of the largest leaf
  EXPECT_DOUBLE_EQ(line.peak(4), 220);
}

// The normal equations of three points by hand: x = 1, 2, 3 and y = 1, 2, 4.
TEST(MemoryLine, IsTheLeastSquaresLine) {
  const auto line = fit_memory(std::vector<LeafMeasurement>{seen(1, 1), seen(2, 2), seen(3, 4)}, 0);
  EXPECT_NEAR(line.per_sample, 1.5, 1e-12);
  EXPECT_NEAR(line.fixed, -2.0 / 3, 1e-12);
}

TEST(MemoryLine, OfASinglePointGivesAllAboveWhatIsHeldToTheSample) {
  const auto line = fit_memory(std::vector<LeafMeasurement>{seen(2, 150)}, 50);
  EXPECT_DOUBLE_EQ(line.per_sample, 50);
  EXPECT_DOUBLE_EQ(line.fixed, 50);
}

TEST(MemoryLine, LeavesOutWhatDidNotFit) {
  const std::vector<LeafMeasurement> points = {seen(1, 130), seen(2, 160), {4, false}};
  EXPECT_DOUBLE_EQ(fit_memory(points, 50).per_sample, 30);
  const auto none = fit_memory(std::vector<LeafMeasurement>{{1, false}}, 50);
  EXPECT_EQ(none.fixed, 50);
  EXPECT_EQ(none.per_sample, 0);
}

TEST(MemoryLine, TheLargestLeafIsTheLastWithinTheBudget) {
  const MemoryLine line{100, 30, 120};
  for (double budget = 1; budget < 700; budget += 7) {
    std::int64_t largest = 0;  // by trying
    while (line.peak(largest + 1) <= budget) {
      ++largest;
    }
    EXPECT_EQ(line.largest_leaf(budget), largest) << budget;
  }
  EXPECT_EQ(line.largest_leaf(0), MemoryLine::kUnlimited);
  EXPECT_GT((MemoryLine{100, 0, 0}.largest_leaf(1e6)), 1000);  // a leaf that takes nothing
}

TEST(MemoryLine, TheRuleOfThumbForgetsWhatIsFixed) {
  EXPECT_EQ(formula_leaf(700, 100, 30), 20);
  EXPECT_EQ(formula_leaf(90, 100, 30), 0);
}

TEST(UsableLeaves, DivideTheBatchAndLeaveNoRankIdle) {
  Recipe recipe = small_recipe();
  recipe.global_batch = 24;
  using Leaves = std::vector<std::int64_t>;
  EXPECT_EQ(usable_leaves(recipe, 1, 100), (Leaves{1, 2, 3, 4, 6, 8, 12, 24}));
  EXPECT_EQ(usable_leaves(recipe, 2, 100), (Leaves{1, 2, 3, 4, 6, 8, 12}));
  EXPECT_EQ(usable_leaves(recipe, 5, 100), (Leaves{1, 2, 3, 4}));
  EXPECT_EQ(usable_leaves(recipe, 1, 7), (Leaves{1, 2, 3, 4, 6}));
  EXPECT_EQ(usable_leaves(recipe, 99, 7), (Leaves{1}));
  EXPECT_EQ(usable_leaves(recipe, 1, 0), (Leaves{1}));
  recipe.batch_increment = 8;  // batches of 8, 16, 24, ...
  EXPECT_EQ(usable_leaves(recipe, 1, 100), (Leaves{1, 2, 4, 8}));
}

// Searches with ranks whose memory is `bytes` of a leaf and whose budget is given; returns what was
// measured.
struct Searched {
  std::vector<std::int64_t> measured;
  std::int64_t chosen = 0;
};
Searched search_with(const std::vector<std::int64_t>& usable, LeafAim aim,
                     const std::vector<double>& budgets,
                     const std::function<double(std::int64_t)>& bytes) {
  LeafSearch search(usable, aim);
  std::vector<std::vector<LeafMeasurement>> ranks(budgets.size());
  Searched result;
  while (const auto leaf = search.next()) {
    result.measured.push_back(*leaf);
    EXPECT_LE(result.measured.size(), usable.size()) << "a leaf is measured again";
    bool fits = true;
    std::int64_t predicted = MemoryLine::kUnlimited;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      const bool here = bytes(*leaf) <= budgets[rank];
      ranks[rank].push_back(here ? seen(*leaf, bytes(*leaf)) : LeafMeasurement{*leaf, false});
      fits = fits && here;
      predicted = std::min(predicted, fit_memory(ranks[rank], 100).largest_leaf(budgets[rank]));
    }
    search.on_measured(*leaf, fits, predicted);
    if (result.measured.size() > usable.size()) {
      break;
    }
  }
  result.chosen = search.largest();
  return result;
}

const std::vector<std::int64_t> kDivisorsOf96 = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96};

TEST(LeafSearch, FindsTheLargestThatFitsOnALine) {
  const auto bytes = [](std::int64_t leaf) { return 100 + 10.0 * static_cast<double>(leaf); };
  for (double budget = 90; budget < 1200; budget += 3) {
    std::int64_t largest = 0;
    for (const auto leaf : kDivisorsOf96) {
      largest = bytes(leaf) <= budget ? leaf : largest;
    }
    for (const LeafAim aim : {LeafAim::kLargest, LeafAim::kAll}) {
      const auto found = search_with(kDivisorsOf96, aim, {budget}, bytes);
      EXPECT_EQ(found.chosen, largest) << budget;
      if (aim == LeafAim::kLargest) {
        EXPECT_LE(found.measured.size(), 3U) << budget;  // two points, and the one they predict
      }
    }
  }
}

TEST(LeafSearch, TakesTheMinimumOverRanks) {
  const auto bytes = [](std::int64_t leaf) { return 100 + 10.0 * static_cast<double>(leaf); };
  EXPECT_EQ(search_with(kDivisorsOf96, LeafAim::kLargest, {2000, 185, 2000}, bytes).chosen, 8);
  EXPECT_EQ(search_with(kDivisorsOf96, LeafAim::kLargest, {2000, 105, 2000}, bytes).chosen, 0);
}

// Memory that grows faster than the first points say: the prediction fails, and it steps down.
TEST(LeafSearch, StepsDownWhereThePredictionFails) {
  const auto bytes = [](std::int64_t leaf) {
    const auto x = static_cast<double>(leaf);
    return 100 + 10 * x + x * x;
  };
  const auto found = search_with(kDivisorsOf96, LeafAim::kLargest, {500}, bytes);
  EXPECT_EQ(found.chosen, 12);  // 100 + 120 + 144 <= 500 < 100 + 160 + 256
  EXPECT_EQ(std::count(found.measured.begin(), found.measured.end(), 12), 1) << "not confirmed";
}

// Memory that grows slower than the first points say: each confirmed leaf corrects the line.
TEST(LeafSearch, StepsUpWhereThePredictionWasTooCareful) {
  const auto bytes = [](std::int64_t leaf) {
    return 100 + 10 * std::sqrt(100 * static_cast<double>(leaf));
  };
  const auto found = search_with(kDivisorsOf96, LeafAim::kLargest, {600}, bytes);
  EXPECT_GE(found.chosen, 16);
  EXPECT_LE(bytes(found.chosen), 600);
}

TEST(LeafSearch, WithoutALimitTheLargestIsTried) {
  LeafSearch search(kDivisorsOf96, LeafAim::kLargest);
  std::vector<std::int64_t> measured;
  while (const auto leaf = search.next()) {
    measured.push_back(*leaf);
    search.on_measured(*leaf, true, MemoryLine::kUnlimited);
  }
  EXPECT_EQ(measured, (std::vector<std::int64_t>{1, 2, 96}));
  EXPECT_EQ(search.largest(), 96);
}

TEST(LeafSearch, AThoroughOneDoublesUpToWhatIsPredicted) {
  const auto bytes = [](std::int64_t leaf) { return 100 + 10.0 * static_cast<double>(leaf); };
  const auto found = search_with(kDivisorsOf96, LeafAim::kAll, {400}, bytes);
  EXPECT_EQ(found.measured, (std::vector<std::int64_t>{1, 2, 4, 8, 16, 24}));
  EXPECT_EQ(found.chosen, 24);
}

// Speeds by leaf, without noise.
std::vector<std::int64_t> measured_for_speed(const std::map<std::int64_t, double>& speeds,
                                             std::int64_t fits_up_to = MemoryLine::kUnlimited) {
  LeafSearch search(kDivisorsOf96, LeafAim::kFastest);
  std::vector<std::int64_t> measured;
  while (const auto leaf = search.next()) {
    measured.push_back(*leaf);
    const auto at_most = std::prev(speeds.upper_bound(*leaf));
    search.on_measured(*leaf, *leaf <= fits_up_to, fits_up_to, {*leaf, at_most->second, 0});
  }
  return measured;
}

TEST(LeafSearch, OneForTheFastestEndsWhereTwoSizesGainNothing) {
  using Leaves = std::vector<std::int64_t>;
  EXPECT_EQ(measured_for_speed({{1, 5}}), (Leaves{1, 2, 4}));
  EXPECT_EQ(measured_for_speed({{1, 5}, {2, 9}, {4, 9}}), (Leaves{1, 2, 4, 8}));
  // One size that gains nothing is not the end of it.
  EXPECT_EQ(measured_for_speed({{1, 5}, {2, 5}, {4, 9}}), (Leaves{1, 2, 4, 8, 16}));
  EXPECT_EQ(measured_for_speed({{1, 5}, {2, 6}, {4, 6}, {8, 9}}), (Leaves{1, 2, 4, 8, 16, 32}));
  // As long as it gains, up to the largest that fits.
  EXPECT_EQ(measured_for_speed({{1, 1}, {2, 2}, {4, 4}, {8, 8}, {16, 16}, {24, 24}}, 24),
            (Leaves{1, 2, 4, 8, 16, 24}));
}

TEST(LeafMeasured, IsLoggedSavedAndReplayable) {
  Coordinator coordinator(small_recipe(), 2), silent(small_recipe(), 2);
  static_cast<void>(coordinator.take_decisions());
  const LeafFacts facts{0, 4, 8, 1, 64 << 20, 48 << 20, 16 << 20, 8 << 20, 4 << 20};
  coordinator.on_leaf_measured(facts);
  EXPECT_EQ(coordinator.state_hash(), silent.state_hash());
  EXPECT_EQ(Coordinator::saved_leaf_size(coordinator.state()), 4);
  const auto decisions = coordinator.take_decisions();
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].kind, "memory");
  for (const char* words : {"leaf 4 of those up to 8", "rank 1", "16 MiB of 64 MiB",
                            "16 MiB + 8 MiB per sample", "which 6 would fill", "says 7"}) {
    EXPECT_THAT(decisions[0].reason, ::testing::HasSubstr(words));
  }
}

}  // namespace
}  // namespace lorascale::coordinator
