// SwiGLU against its formula in fp64, differentiated by autograd.
#include "nn/swiglu.hpp"

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;

at::Tensor formula(const at::Tensor& gate_up) {
  const auto d = gate_up.size(1) / 2;
  const auto gate = gate_up.narrow(1, 0, d);
  return gate / (1.0 + (-gate).exp()) * gate_up.narrow(1, d, d);
}

TEST(SwigluTest, ForwardAndBackwardAtOddSizes) {
  for (const std::int64_t d : {1, 7, 16, 45}) {
    for (const std::int64_t rows : {0, 1, 5}) {
      SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(d));
      auto joint = noise({rows, 2 * d}, 1, 8.0);
      const auto dy = noise({rows, d}, 2);
      const auto joint64 = leaf64(joint);
      const auto expected = formula(joint64);
      expect_close(swiglu(joint), expected, 1e-5);
      swiglu_backward(dy, joint);
      expect_close(joint, autograd_of(expected, dy, {joint64})[0], 1e-5);
    }
  }
}

// exp overflows where the gate is far below zero; the limit is zero, and its slope too.
TEST(SwigluTest, ExtremeGates) {
  auto joint = at::zeros({1, 12});
  const std::vector<float> gates = {-1e4F, -100.0F, -88.0F, 88.0F, 100.0F, 1e4F};
  for (std::int64_t j = 0; j < 6; ++j) {
    joint[0][j] = gates[static_cast<std::size_t>(j)];
    joint[0][6 + j] = 0.5F;
  }
  expect_close(swiglu(joint), at::tensor({0.0, 0.0, 0.0, 44.0, 50.0, 5000.0}).view({1, 6}), 1e-6);
  swiglu_backward(at::ones({1, 6}), joint);
  expect_close(
      joint,
      at::tensor({0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 88.0, 100.0, 1e4}).view({1, 12}),
      1e-6);
}

TEST(SwigluTest, SixteenBit) {
  auto joint = noise({4, 18}, 1, 3.0).to(at::kBFloat16);
  const auto dy = noise({4, 9}, 2).to(at::kBFloat16);
  const auto joint64 = leaf64(joint);
  const auto expected = formula(joint64);
  const auto y = swiglu(joint);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  expect_close(y, expected, 2e-2);
  swiglu_backward(dy, joint);
  expect_close(joint, autograd_of(expected, dy, {joint64})[0], 2e-2);
}

}  // namespace
}  // namespace lorascale::nn
