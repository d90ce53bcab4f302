// Activations against their formulas in fp64, autograd, and known values.
#include "nn/activation.hpp"

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;

at::Tensor erf_gelu(const at::Tensor& x) {
  return x * (1 + at::erf(x / std::sqrt(2.0))) / 2;
}

TEST(ActivationTest, QuickGeluHasItsKnownValues) {
  expect_close(activate(at::tensor({1.0, -2.0, 3.0, 0.5}), Activation::kQuickGelu),
               at::tensor({0.84579575, -0.06434137, 2.98192883, 0.35038844}), 1e-7);
}

TEST(ActivationTest, ForwardAndBackward) {
  const auto x = noise({7, 9}, 1, 4.0), dy = noise({7, 9}, 2);
  const auto x64 = leaf64(x);
  for (const auto activation : {Activation::kGelu, Activation::kQuickGelu}) {
    const auto expected =
        activation == Activation::kGelu ? erf_gelu(x64) : x64 * at::sigmoid(x64 * 1.702);
    expect_close(activate(x, activation), expected, 1e-6);
    expect_close(activation_backward(dy, x, activation), autograd_of(expected, dy, {x64})[0], 1e-6);
  }
}

TEST(ActivationTest, Geglu) {
  const auto joint = noise({5, 12}, 1, 3.0), dy = noise({5, 6}, 2);
  const auto joint64 = leaf64(joint);
  const auto expected = joint64.narrow(1, 0, 6) * erf_gelu(joint64.narrow(1, 6, 6));
  expect_close(geglu(joint), expected, 1e-6);
  expect_close(geglu_backward(dy, joint), autograd_of(expected, dy, {joint64})[0], 1e-6);
}

}  // namespace
}  // namespace lorascale::nn
