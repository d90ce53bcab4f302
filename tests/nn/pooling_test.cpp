// Pooling and ReLU against torch's own in fp64, and autograd.
#include "nn/pooling.hpp"

#include "nn/relu.hpp"
#include "precision.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

void check_max(const at::Tensor& x, double tolerance) {
  SCOPED_TRACE(std::to_string(x.size(2)) + " x " + std::to_string(x.size(3)));
  const auto x64 = leaf64(x);
  const auto expected = at::max_pool2d(x64, {3, 3}, {2, 2}, {1, 1});
  const auto dy = noise(expected.sizes(), 51).to(x.scalar_type());
  MaxPoolSaved saved;
  const auto y = max_pool(x, &saved);
  EXPECT_TRUE(y.to(at::kDouble).equal(expected));
  EXPECT_TRUE(same_bits(max_pool(x, nullptr), y));
  const auto dx = max_pool_backward(dy, saved);
  EXPECT_EQ(dx.scalar_type(), x.scalar_type());
  expect_close(dx, autograd_of(expected, dy, {x64})[0], tolerance);
}

TEST(MaxPoolTest, ForwardAndBackward) {
  for (const std::int64_t height : {1, 2, 3, 8, 9}) {
    for (const std::int64_t width : {1, 2, 7, 10}) {
      check_max(noise({2, 3, height, width}, 1).to(at::kDouble), 1e-14);
    }
  }
  check_max(noise({2, 3, 9, 10}, 1), 1e-6);
  check_max(noise({2, 3, 9, 10}, 1).to(at::kBFloat16), 1e-2);
}

// After ReLU zeros abound: the first of equals gets the gradient, as with torch.
TEST(MaxPoolTest, EqualsAndNegatives) {
  check_max(noise({3, 4, 11, 12}, 2).clamp_min(0).to(at::kDouble), 1e-14);
  check_max(at::zeros({1, 2, 6, 5}, at::kDouble), 1e-14);
  check_max(noise({3, 4, 11, 12}, 3).sub_(5).to(at::kDouble), 1e-14);
}

TEST(MeanPoolTest, ForwardAndBackward) {
  for (const auto& p : {kDouble, kSingle, kSixteenBit}) {
    const auto x = noise({3, 4, 5, 7}, 1).to(p.type);
    const auto x64 = leaf64(x);
    const auto expected = at::adaptive_avg_pool2d(x64, {1, 1}).flatten(1);
    const auto dy = noise({3, 4}, 2).to(p.type);
    expect_close(mean_pool(x), expected, p.tolerance);
    expect_close(mean_pool_backward(dy, 5, 7), autograd_of(expected, dy, {x64})[0], p.tolerance);
  }
}

TEST(ReluTest, InPlaceAndBackwardFromTheOutput) {
  auto x = noise({5, 4, 3}, 1).to(at::kDouble);
  x[0][0][0] = 0.0;
  const auto x64 = leaf64(x);
  const auto expected = at::relu(x64);
  auto dy = noise(x.sizes(), 2).to(at::kDouble);
  const auto gradient = autograd_of(expected, dy, {x64})[0];
  relu(x);
  EXPECT_TRUE(x.equal(expected));
  relu_backward(dy, x);
  EXPECT_TRUE(dy.equal(gradient));
  EXPECT_EQ(dy[0][0][0].item<double>(), 0.0);
}

}  // namespace
}  // namespace lorascale::nn
