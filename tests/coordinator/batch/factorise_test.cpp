#include "coordinator/batch/factorise.hpp"

#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::expect_error;

// V16: every (B, W, b_max) against what a search over all leaf sizes finds.
TEST(Factorise, V16BruteForce) {
  for (std::int64_t batch = 1; batch <= 256; ++batch) {
    for (int world = 1; world <= 64; ++world) {
      for (std::int64_t limit = 1; limit <= 32; ++limit) {
        std::int64_t best = 0;
        std::int64_t best_idle = 0;
        for (std::int64_t leaf = limit; leaf >= 1; --leaf) {
          if (batch % leaf != 0) {
            continue;
          }
          const std::int64_t idle = std::max<std::int64_t>(0, world - batch / leaf);
          if (best == 0 || idle < best_idle) {
            best = leaf;
            best_idle = idle;
          }
        }
        const Factorisation found = factorise(batch, world, limit);
        ASSERT_EQ(found.leaf_size, best) << batch << " " << world << " " << limit;
        ASSERT_EQ(found.idle_ranks, best_idle);
        ASSERT_EQ(found.global_batch, batch);
        ASSERT_EQ(found.leaves * found.leaf_size, batch);
      }
    }
  }
}

// V16: a given leaf is refused if and only if it does not divide B, and the refusal names the
// nearest that do.
TEST(Factorise, V16RefusesWhatDoesNotDivide) {
  for (std::int64_t batch = 1; batch <= 256; ++batch) {
    for (std::int64_t leaf = 1; leaf <= 32; ++leaf) {
      const auto line = leaf_contradiction(batch, leaf);
      ASSERT_EQ(line.has_value(), batch % leaf != 0) << batch << " " << leaf;
      if (!line) {
        continue;
      }
      std::int64_t below = batch - 1;
      std::int64_t above = batch + 1;
      std::int64_t smaller = leaf - 1;
      std::int64_t larger = leaf + 1;
      for (; below > 0 && below % leaf != 0; --below) {
      }
      for (; above % leaf != 0; ++above) {
      }
      for (; batch % smaller != 0; --smaller) {
      }
      for (; larger <= batch && batch % larger != 0; ++larger) {
      }
      std::string remedy = "use batch.global ";
      remedy += below > 0 ? std::to_string(below) + " or " : "";
      remedy += std::to_string(above) + ", or batch.micro " + std::to_string(smaller);
      remedy += larger <= batch ? " or " + std::to_string(larger) : "";
      ASSERT_TRUE(line->ends_with(remedy)) << *line << "\nexpected: " << remedy;
    }
  }
  expect_error(ExitCode::kBadConfig,
               {"batch.micro 6 does not divide batch.global 64", "60 or 66", "batch.micro 4 or 8"},
               [] { factorise_by_leaf(64, 2, 6); });
}

// V16: leaves of all ranks are a partition in order, and counts differ by at most one.
TEST(Factorise, V16LeavesOfRanksPartition) {
  for (std::int64_t leaves = 0; leaves <= 256; ++leaves) {
    for (int world = 1; world <= 64; ++world) {
      std::int64_t next = 0;
      std::int64_t least = leaves;
      std::int64_t most = 0;
      for (int rank = 0; rank < world; ++rank) {
        const LeafRange range = leaves_of_rank(leaves, rank, world);
        ASSERT_EQ(range.begin, next);
        ASSERT_GE(range.end, range.begin);
        next = range.end;
        least = std::min(least, range.end - range.begin);
        most = std::max(most, range.end - range.begin);
      }
      ASSERT_EQ(next, leaves);
      ASSERT_LE(most - least, 1);
      if (leaves > 0) {
        const Factorisation parts = factorise_by_leaf(leaves, world, 1);
        ASSERT_EQ(parts.min_leaves_per_rank, least);
        ASSERT_EQ(parts.max_leaves_per_rank, most);
        ASSERT_EQ(parts.idle_ranks, std::max<std::int64_t>(0, world - leaves));
      }
    }
  }
}

TEST(Factorise, UnevenCountsAndBalance) {
  const Factorisation parts = factorise_by_leaf(64, 3, 16);
  EXPECT_EQ(parts.leaves, 4);
  EXPECT_EQ(parts.min_leaves_per_rank, 1);
  EXPECT_EQ(parts.max_leaves_per_rank, 2);
  EXPECT_DOUBLE_EQ(parts.balance(), 4.0 / 6.0);
  EXPECT_DOUBLE_EQ(factorise(64, 8, 4).balance(), 1.0);
}

TEST(Factorise, PrefersASmallerLeafToAnIdleRank) {
  EXPECT_EQ(factorise(64, 8, 32).leaf_size, 8);
  EXPECT_EQ(factorise(64, 7, 32).leaf_size, 8);
  EXPECT_EQ(factorise(7, 2, 32).leaf_size, 1);  // 7 would leave one rank without work
  const Factorisation parts = factorise(4, 6, 4);
  EXPECT_EQ(parts.leaf_size, 1);
  EXPECT_EQ(parts.idle_ranks, 2);
}

TEST(Factorise, RefusesBadArguments) {
  expect_error(ExitCode::kBadConfig, {"batch.global is 0"}, [] { factorise(0, 1, 1); });
  expect_error(ExitCode::kBadConfig, {"world size is 0"}, [] { factorise(1, 0, 1); });
  expect_error(ExitCode::kBadConfig, {"batch.micro is -1", "auto"}, [] { factorise(1, 1, -1); });
}

TEST(LeavesOfRankDeathTest, RefusesARankOutsideTheWorld) {
  EXPECT_DEATH(leaves_of_rank(4, 2, 2), "rank < world_size");
}

}  // namespace
}  // namespace lorascale::coordinator
