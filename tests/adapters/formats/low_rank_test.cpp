#include "adapters/formats/low_rank.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "support/tensors.hpp"

namespace lorascale::adapters {
namespace {

using lorascale::test::noise;

PeftModule linear(std::int64_t out, std::int64_t in, std::int64_t rank, double alpha) {
  return {noise({rank, in}, 1), noise({out, rank}, 2), alpha, alpha / static_cast<double>(rank)};
}

PeftModule convolution() {
  return {noise({6, 5, 3, 3}, 3), noise({7, 6, 1, 1}, 4), 3, 0.5};
}

// s B A, multiplied out in fp64.
at::Tensor whole(const PeftModule& module) {
  return at::mm(module.b.flatten(1).to(at::kDouble), module.a.flatten(1).to(at::kDouble)) *
         module.scale;
}

// The best of rank k by a singular value decomposition of the whole.
at::Tensor best(const at::Tensor& change, std::int64_t k) {
  const auto [u, s, vh] = at::linalg_svd(change, false);
  return at::mm(u.narrow(1, 0, k) * s.narrow(0, 0, k), vh.narrow(0, 0, k));
}

double relative(const at::Tensor& difference, const at::Tensor& to) {
  return (difference.norm() / to.norm()).item<double>();
}

LoraSettings rslora() {
  LoraSettings settings;
  settings.rslora = true;
  return settings;
}

TEST(LowRankTest, TheTruncationIsThatOfTheWholeChange) {
  for (const auto& module : {linear(9, 14, 6, 4), linear(14, 9, 6, -2), convolution()}) {
    const at::Tensor change = whole(module);
    for (std::int64_t k = 1; k <= 6; ++k) {
      const auto result = truncated(module, {k, 1}, {});
      EXPECT_LT(relative(whole(result) - best(change, k), change), 1e-6) << k;
      EXPECT_NEAR(norm_of_difference(module, result),
                  (change - best(change, k)).norm().item<double>(),
                  1e-6 * change.norm().item<double>());
      EXPECT_EQ(result.a.size(0), k);
      EXPECT_EQ(result.b.size(1), k);
      EXPECT_EQ(result.a.dim(), module.a.dim());
      EXPECT_EQ(result.weight_sizes(), module.weight_sizes());
      EXPECT_NEAR(result.scale, std::abs(module.scale), 1e-7);
      EXPECT_DOUBLE_EQ(result.scale, result.alpha / static_cast<double>(k));
      EXPECT_EQ(result.alpha, static_cast<double>(static_cast<float>(result.alpha)));
    }
  }
}

TEST(LowRankTest, ALayerHasNoMoreDirectionsThanItsSmallerSide) {
  const auto module = linear(3, 20, 8, 8);
  const auto result = truncated(module, {8, 1}, {});
  EXPECT_EQ(result.a.size(0), 3);
  EXPECT_LT(relative(whole(result) - whole(module), whole(module)), 1e-6);
}

TEST(LowRankTest, WithRsLoraTheScaleIsOfTheRoot) {
  auto module = linear(9, 14, 4, 3);
  module.scale = 1.5;
  const auto result = truncated(module, {2, 1}, rslora());
  EXPECT_DOUBLE_EQ(result.scale, result.alpha / std::sqrt(2.0));
  EXPECT_NEAR(result.scale, 1.5, 1e-6);
  EXPECT_LT(relative(whole(result) - best(whole(module), 2), whole(module)), 1e-6);
}

// Squares 16, 4, 4, 1 of 25.
TEST(LowRankTest, KeepsAsFewAsHoldTheShare) {
  const at::Tensor values = at::tensor({4.0, 2.0, 2.0, 1.0}, at::kDouble);
  const std::vector<std::pair<double, std::int64_t>> cases = {{1e-9, 1}, {0.63, 1}, {0.64, 1},
                                                              {0.65, 2}, {0.8, 2},  {0.81, 3},
                                                              {0.96, 3}, {0.97, 4}, {1, 4}};
  for (const auto& [share, rank] : cases) {
    EXPECT_EQ((RankChoice{{}, share}.of(values)), rank) << share;
  }
  EXPECT_EQ((RankChoice{{}, 0.9}.of(at::zeros({3}, at::kDouble))), 1);
  EXPECT_EQ((RankChoice{{}, 1}.of(at::tensor({2.0, 0.0, 0.0}, at::kDouble))), 1);
  EXPECT_EQ((RankChoice{3, 1}.of(values)), 3);
  EXPECT_EQ((RankChoice{9, 1}.of(values)), 4);
}

TEST(LowRankTest, ByEnergyTheErrorIsWithinTheShare) {
  const auto module = linear(40, 30, 16, 8);
  const at::Tensor change = whole(module);
  for (const double share : {0.5, 0.8, 0.95}) {
    const auto result = truncated(module, {{}, share}, {});
    const auto rank = result.a.size(0);
    const double lost = relative(whole(result) - change, change);
    EXPECT_LE(lost * lost, 1 - share + 1e-6);
    const double with_fewer = relative(best(change, rank - 1) - change, change);
    EXPECT_GT(with_fewer * with_fewer, 1 - share);
  }
}

TEST(LowRankTest, LayersOfOneScaleHaveOneAlpha) {
  for (const auto& settings : {LoraSettings(), rslora()}) {
    const auto module = linear(9, 14, 6, 4);
    const auto small = truncated(module, {2, 1}, settings);
    const auto large = truncated(module, {5, 1}, settings);
    const auto same = with_alpha_of(small, module.scale, 5, settings);
    EXPECT_EQ(same.alpha, large.alpha);
    EXPECT_DOUBLE_EQ(same.scale, settings.scale(2, large.alpha));
    EXPECT_LT(relative(whole(same) - whole(small), whole(small)), 1e-6);
  }
}

// What has learnt nothing yet is not made unable to.
TEST(LowRankTest, AFreshAdapterStaysOne) {
  auto module = linear(9, 14, 4, 4);
  module.b.zero_();
  const auto result = truncated(module, {2, 1}, {});
  EXPECT_EQ(result.b.abs().max().item<double>(), 0);
  EXPECT_GT(result.a.abs().max().item<double>(), 0.1);
  EXPECT_EQ(norm_of_change(result), 0);
}

TEST(LowRankTest, AScaleOfZeroIsNoChange) {
  auto module = linear(9, 14, 4, 0);
  const auto result = truncated(module, {2, 1}, {});
  EXPECT_EQ(norm_of_change(result), 0);
  EXPECT_GT(result.alpha, 0);
}

TEST(LowRankTest, NormsAreThoseOfTheWhole) {
  const auto one = linear(9, 14, 4, 3), other = linear(9, 14, 2, 5);
  EXPECT_NEAR(norm_of_change(one), whole(one).norm().item<double>(), 1e-9);
  EXPECT_NEAR(norm_of_difference(one, other), (whole(one) - whole(other)).norm().item<double>(),
              1e-9);
  EXPECT_NEAR(norm_of_difference(one, one), 0, 1e-12);
}

}  // namespace
}  // namespace lorascale::adapters
