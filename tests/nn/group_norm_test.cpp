// Group normalisation against its formula in fp64 and autograd.
#include "nn/group_norm.hpp"

#include "precision.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

GroupNorm make_layer(const Precision& p, std::int64_t groups, bool trained) {
  GroupNorm layer;
  layer.weight = (1 + noise({6}, 1, 0.5)).to(p.type);
  layer.bias = noise({6}, 2).to(p.type);
  layer.groups = groups;
  layer.eps = 1e-3;
  if (trained) {
    layer.weight_grad = noise({6}, 5).to(p.gradients());
    layer.bias_grad = noise({6}, 6).to(p.gradients());
  }
  return layer;
}

at::Tensor formula(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   std::int64_t groups, double eps) {
  const auto sets = x.reshape({x.size(0), groups, -1});
  const auto centred = sets - sets.mean(2, true);
  const auto y = (centred / (centred.square().mean(2, true) + eps).sqrt()).view(x.sizes());
  return y * weight.view({1, -1, 1, 1}) + bias.view({1, -1, 1, 1});
}

void check(const Precision& p, std::int64_t groups, bool trained) {
  SCOPED_TRACE(std::to_string(groups) + " groups");
  const auto layer = make_layer(p, groups, trained);
  const auto x = (noise({4, 6, 5, 3}, 50) * 2 + 1).to(p.type);
  const auto x64 = leaf64(x), weight64 = leaf64(layer.weight), bias64 = leaf64(layer.bias);
  const auto expected = formula(x64, weight64, bias64, groups, layer.eps);
  const auto dy = noise(x.sizes(), 51).to(p.type);
  const auto gradients = autograd_of(expected, dy, {x64, weight64, bias64});
  const auto copy = [](const at::Tensor& t) { return t.defined() ? t.clone() : t; };
  const auto weight_before = copy(layer.weight_grad), bias_before = copy(layer.bias_grad);

  GroupNormSaved saved;
  const auto y = layer.forward(x, &saved);
  EXPECT_EQ(y.scalar_type(), p.type);
  expect_close(y, expected, p.tolerance, "y");
  EXPECT_TRUE(same_bits(layer.forward(x, nullptr), y));
  expect_close(layer.apply(saved), expected, p.tolerance, "y again");
  expect_close(layer.backward(dy, saved, true), gradients[0], p.tolerance, "dx");
  if (trained) {
    expect_close(layer.weight_grad, weight_before + gradients[1], p.tolerance, "weight");
    expect_close(layer.bias_grad, bias_before + gradients[2], p.tolerance, "bias");
  }
  EXPECT_FALSE(layer.backward(dy, saved, false).defined());
}

TEST(GroupNormTest, ForwardAndBackward) {
  for (const auto& p : {kDouble, kSingle, kSixteenBit}) {
    for (const std::int64_t groups : {1, 2, 6}) {
      check(p, groups, true);
      check(p, groups, false);
    }
  }
}

// bf16 holds 1000 + noise to no better than 4; its mean and deviation are kept in fp32.
TEST(GroupNormTest, SixteenBitKeepsMomentsInFp32) {
  const auto layer = make_layer(kSixteenBit, 2, false);
  const auto x = (noise({2, 6, 8, 8}, 50, 30.0) + 1000).to(at::kBFloat16);
  const auto x64 = leaf64(x);
  const auto expected =
      formula(x64, layer.weight.to(at::kDouble), layer.bias.to(at::kDouble), 2, layer.eps);
  const auto dy = noise(x.sizes(), 51).to(at::kBFloat16);
  GroupNormSaved saved;
  expect_close(layer.forward(x, &saved), expected, 1e-2);
  expect_close(layer.backward(dy, saved, true) * 30, autograd_of(expected, dy, {x64})[0] * 30,
               1e-2);
}

// A sample's result has the same bits beside any others.
TEST(GroupNormTest, SamplesDoNotSeeEachOther) {
  const auto layer = make_layer(kSingle, 3, false);
  const auto x = noise({4, 6, 5, 3}, 50);
  const auto all = layer.forward(x, nullptr);
  for (std::int64_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(same_bits(layer.forward(x.narrow(0, i, 1), nullptr), all.narrow(0, i, 1)));
  }
}

}  // namespace
}  // namespace lorascale::nn
