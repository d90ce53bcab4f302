// RMSNorm against its formula in fp64, differentiated by autograd.
#include "nn/norm.hpp"

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

at::Tensor formula(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return weight * (x * (x.square().mean(-1, /*keepdim=*/true) + eps).rsqrt());
}

TEST(RmsNormTest, PublishedExample) {
  const auto x = at::tensor({1.0F, -2.0F, 3.0F, 0.5F}).view({1, 4});
  const auto y = rms_norm(x, at::ones({4}), 1e-6).y;
  expect_close(y, at::tensor({0.52981287, -1.05962574, 1.58943868, 0.26490644}).view({1, 4}), 1e-7);
}

TEST(RmsNormTest, ForwardAndBackwardAtOddSizes) {
  for (const std::int64_t d : {1, 2, 15, 16, 17, 33, 100}) {
    for (const std::int64_t rows : {0, 1, 3, 70}) {
      SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(d));
      const auto x = noise({rows, d}, 1, 3.0);
      const auto w = noise({d}, 2) + 1.0;
      const auto dy = noise({rows, d}, 3);
      const auto x64 = leaf64(x), w64 = leaf64(w);
      const auto y64 = formula(x64, w64, 1e-5);
      const auto expected = autograd_of(y64, dy, {x64, w64});

      const auto result = rms_norm(x, w, 1e-5);
      expect_close(result.y, y64, 1e-5);
      expect_close(result.rstd, (x64.square().mean(-1) + 1e-5).rsqrt(), 1e-5);
      EXPECT_TRUE(same_bits(rms_norm_apply(x, w, result.rstd), result.y));
      // Both gradients are added to what is there.
      auto dx = noise({rows, d}, 4);
      auto dw = noise({d}, 5);
      const auto dx_before = dx.clone(), dw_before = dw.clone();
      rms_norm_backward(dy, x, w, result.rstd, dx, dw);
      expect_close(dx, dx_before + expected[0], 1e-5, "dx");
      expect_close(dw, dw_before + expected[1], 1e-5, "dw");
      // Without a weight's gradient the input's is the same.
      auto dx_only = dx_before.clone();
      rms_norm_backward(dy, x, w, result.rstd, dx_only, {});
      EXPECT_TRUE(same_bits(dx_only, dx));
    }
  }
}

TEST(RmsNormTest, ARowDoesNotDependOnItsNeighbours) {
  const auto x = noise({7, 37}, 1);
  const auto w = noise({37}, 2);
  const auto all = rms_norm(x, w, 1e-6);
  for (std::int64_t row = 0; row < 7; ++row) {
    const auto one = rms_norm(x.narrow(0, row, 1).clone(), w, 1e-6);
    EXPECT_TRUE(same_bits(one.y, all.y.narrow(0, row, 1)));
  }
}

// Rows that lie apart, and elements that lie apart, which go through ATen's operators.
TEST(RmsNormTest, TakesViews) {
  const auto dy = noise({5, 19}, 3);
  const auto w = noise({19}, 2);
  for (const auto& x : {noise({5, 40}, 1).narrow(1, 3, 19), noise({19, 5}, 1).t()}) {
    const auto x64 = leaf64(x), w64 = leaf64(w);
    const auto y64 = formula(x64, w64, 1e-5);
    const auto expected = autograd_of(y64, dy, {x64, w64});
    const auto result = rms_norm(x, w, 1e-5);
    expect_close(result.y, y64, 1e-5);
    auto dx = at::zeros({5, 19});
    auto dw = at::zeros({19});
    rms_norm_backward(dy, x, w, result.rstd, dx, dw);
    expect_close(dx, expected[0], 1e-5);
    expect_close(dw, expected[1], 1e-5);
  }
}

TEST(RmsNormTest, SixteenBitRoundsBeforeTheWeight) {
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    const auto x = noise({6, 24}, 1, 2.0).to(type);
    const auto w = (noise({24}, 2, 0.5) + 1.0).to(type);
    const auto result = rms_norm(x, w, 1e-6);
    EXPECT_EQ(result.y.scalar_type(), type);
    EXPECT_EQ(result.rstd.scalar_type(), at::kFloat);
    const auto x32 = x.to(at::kFloat);
    const auto rounded = (x32 * (x32.square().mean(-1, true) + 1e-6).rsqrt()).to(type);
    EXPECT_TRUE(same_bits(result.y, rounded * w));

    const auto dy = noise({6, 24}, 3).to(type);
    const auto x64 = leaf64(x), w64 = leaf64(w);
    const auto expected = autograd_of(formula(x64, w64, 1e-6), dy, {x64, w64});
    auto dx = at::zeros_like(x);
    auto dw = at::zeros({24}, at::kFloat);
    rms_norm_backward(dy, x, w, result.rstd, dx, dw);
    EXPECT_EQ(dx.scalar_type(), type);
    expect_close(dx, expected[0], 1e-2);
    expect_close(dw, expected[1], 1e-4);
  }
}

}  // namespace
}  // namespace lorascale::nn
