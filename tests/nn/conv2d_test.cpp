// Convolutions, with and without deltas, against at::conv2d in fp64 and autograd.
#include "nn/conv2d.hpp"

#include "nn/dropout.hpp"
#include "nn/lora_conv2d.hpp"
#include "precision.hpp"
#include "scaling.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

struct Case {
  std::int64_t in = 6, out = 8, height = 7, width = 5, kernel = 3;
  Conv2dGeometry geometry = {{1, 1}, {1, 1}, 1};
};

// A stem, a block's convolutions, a shortcut, and one in groups with sides that differ.
std::vector<Case> cases() {
  return {{3, 4, 11, 9, 7, {{2, 2}, {3, 3}, 1}},
          {6, 8, 7, 5, 3, {{1, 1}, {1, 1}, 1}},
          {6, 8, 8, 6, 3, {{2, 2}, {1, 1}, 1}},
          {6, 8, 7, 5, 1, {{2, 2}, {0, 0}, 1}},
          {6, 8, 7, 5, 3, {{2, 1}, {0, 1}, 2}}};
}

Conv2d make_layer(const Case& c, const Precision& p, bool bias, bool trained) {
  Conv2d layer;
  layer.name = "layer1.0.conv1";
  layer.geometry = c.geometry;
  const std::vector<std::int64_t> shape = {c.out, c.in / c.geometry.groups, c.kernel, c.kernel};
  layer.weight = noise(shape, 1, 0.3).to(p.type);
  if (bias) {
    layer.bias = noise({c.out}, 2).to(p.type);
  }
  if (trained) {
    layer.weight_grad = noise(shape, 3).to(p.gradients());
    if (bias) {
      layer.bias_grad = noise({c.out}, 4).to(p.gradients());
    }
  }
  return layer;
}

at::Tensor input(const Case& c, const Precision& p) {
  return noise({3, c.in, c.height, c.width}, 50).to(p.type);
}

at::Tensor formula(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const Conv2dGeometry& g) {
  return at::conv2d(x, weight, bias, g.stride, g.padding, {1, 1}, g.groups);
}

void check_plain(const Case& c, const Precision& p, bool bias, bool trained) {
  const auto layer = make_layer(c, p, bias, trained);
  const auto x = input(c, p);
  const auto x64 = leaf64(x), weight64 = leaf64(layer.weight);
  const auto bias64 = leaf64(bias ? layer.bias : at::zeros({c.out}));
  const auto expected = formula(x64, weight64, bias64, c.geometry);
  const auto dy = noise(expected.sizes(), 51).to(p.type);
  const auto gradients = autograd_of(expected, dy, {x64, weight64, bias64});
  const auto weight_before = trained ? layer.weight_grad.clone() : at::Tensor();
  const auto bias_before = trained && bias ? layer.bias_grad.clone() : at::Tensor();

  DeltasSaved saved;
  expect_close(layer.forward(x, nullptr, &saved), expected, p.tolerance, "y");
  const auto dy_before = dy.clone();
  expect_close(layer.backward(dy, x, nullptr, saved, true), gradients[0], p.tolerance, "dx");
  EXPECT_TRUE(same_bits(dy, dy_before));
  if (trained) {
    expect_close(layer.weight_grad, weight_before + gradients[1], p.tolerance, "weight");
    if (bias) {
      expect_close(layer.bias_grad, bias_before + gradients[2], p.tolerance, "bias");
    }
  }
  EXPECT_FALSE(layer.backward(dy, x, nullptr, saved, false).defined());
}

TEST(Conv2dTest, ForwardAndBackward) {
  for (const auto& c : cases()) {
    for (const bool trained : {false, true}) {
      check_plain(c, kDouble, true, trained);
      check_plain(c, kDouble, false, trained);
      check_plain(c, kSingle, true, trained);
      check_plain(c, kSixteenBit, false, trained);
    }
  }
}

// A gradient of ones in bf16 over more places than bf16 counts: the sums are exact in fp32.
TEST(Conv2dTest, SixteenBitWeightGradientsAreSummedInFp32) {
  Conv2d layer;
  layer.weight = at::ones({1, 1, 1, 1}, at::kBFloat16);
  layer.bias = at::zeros({1}, at::kBFloat16);
  layer.weight_grad = at::zeros({1, 1, 1, 1});
  layer.bias_grad = at::zeros({1});
  const auto ones = at::ones({5, 1, 37, 23}, at::kBFloat16);
  layer.backward(ones, ones, nullptr, {}, false);
  EXPECT_EQ(layer.weight_grad.item<float>(), 5 * 37 * 23);
  EXPECT_EQ(layer.bias_grad.item<float>(), 5 * 37 * 23);
}

struct Adapted {
  Conv2d layer;
  LoraFactors factors;
};

Adapted make_adapted(const Case& c, const Precision& p, double dropout) {
  Adapted result{make_layer(c, p, true, false), {}};
  auto& f = result.factors;
  f.a = noise({2, c.in, c.kernel, c.kernel}, 11, 0.5).to(p.type);
  f.b = noise({c.out, 2, 1, 1}, 12).to(p.type);
  f.grad_a = noise(f.a.sizes(), 13).to(p.gradients());
  f.grad_b = noise(f.b.sizes(), 14).to(p.gradients());
  f.scale = 1.75;
  f.dropout = dropout;
  f.rank_dropout = f.module_dropout = dropout;
  f.draw = 9;
  result.layer.site().attach(std::make_unique<LoraConv2d>(f, c.geometry));
  return result;
}

const SampleRows kRows = {{7, 2}, {31, 4, 12}, {0, 1, 2, 3}};

void check_adapted(const Case& c, const Precision& p, double dropout, bool trained) {
  const auto [layer, f] = make_adapted(c, p, dropout);
  const auto x = input(c, p);
  const SampleRows* rows = trained ? &kRows : nullptr;
  const auto x64 = leaf64(x), a64 = leaf64(f.a), b64 = leaf64(f.b);
  auto branch = x64;
  auto kept = at::ones({x.size(0), 2, 1, 1}, at::kDouble);
  if (trained && dropout > 0) {
    const auto width = c.in * c.height * c.width;
    branch = x64 * dropout_scale(kRows, f.draw, dropout, width, at::kDouble).view(x.sizes());
    kept = rank_dropout_scale(kRows, f.draw, dropout, dropout, 2, at::kDouble).view(kept.sizes());
  }
  const auto expected =
      formula(x64, layer.weight.to(at::kDouble), layer.bias.to(at::kDouble), c.geometry) +
      f.scale * at::conv2d(formula(branch, a64, {}, c.geometry) * kept, b64);
  const auto dy = noise(expected.sizes(), 51).to(p.type);
  const auto gradients = autograd_of(expected, dy, {x64, a64, b64});
  const auto a_before = f.grad_a.clone(), b_before = f.grad_b.clone();

  DeltasSaved saved;
  const auto y = layer.forward(x, rows, &saved);
  expect_close(y, expected, p.tolerance, "y");
  EXPECT_TRUE(same_bits(layer.forward(x, rows, nullptr), y));
  expect_close(layer.backward(dy, x, rows, saved, true), gradients[0], p.tolerance, "dx");
  expect_close(f.grad_a, a_before + gradients[1], p.tolerance, "A");
  expect_close(f.grad_b, b_before + gradients[2], p.tolerance, "B");
}

TEST(LoraConv2dTest, ForwardAndBackward) {
  for (const auto& c : cases()) {
    if (c.geometry.groups == 1) {
      check_adapted(c, kDouble, 0.0, true);
      check_adapted(c, kDouble, 0.3, true);
      check_adapted(c, kDouble, 0.3, false);
      check_adapted(c, kSingle, 0.3, true);
      check_adapted(c, kSixteenBit, 0.3, true);
    }
  }
}

TEST(LoraConv2dTest, MergedWeightComputesTheSame) {
  for (const auto& c : cases()) {
    if (c.geometry.groups == 1) {
      const auto [layer, f] = make_adapted(c, kSingle, 0.5);
      const auto change = layer.deltas[0].weight_change(layer.weight);
      ASSERT_EQ(change.sizes(), layer.weight.sizes());
      EXPECT_EQ(change.scalar_type(), at::kFloat);
      const auto x = input(c, kSingle);
      const auto merged =
          formula(x.to(at::kDouble), layer.weight.to(at::kDouble) + change.to(at::kDouble),
                  layer.bias.to(at::kDouble), c.geometry);
      expect_close(layer.forward(x, nullptr, nullptr), merged, kSingle.tolerance);
    }
  }
}

// What is dropped of a sample does not depend on which samples stand beside it.
TEST(LoraConv2dTest, DropoutBelongsToTheSample) {
  const auto [layer, f] = make_adapted({}, kDouble, 0.4);
  const auto x = input({}, kDouble);
  const auto together = layer.forward(x, &kRows, nullptr);
  for (std::size_t i = 0; i < 3; ++i) {
    const SampleRows alone = {kRows.key, {kRows.sample_ids[i]}, {0, 1}};
    const auto row = static_cast<std::int64_t>(i);
    expect_close(layer.forward(x.narrow(0, row, 1), &alone, nullptr), together.narrow(0, row, 1),
                 1e-12);
  }
  EXPECT_FALSE(together.equal(layer.forward(x, nullptr, nullptr)));
}

TEST(Conv2dTest, ADeltaMayScaleTheOutput) {
  const Case c;
  auto layer = make_layer(c, kDouble, false, true);
  const auto l = noise({c.out}, 21).to(at::kDouble);
  layer.site().attach(std::make_unique<Scaling>(l));
  const auto x = input(c, kDouble);
  const auto x64 = leaf64(x), weight64 = leaf64(layer.weight);
  const auto expected = formula(x64, weight64, {}, c.geometry) * (l + 1).view({1, -1, 1, 1});
  const auto dy = noise(expected.sizes(), 51).to(at::kDouble);
  const auto gradients = autograd_of(expected, dy, {x64, weight64});
  const auto before = layer.weight_grad.clone();
  const auto dy_before = dy.clone();
  DeltasSaved saved;
  expect_close(layer.forward(x, nullptr, &saved), expected, 1e-12);
  expect_close(layer.backward(dy, x, nullptr, saved, true), gradients[0], 1e-12);
  expect_close(layer.weight_grad, before + gradients[1], 1e-12);
  EXPECT_TRUE(same_bits(dy, dy_before));
}

TEST(Conv2dTest, SiteAndWhetherItTrains) {
  auto layer = make_layer(cases()[4], kSingle, false, false);
  EXPECT_FALSE(layer.trains());
  const auto site = layer.site();
  EXPECT_EQ(site.name, "layer1.0.conv1");
  EXPECT_EQ(site.kind, SiteKind::kConv2d);
  EXPECT_EQ(site.out_features(), 8);
  EXPECT_EQ(site.in_features(), 6);
  EXPECT_EQ(site.geometry.stride, (std::array<std::int64_t, 2>{2, 1}));
  EXPECT_TRUE(site.weight.is_alias_of(layer.weight));
  EXPECT_EQ(layer.deltas.kept_width(), 0);
  const auto adapted = make_adapted({}, kSingle, 0);
  EXPECT_TRUE(adapted.layer.trains());
  EXPECT_EQ(adapted.layer.deltas.kept_width(), 2);
  layer.weight_grad = at::zeros_like(layer.weight);
  EXPECT_TRUE(layer.trains());
}

}  // namespace
}  // namespace lorascale::nn
