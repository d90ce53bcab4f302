// Layer normalisation against its formula in fp64, and autograd.
#include "nn/layer_norm.hpp"

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;

at::Tensor formula(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   double eps) {
  const auto mean = x.mean(1, true);
  const auto variance = (x - mean).pow(2).mean(1, true);
  return (x - mean) / (variance + eps).sqrt() * weight + bias;
}

LayerNorm make(std::int64_t width, at::ScalarType type) {
  LayerNorm norm;
  norm.weight = (noise({width}, 1) + 1).to(type);
  norm.bias = noise({width}, 2).to(type);
  return norm;
}

TEST(LayerNormTest, ForwardAndBackward) {
  for (const auto& [type, tolerance] :
       {std::pair{at::kFloat, 1e-5}, std::pair{at::kBFloat16, 3e-2}}) {
    auto norm = make(37, type);
    norm.weight_grad = noise({37}, 3);
    norm.bias_grad = noise({37}, 4);
    const auto weight_before = norm.weight_grad.clone(), bias_before = norm.bias_grad.clone();
    const auto x = noise({11, 37}, 5, 3.0).to(type), dy = noise({11, 37}, 6).to(type);
    const auto x64 = leaf64(x), weight64 = leaf64(norm.weight), bias64 = leaf64(norm.bias);
    const auto expected = formula(x64, weight64, bias64, norm.eps);
    LayerNormSaved saved;
    const auto y = norm.forward(x, &saved);
    EXPECT_EQ(y.scalar_type(), type);
    expect_close(y, expected, tolerance, "output");
    expect_close(norm.apply(saved), expected, tolerance, "again");
    const auto gradients = autograd_of(expected, dy, {x64, weight64, bias64});
    auto dx = noise({11, 37}, 7).to(type);
    const auto dx_before = dx.clone();
    norm.backward(dy, saved, dx);
    expect_close(dx, dx_before + gradients[0], tolerance, "input");
    expect_close(norm.weight_grad, weight_before + gradients[1], tolerance, "weight");
    expect_close(norm.bias_grad, bias_before + gradients[2], tolerance, "bias");
  }
}

TEST(LayerNormTest, FrozenAndWithoutAnInputGradient) {
  const auto norm = make(8, at::kFloat);
  LayerNormSaved saved;
  norm.forward(noise({3, 8}, 1), &saved);
  at::Tensor dx;
  norm.backward(noise({3, 8}, 2), saved, dx);
  EXPECT_FALSE(dx.defined());
  EXPECT_FALSE(norm.trains());
}

}  // namespace
}  // namespace lorascale::nn
