#include "data/sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace lorascale::data {
namespace {

std::vector<std::int64_t> order_of(std::int64_t rows, std::uint64_t seed, std::int64_t epoch) {
  const EpochOrder order(rows, seed, epoch);
  std::vector<std::int64_t> result;
  for (std::int64_t position = 0; position < rows; ++position) {
    result.push_back(order.row_at(position));
  }
  return result;
}

// V17: every row exactly once, for sizes around powers of two, primes and the smallest.
TEST(EpochOrderTest, V17IsABijection) {
  for (const std::int64_t rows :
       {1, 2, 3, 4, 5, 7, 15, 16, 17, 997, 1023, 1024, 1025, 65536, 65537}) {
    for (const std::uint64_t seed : {0ULL, 1ULL, 0xFFFFFFFFFFFFFFFFULL}) {
      std::vector<bool> seen(static_cast<std::size_t>(rows));
      for (const auto row : order_of(rows, seed, 2)) {
        ASSERT_GE(row, 0);
        ASSERT_LT(row, rows);
        ASSERT_FALSE(seen[static_cast<std::size_t>(row)]) << rows << " rows, seed " << seed;
        seen[static_cast<std::size_t>(row)] = true;
      }
    }
  }
}

TEST(EpochOrderTest, DiffersByEpochAndSeedAndRepeats) {
  const auto first = order_of(1000, 7, 0);
  EXPECT_EQ(first, order_of(1000, 7, 0));
  EXPECT_NE(first, order_of(1000, 7, 1));
  EXPECT_NE(first, order_of(1000, 8, 0));
}

// Where row 0 lands is uniform over positions: chi-square of 16 cells over 4096 epochs, 15 degrees
// of freedom; 44.3 is exceeded with probability 1e-4.
TEST(EpochOrderTest, IsUniformOverPositions) {
  constexpr int kEpochs = 4096;
  std::vector<int> counts(16);
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    ++counts[static_cast<std::size_t>(EpochOrder(16, 3, epoch).row_at(0))];
  }
  double chi_square = 0;
  for (const int count : counts) {
    chi_square += std::pow(count - kEpochs / 16.0, 2) / (kEpochs / 16.0);
  }
  EXPECT_LT(chi_square, 44.3);
}

}  // namespace
}  // namespace lorascale::data
