// IA3 against its formula in fp64 and autograd, on linear layers and convolutions.
#include "nn/ia3.hpp"

#include "nn/conv2d.hpp"
#include "nn/linear_group.hpp"
#include "precision.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

constexpr double kTolerance = 1e-5;  // fp32

struct Case {
  const char* name;
  bool of_inputs, of_bias, bias;
};

class Ia3LinearTest : public testing::TestWithParam<Case> {};

TEST_P(Ia3LinearTest, ForwardAndBackward) {
  const auto [name, of_inputs, of_bias, has_bias] = GetParam();
  LinearGroup group;
  group.members = {{"q", 5, 0}, {"k", 4, 5}};
  group.weight = noise({9, 6}, 1, 0.3);
  if (has_bias) {
    group.bias = noise({9}, 2);
  }
  const auto site = group.sites()[1];
  const LayerScaling scaling{noise({of_inputs ? 6 : 4}, 11), of_inputs, of_bias};
  const auto gradient = noise(scaling.change.sizes(), 12), gradient_before = gradient.clone();
  site.attach(std::make_unique<Ia3>(scaling, gradient, site.weight, site.bias));
  const auto x = noise({7, 6}, 50), dy = noise({7, 9}, 51), dy_before = dy.clone();

  const auto x64 = leaf64(x), change64 = leaf64(scaling.change);
  const auto weight64 = group.weight.to(at::kDouble);
  const auto bias64 = has_bias ? group.bias.to(at::kDouble) : at::zeros({9}, at::kDouble);
  const auto l = change64 + 1;
  auto k = at::mm(of_inputs ? x64 * l : x64, weight64.narrow(0, 5, 4).t());
  const auto bias_of_k = bias64.narrow(0, 5, 4);
  if (of_inputs) {
    k = k + bias_of_k;
  } else {
    k = of_bias ? (k + bias_of_k) * l : k * l + bias_of_k;
  }
  const auto q = at::mm(x64, weight64.narrow(0, 0, 5).t()) + bias64.narrow(0, 0, 5);
  const auto expected = at::cat({q, k}, 1);
  const auto gradients = autograd_of(expected, dy, {x64, change64});

  DeltasSaved saved;
  const auto y = group.forward(x, nullptr, &saved);
  expect_close(y, expected, kTolerance, "y");
  EXPECT_TRUE(same_bits(group.forward(x, nullptr, nullptr), y));
  expect_close(group.backward(dy, x, nullptr, saved, true), gradients[0], kTolerance, "dx");
  EXPECT_TRUE(same_bits(dy, dy_before));
  expect_close(gradient, gradient_before + gradients[1], kTolerance, "l");
  const auto turned =
      of_inputs ? site.weight * scaling.change : site.weight * scaling.change.unsqueeze(1);
  expect_close(group.deltas[0].weight_change(site.weight), turned, kTolerance, "weight");
}

INSTANTIATE_TEST_SUITE_P(All, Ia3LinearTest,
                         testing::Values(Case{"outputs", false, true, false},
                                         Case{"outputs_and_bias", false, true, true},
                                         Case{"outputs_without_bias", false, false, true},
                                         Case{"inputs", true, true, false},
                                         Case{"inputs_beside_bias", true, false, true}),
                         [](const auto& info) { return info.param.name; });

TEST(Ia3Conv2dTest, ForwardAndBackward) {
  Conv2d layer;
  layer.geometry = {{2, 1}, {1, 1}, 1};
  layer.weight = noise({8, 6, 3, 3}, 1, 0.3);
  layer.bias = noise({8}, 2);
  const LayerScaling scaling{noise({8}, 11), false, false};
  const auto gradient = noise({8}, 12), gradient_before = gradient.clone();
  const auto site = layer.site();
  site.attach(std::make_unique<Ia3>(scaling, gradient, site.weight, site.bias));
  const auto x = noise({3, 6, 8, 6}, 50);
  const auto x64 = leaf64(x), change64 = leaf64(scaling.change);
  const auto expected =
      at::conv2d(x64, layer.weight.to(at::kDouble) * (change64 + 1).view({8, 1, 1, 1}),
                 layer.bias.to(at::kDouble), layer.geometry.stride, layer.geometry.padding);
  const auto dy = noise(expected.sizes(), 51);
  const auto gradients = autograd_of(expected, dy, {x64, change64});
  DeltasSaved saved;
  expect_close(layer.forward(x, nullptr, &saved), expected, kTolerance, "y");
  expect_close(layer.backward(dy, x, nullptr, saved, true), gradients[0], kTolerance, "dx");
  expect_close(gradient, gradient_before + gradients[1], kTolerance, "l");
}

// l - 1 of less than bf16 tells apart from 1 still moves what it scales, as far as that can show
// it.
TEST(Ia3Test, SmallChangesCountInBf16) {
  const auto weight = noise({4, 3}, 1).to(at::kBFloat16);
  const Ia3 ia3({at::full({4}, 0.003), false, true}, at::zeros({4}), weight, {});
  auto y = at::full({64, 4}, 1.99).to(at::kBFloat16);  // spaced by 1/128: 0.006 rounds up
  const auto before = y.clone();
  ia3.forward(at::zeros({64, 3}, at::kBFloat16), y, nullptr, nullptr);
  EXPECT_FALSE(same_bits(y, before));
}

}  // namespace
}  // namespace lorascale::nn
