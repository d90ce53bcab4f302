// DoRA against its formula in fp64 and autograd, on linear layers and convolutions.
#include "nn/dora.hpp"

#include "nn/conv2d.hpp"
#include "nn/linear_group.hpp"
#include "nn/lora_conv2d.hpp"
#include "precision.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

constexpr double kTolerance = 1e-5;  // fp32

struct Parts {
  LoraFactors factors;
  at::Tensor magnitude, magnitude_grad;
};

Parts parts_of(const at::Tensor& weight, at::Tensor a, at::Tensor b) {
  Parts parts;
  auto& f = parts.factors;
  f.a = std::move(a);
  f.b = std::move(b);
  f.grad_a = noise(f.a.sizes(), 13);
  f.grad_b = noise(f.b.sizes(), 14);
  f.scale = 1.75;
  parts.magnitude = row_squares(weight).sqrt() * (1 + 0.3 * noise({weight.size(0)}, 15));
  parts.magnitude_grad = noise({weight.size(0)}, 16);
  return parts;
}

at::Tensor whole64(const at::Tensor& weight, const at::Tensor& a, const at::Tensor& b,
                   double scale) {
  return weight.to(at::kDouble).flatten(1) + scale * at::mm(b.flatten(1), a.flatten(1));
}

// The formula with a length through which no gradient goes.
at::Tensor turned_weight(const at::Tensor& weight, const at::Tensor& a, const at::Tensor& b,
                         const at::Tensor& magnitude, double scale) {
  const auto whole = whole64(weight, a, b, scale);
  const auto length = whole.detach().square().sum(1, true).sqrt();
  return (whole / length * magnitude.unsqueeze(1)).view(weight.sizes());
}

void expect_gradients(const Parts& parts, const Parts& before,
                      const std::vector<at::Tensor>& expected) {
  expect_close(parts.factors.grad_a, before.factors.grad_a + expected[1], kTolerance, "A");
  expect_close(parts.factors.grad_b, before.factors.grad_b + expected[2], kTolerance, "B");
  expect_close(parts.magnitude_grad, before.magnitude_grad + expected[3], kTolerance, "m");
}

Parts copy_of(const Parts& parts) {
  Parts copy = parts;
  copy.factors.grad_a = parts.factors.grad_a.clone();
  copy.factors.grad_b = parts.factors.grad_b.clone();
  copy.magnitude_grad = parts.magnitude_grad.clone();
  return copy;
}

class DoraLinearTest : public testing::TestWithParam<bool> {};

TEST_P(DoraLinearTest, ForwardAndBackward) {
  LinearGroup group;
  group.members = {{"q", 5, 0}, {"k", 4, 5}};
  group.weight = noise({9, 6}, 1, 0.3);
  if (GetParam()) {
    group.bias = noise({9}, 2);
  }
  const auto site = group.sites()[1];
  EXPECT_EQ(site.bias.defined(), GetParam());
  const auto parts = parts_of(site.weight, noise({2, 6}, 11), noise({4, 2}, 12));
  site.attach(std::make_unique<Dora>(std::make_unique<LoraLinear>(parts.factors), parts.factors,
                                     site.weight, site.bias, parts.magnitude,
                                     parts.magnitude_grad));
  const auto x = noise({7, 6}, 50), dy = noise({7, 9}, 51);
  const auto x64 = leaf64(x), a64 = leaf64(parts.factors.a), b64 = leaf64(parts.factors.b),
             m64 = leaf64(parts.magnitude);
  const auto turned = turned_weight(site.weight, a64, b64, m64, parts.factors.scale);
  auto expected = at::mm(x64, at::cat({group.weight.narrow(0, 0, 5).to(at::kDouble), turned}).t());
  if (GetParam()) {
    expected = expected + group.bias.to(at::kDouble);
  }
  const auto gradients = autograd_of(expected, dy, {x64, a64, b64, m64});
  const auto before = copy_of(parts);
  DeltasSaved saved;
  const auto y = group.forward(x, nullptr, &saved);
  expect_close(y, expected, kTolerance, "y");
  EXPECT_TRUE(same_bits(group.forward(x, nullptr, nullptr), y));
  const auto dy_before = dy.clone();
  expect_close(group.backward(dy, x, nullptr, saved, true), gradients[0], kTolerance, "dx");
  EXPECT_TRUE(same_bits(dy, dy_before));
  expect_gradients(parts, before, gradients);
  expect_close(group.deltas[0].weight_change(site.weight), turned - site.weight, kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Bias, DoraLinearTest, testing::Bool());

TEST(DoraConv2dTest, ForwardAndBackward) {
  Conv2d layer;
  layer.geometry = {{2, 1}, {1, 1}, 1};
  layer.weight = noise({8, 6, 3, 3}, 1, 0.3);
  layer.bias = noise({8}, 2);
  const auto parts = parts_of(layer.weight, noise({2, 6, 3, 3}, 11), noise({8, 2, 1, 1}, 12));
  const auto site = layer.site();
  site.attach(std::make_unique<Dora>(std::make_unique<LoraConv2d>(parts.factors, layer.geometry),
                                     parts.factors, site.weight, site.bias, parts.magnitude,
                                     parts.magnitude_grad));
  const auto x = noise({3, 6, 8, 6}, 50);
  const auto x64 = leaf64(x), a64 = leaf64(parts.factors.a), b64 = leaf64(parts.factors.b),
             m64 = leaf64(parts.magnitude);
  const auto turned = turned_weight(site.weight, a64, b64, m64, parts.factors.scale);
  const auto expected = at::conv2d(x64, turned, layer.bias.to(at::kDouble), layer.geometry.stride,
                                   layer.geometry.padding);
  const auto dy = noise(expected.sizes(), 51);
  const auto gradients = autograd_of(expected, dy, {x64, a64, b64, m64});
  const auto before = copy_of(parts);
  DeltasSaved saved;
  expect_close(layer.forward(x, nullptr, &saved), expected, kTolerance, "y");
  expect_close(layer.backward(dy, x, nullptr, saved, true), gradients[0], kTolerance, "dx");
  expect_gradients(parts, before, gradients);
  expect_close(layer.deltas[0].weight_change(layer.weight), turned - layer.weight, kTolerance);
}

// A fresh adapter changes next to nothing: lengths are the weight's own to the bit.
TEST(DoraTest, BeginsAsTheWeightItself) {
  const auto weight = noise({5, 7}, 1);
  LoraFactors factors;
  factors.a = noise({2, 7}, 2);
  factors.b = at::zeros({5, 2});
  const auto squares = row_squares(weight);
  EXPECT_TRUE(same_bits(row_lengths(weight, squares, factors), squares.sqrt()));
  expect_close(dora_change(weight, factors, squares.sqrt()), at::zeros({5, 7}), 1e-12);
}

}  // namespace
}  // namespace lorascale::nn
