#include "data/tokens/row_plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/rng.hpp"

namespace lorascale::data {
namespace {

TEST(RowPlanTest, WithoutPackingEachDocumentIsOneRowCutToLength) {
  const std::vector<std::int64_t> offsets = {0, 3, 13, 15};
  const RowPlan plan(offsets, 5, /*packing=*/false);
  ASSERT_EQ(plan.rows(), 3);
  EXPECT_EQ(plan.row(1)[0].first, 3);
  EXPECT_EQ(plan.row(1)[0].length, 5);
  EXPECT_EQ(plan.tokens(), 3 + 5 + 2);
}

TEST(RowPlanTest, PackingFillsTheRowThatFitsBest) {
  // Lengths 6, 4, 2, 3 into rows of 8: 6 opens row 0, 4 opens row 1, 2 fills row 0, 3 goes to
  // row 1.
  const std::vector<std::int64_t> offsets = {0, 6, 10, 12, 15};
  const RowPlan plan(offsets, 8, /*packing=*/true);
  ASSERT_EQ(plan.rows(), 2);
  ASSERT_EQ(plan.row(0).size(), 2U);
  EXPECT_EQ(plan.row(0)[1].first, 10);
  EXPECT_EQ(plan.row(1)[1].first, 12);
  EXPECT_DOUBLE_EQ(plan.efficiency(), 15.0 / 16.0);
}

TEST(RowPlanTest, PackingKeepsEveryTokenOnceAndNoRowTooLong) {
  std::vector<std::int64_t> offsets = {0};
  for (std::uint32_t i = 0; i < 3000; ++i) {
    offsets.push_back(offsets.back() + 1 + philox4x32({i, 0, 0, 0}, {1, 2})[0] % 150);
  }
  const RowPlan plan(offsets, 64, /*packing=*/true);
  std::vector<bool> seen(static_cast<std::size_t>(offsets.back()));
  for (std::int64_t row = 0; row < plan.rows(); ++row) {
    std::int64_t length = 0;
    for (const auto& piece : plan.row(row)) {
      length += piece.length;
      for (auto token = piece.first; token < piece.first + piece.length; ++token) {
        ASSERT_FALSE(seen[static_cast<std::size_t>(token)]);
        seen[static_cast<std::size_t>(token)] = true;
      }
    }
    ASSERT_LE(length, 64);
    ASSERT_GE(length, 1);
  }
  EXPECT_EQ(plan.tokens(), offsets.back());
  EXPECT_GT(plan.efficiency(), 0.97);
}

// A mask of which nothing is known but counts.
CountTargets of(const std::vector<int>& mask) {
  return [&mask](std::int64_t begin, std::int64_t end) {
    return std::count(mask.begin() + begin, mask.begin() + end, 1);
  };
}

TEST(RowPlanTest, WithoutPackingARowWithoutATargetIsLeftOut) {
  // Documents: its answer in the row; beyond it; none at all; only its first token, which nothing
  // predicts; a single token.
  const std::vector<std::int64_t> offsets = {0, 4, 13, 16, 18, 19};
  const std::vector<int> mask = {0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 1};
  const RowPlan plan(offsets, 6, /*packing=*/false, of(mask));
  ASSERT_EQ(plan.rows(), 1);
  EXPECT_EQ(plan.row(0)[0].first, 0);
  EXPECT_EQ(plan.targets(), 2);
  EXPECT_EQ(plan.left_out().pieces, 4);
  EXPECT_EQ(plan.left_out().of, 5);
  EXPECT_EQ(plan.left_out().cut, 1);
  EXPECT_EQ(plan.left_out().longest_cut, 9);
  EXPECT_EQ(RowPlan(offsets, 9, false, of(mask)).left_out().cut, 0);
}

TEST(RowPlanTest, PackingLeavesOutPiecesWithoutATarget) {
  // A prompt of 9 and its answer of 3 in rows of 5: pieces 5, 5 and 2, of which the first has none.
  const std::vector<std::int64_t> offsets = {0, 12};
  const std::vector<int> mask = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1};
  const RowPlan plan(offsets, 5, /*packing=*/true, of(mask));
  ASSERT_EQ(plan.rows(), 2);
  EXPECT_EQ(plan.row(0)[0].first, 5);
  EXPECT_EQ(plan.targets(), 2);  // the tenth token and the last; the eleventh begins a piece
  EXPECT_EQ(plan.left_out().pieces, 1);
  EXPECT_EQ(plan.left_out().of, 3);
}

// What a long document leaves over is packed as ever, so that rows of plain text stay what they
// were; a row of nothing else is none.
TEST(RowPlanTest, PackingKeepsSingleTokensWhereARowHasATarget) {
  const RowPlan filled(std::vector<std::int64_t>{0, 9, 12}, 4, /*packing=*/true);
  ASSERT_EQ(filled.rows(), 3);
  EXPECT_EQ(filled.tokens(), 12);
  EXPECT_EQ(filled.targets(), 3 + 3 + 2);
  EXPECT_EQ(filled.left_out().pieces, 0);
  const RowPlan alone(std::vector<std::int64_t>{0, 1, 2, 3}, 4, /*packing=*/true);
  EXPECT_EQ(alone.rows(), 0);
  EXPECT_EQ(alone.left_out().pieces, 3);
  EXPECT_EQ(alone.efficiency(), 0);
}

// By going through every row: none without a target, no target lost or counted twice but those
// that begin a piece.
TEST(RowPlanTest, EveryTargetIsInOneRowAndNoRowIsWithout) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<int> mask;
  for (std::uint32_t i = 0; i < 2000; ++i) {
    const auto bits = philox4x32({i, 0, 0, 0}, {3, 4});
    offsets.push_back(offsets.back() + 1 + bits[0] % 90);
    const auto first_target = offsets.back() - bits[1] % 60;
    while (static_cast<std::int64_t>(mask.size()) < offsets.back()) {
      const auto token = static_cast<std::int64_t>(mask.size());
      mask.push_back(bits[2] % 3 > 0 && token >= first_target ? 1 : 0);
    }
  }
  for (const bool packing : {false, true}) {
    const RowPlan plan(offsets, 32, packing, of(mask));
    std::int64_t targets = 0;
    std::int64_t pieces = 0;
    for (std::int64_t row = 0; row < plan.rows(); ++row) {
      std::int64_t here = 0;
      for (const auto& piece : plan.row(row)) {
        here += std::count(mask.begin() + piece.first + 1,
                           mask.begin() + piece.first + piece.length, 1);
        ++pieces;
      }
      ASSERT_GT(here, 0) << row;
      targets += here;
    }
    EXPECT_EQ(plan.targets(), targets);
    EXPECT_EQ(plan.left_out().of, pieces + plan.left_out().pieces);
    std::int64_t expected = 0;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      for (auto token = offsets[i]; token < offsets[i + 1]; ++token) {
        const bool begins = (token - offsets[i]) % 32 == 0;
        const bool in_row = packing || token - offsets[i] < 32;
        expected += mask[static_cast<std::size_t>(token)] == 1 && !begins && in_row ? 1 : 0;
      }
    }
    EXPECT_EQ(plan.targets(), expected);
  }
}

// data.packing auto, on both sides of each of its limits.
TEST(RowPlanTest, ShortDocumentsStayApartWherePackingLeavesTooFewUpdates) {
  const auto offsets_of = [](std::int64_t documents, std::int64_t length) {
    std::vector<std::int64_t> offsets;
    for (std::int64_t i = 0; i <= documents; ++i) {
      offsets.push_back(i * length);
    }
    return offsets;
  };
  const auto apart = [](const std::vector<std::int64_t>& offsets, std::int64_t batch) {
    const RowPlan packed(offsets, 64, /*packing=*/true);
    return better_apart(offsets, 64, packed.rows(), batch);
  };
  EXPECT_TRUE(apart(offsets_of(45, 7), 2));     // 5 rows, 3 updates
  EXPECT_TRUE(apart(offsets_of(76, 16), 1));    // 19 rows, 19 updates
  EXPECT_FALSE(apart(offsets_of(77, 16), 1));   // 20
  EXPECT_TRUE(apart(offsets_of(152, 16), 2));   // 38 rows, 19 updates
  EXPECT_FALSE(apart(offsets_of(153, 16), 2));  // 39 rows, the last update short
  EXPECT_FALSE(apart(offsets_of(10, 64), 4));   // nothing shares a row
  EXPECT_FALSE(apart(offsets_of(1, 5), 4));
  auto with_long = offsets_of(45, 7);
  with_long.push_back(with_long.back() + 64);
  EXPECT_TRUE(apart(with_long, 2));
  with_long.back() += 1;  // would lose its last token
  EXPECT_FALSE(apart(with_long, 2));
}

}  // namespace
}  // namespace lorascale::data
