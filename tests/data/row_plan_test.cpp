#include "data/row_plan.hpp"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "base/rng.hpp"

namespace lorascale::data {
namespace {

TEST(RowPlanTest, WithoutPackingEachDocumentIsOneRowCutToLength) {
  const std::vector<std::int64_t> offsets = {0, 3, 13, 14};
  const RowPlan plan(offsets, 5, /*packing=*/false);
  ASSERT_EQ(plan.rows(), 3);
  EXPECT_EQ(plan.row(1)[0].first, 3);
  EXPECT_EQ(plan.row(1)[0].length, 5);
  EXPECT_EQ(plan.tokens(), 3 + 5 + 1);
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
