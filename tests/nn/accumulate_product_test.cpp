// Products of 16-bit factors that are added to fp32 gradients: against the same in fp64.
#include <ATen/Parallel.h>

#include <vector>

#include "nn/dispatch.hpp"
#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::noise;
using test::same_bits;

struct Shape {
  std::int64_t m, tokens, n;
};

class AccumulateProductTest
    : public testing::TestWithParam<std::tuple<at::ScalarType, Shape, bool>> {};

// The largest error, as a share of sum |a| |b|: what rounding can do to a sum.
double relative_error(const at::Tensor& value, const at::Tensor& a, const at::Tensor& b,
                      const at::Tensor& before, double scale) {
  const at::Tensor exact =
      before.to(at::kDouble) + at::mm(a.to(at::kDouble), b.to(at::kDouble)) * scale;
  const at::Tensor size = before.to(at::kDouble).abs() +
                          at::mm(a.to(at::kDouble).abs(), b.to(at::kDouble).abs()) * scale;
  return ((value.to(at::kDouble) - exact).abs() / size).max().item<double>();
}

TEST_P(AccumulateProductTest, RoundsAsFp32DoesAndNeverTo16Bits) {
  const auto [type, shape, columns_of_a_wider_one] = GetParam();
  constexpr double kScale = 0.75;
  // As in a backward: dy may be some columns of a wider matrix, and its transpose is the factor.
  const at::Tensor dy = columns_of_a_wider_one
                            ? noise({shape.tokens, shape.m + 5}, 1).to(type).narrow(1, 3, shape.m)
                            : noise({shape.tokens, shape.m}, 1).to(type);
  const at::Tensor x = noise({shape.tokens, shape.n}, 2).to(type);
  const at::Tensor before = noise({shape.m, shape.n}, 3);
  at::Tensor target = before.clone();
  accumulate_product(target, dy.t(), x, kScale);
  // 2^-24 a sum's step; 16-bit results would be off by 2^-9 (bf16) or 2^-11 (fp16) of the value.
  EXPECT_LT(relative_error(target, dy.t(), x, before, kScale), 2e-6);

  at::Tensor again = before.clone();
  accumulate_product(again, dy.t(), x, kScale);
  EXPECT_TRUE(same_bits(target, again));
}

INSTANTIATE_TEST_SUITE_P(Shapes, AccumulateProductTest,
                         testing::Combine(testing::Values(at::kBFloat16, at::kHalf, at::kFloat),
                                          testing::Values(Shape{96, 700, 8}, Shape{8, 700, 96},
                                                          Shape{80, 300, 72}, Shape{3, 1, 2},
                                                          Shape{5, 256, 5}, Shape{4, 0, 6},
                                                          Shape{101, 131, 33}, Shape{16, 259, 64}),
                                          testing::Bool()));

TEST(AccumulateProductTest, IsTheSameBitsOnAnyNumberOfThreads) {
  const at::Tensor dy = noise({300, 400}, 7).to(at::kBFloat16);
  const at::Tensor x = noise({300, 16}, 8).to(at::kBFloat16);
  const auto before = at::get_num_threads();
  std::vector<at::Tensor> results;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    results.push_back(at::zeros({400, 16}));
    accumulate_product(results.back(), dy.t(), x);
  }
  at::set_num_threads(before);
  EXPECT_TRUE(same_bits(results[0], results[1]));
  EXPECT_TRUE(same_bits(results[0], results[2]));
}

// Many small leaves: what each adds is below what a 16-bit sum of its size could show.
TEST(AccumulateProductTest, SmallSharesOfManyLeavesAreNotLost) {
  const at::Tensor a = noise({4, 64}, 5).to(at::kBFloat16);
  const at::Tensor b = noise({64, 3}, 6).to(at::kBFloat16);
  at::Tensor target = at::zeros({4, 3});
  constexpr int kLeaves = 400;
  for (int leaf = 0; leaf < kLeaves; ++leaf) {
    accumulate_product(target, a, b);
  }
  const at::Tensor exact = at::mm(a.to(at::kDouble), b.to(at::kDouble)) * kLeaves;
  test::expect_close(target / kLeaves, exact / kLeaves, 1e-5);
}

}  // namespace
}  // namespace lorascale::nn
