// Dropout masks: what they are a function of, and what they are not.
#include "nn/dropout.hpp"

#include <numeric>
#include <set>

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::same_bits;

SampleRows key_of(std::vector<std::int64_t> ids, std::vector<std::int32_t> offsets,
                  std::uint64_t seed = 7, std::int64_t epoch = 2) {
  return {{seed, epoch}, std::move(ids), std::move(offsets)};
}

at::Tensor mask(const SampleRows& key, std::uint32_t module = 5, double p = 0.3,
                std::int64_t width = 13) {
  return dropout_scale(key, module, p, width, at::TensorOptions().dtype(at::kFloat));
}

TEST(DropoutTest, ScalesWhatItKeeps) {
  const auto m = mask(key_of({1}, {0, 500}), 0, 0.25, 64);
  const auto kept = m.ne(0);
  EXPECT_TRUE(m.masked_select(kept).eq(static_cast<float>(4.0 / 3.0)).all().item<bool>());
  // 32000 draws: within five standard deviations of what is asked for.
  EXPECT_NEAR(kept.to(at::kDouble).mean().item<double>(), 0.75, 5 * std::sqrt(0.1875 / 32000));
  // Neither a column nor a row stands out.
  EXPECT_GT(kept.to(at::kDouble).mean(0).min().item<double>(), 0.75 - 6 * std::sqrt(0.1875 / 500));
  EXPECT_GT(kept.to(at::kDouble).mean(1).min().item<double>(), 0.75 - 6 * std::sqrt(0.1875 / 64));
}

TEST(DropoutTest, NothingIsDroppedAtZero) {
  EXPECT_TRUE(mask(key_of({1}, {0, 9}), 0, 0.0).eq(1.0F).all().item<bool>());
}

// The same sample meets the same mask in any company, also where its elements are no multiple of
// four.
TEST(DropoutTest, BelongsToTheSample) {
  const auto together = mask(key_of({40, 3, 999}, {0, 5, 6, 16}));
  EXPECT_TRUE(same_bits(together.narrow(0, 0, 5), mask(key_of({40}, {0, 5}))));
  EXPECT_TRUE(same_bits(together.narrow(0, 5, 1), mask(key_of({3}, {0, 1}))));
  EXPECT_TRUE(same_bits(together.narrow(0, 6, 10), mask(key_of({999}, {0, 10}))));
  EXPECT_TRUE(same_bits(mask(key_of({999, 40}, {0, 10, 15})),
                        at::cat({together.narrow(0, 6, 10), together.narrow(0, 0, 5)})));
}

TEST(DropoutTest, DiffersBySampleModuleEpochAndSeed) {
  const std::vector<std::int32_t> offsets = {0, 20};
  const std::int64_t far = std::int64_t{1} << 32;  // ids beyond 32 bits count in full
  std::vector<at::Tensor> masks = {mask(key_of({0}, offsets)),
                                   mask(key_of({1}, offsets)),
                                   mask(key_of({far}, offsets)),
                                   mask(key_of({0}, offsets), 6),
                                   mask(key_of({0}, offsets, 7, 3)),
                                   mask(key_of({0}, offsets, 8, 2)),
                                   mask(key_of({0}, offsets, 7 + far, 2))};
  for (std::size_t i = 0; i < masks.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const double equal = masks[i].eq(masks[j]).to(at::kDouble).mean().item<double>();
      // Independent masks agree at 0.7² + 0.3² = 58 % of 260 places.
      EXPECT_NEAR(equal, 0.58, 0.17) << i << " and " << j;
    }
  }
}

// The published generator, counted from the row's first element: block, module, sample id.
TEST(DropoutTest, IsPhiloxByPlace) {
  const std::int64_t sample = (std::int64_t{3} << 32) + 11;
  const auto m = mask(key_of({sample}, {0, 3}, 99, 4), 17, 0.5, 7);
  const auto key = philox_key(mix64(99 ^ mix64(4)));
  for (std::uint32_t i = 0; i < 21; ++i) {
    const auto bits = philox4x32({i / 4, 17, 11, 3}, key)[i % 4];
    EXPECT_EQ(m.flatten()[i].item<float>(), (bits >> 31) == 0 ? 0.0F : 2.0F) << i;
  }
}

TEST(DropoutTest, EmptyRowsAndSixteenBit) {
  const auto with_gap = mask(key_of({4, 8, 6}, {0, 2, 2, 5}));
  EXPECT_TRUE(same_bits(with_gap, mask(key_of({4, 6}, {0, 2, 5}))));
  EXPECT_EQ(mask(key_of({}, {0})).size(0), 0);
  const auto rounded = dropout_scale(key_of({4, 8, 6}, {0, 2, 2, 5}), 5, 0.3, 13,
                                     at::TensorOptions().dtype(at::kBFloat16));
  EXPECT_TRUE(same_bits(rounded, with_gap.to(at::kBFloat16)));
}

at::Tensor rank_mask(const SampleRows& key, double rank_p, double module_p,
                     std::int64_t rank = 13) {
  return rank_dropout_scale(key, 5, rank_p, module_p, rank, at::kFloat);
}

std::vector<std::int64_t> first_numbers(std::int64_t count) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}
std::vector<std::int32_t> one_row_each(std::int64_t count) {
  std::vector<std::int32_t> offsets(static_cast<std::size_t>(count) + 1);
  std::iota(offsets.begin(), offsets.end(), 0);
  return offsets;
}

TEST(RankDropoutTest, LeavesOutAShareOfTheRankAndScalesTheRest) {
  const auto m = rank_mask(key_of(first_numbers(500), one_row_each(500)), 0.25, 0.0, 64);
  const auto kept = m.ne(0);
  EXPECT_TRUE(m.masked_select(kept).eq(static_cast<float>(4.0 / 3.0)).all().item<bool>());
  EXPECT_NEAR(kept.to(at::kDouble).mean().item<double>(), 0.75, 5 * std::sqrt(0.1875 / 32000));
  EXPECT_GT(kept.to(at::kDouble).mean(0).min().item<double>(), 0.75 - 6 * std::sqrt(0.1875 / 500));
}

TEST(RankDropoutTest, LeavesOutWholeModulesOrNothingOfThem) {
  const auto m = rank_mask(key_of(first_numbers(2000), one_row_each(2000)), 0.0, 0.3);
  EXPECT_TRUE(m.eq(m.select(1, 0).unsqueeze(1)).all().item<bool>());
  EXPECT_TRUE(m.eq(0).logical_or(m.eq(1)).all().item<bool>());
  EXPECT_NEAR(m.mean().item<double>(), 0.7, 5 * std::sqrt(0.21 / 2000));
}

// All rows of a sample have one mask, in any company, which is not that of its inputs' dropout.
TEST(RankDropoutTest, BelongsToTheSample) {
  const auto together = rank_mask(key_of({40, 3, 999}, {0, 5, 5, 16}), 0.5, 0.1);
  EXPECT_TRUE(same_bits(together.narrow(0, 0, 5), rank_mask(key_of({40}, {0, 5}), 0.5, 0.1)));
  EXPECT_TRUE(same_bits(together.narrow(0, 5, 11), rank_mask(key_of({999}, {0, 11}), 0.5, 0.1)));
  EXPECT_TRUE(together.narrow(0, 0, 5).eq(together[0]).all().item<bool>());
  EXPECT_FALSE(same_bits(together[0], together[5]));
  const auto rows = key_of(first_numbers(100), one_row_each(100));
  const double equal =
      rank_mask(rows, 0.5, 0.0).eq(mask(rows, 5, 0.5)).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(equal, 0.5, 5 * 0.5 / std::sqrt(1300));
}

}  // namespace
}  // namespace lorascale::nn
