// Batch normalisation by groups against its formula in fp64 and autograd, and against
// at::batch_norm's running state.
#include "nn/batch_norm.hpp"

#include "base/error.hpp"
#include "precision.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

constexpr std::int64_t kChannels = 5;

BatchNorm make_layer(const Precision& p, bool trained, std::int64_t ghost_batch = 0) {
  BatchNorm layer;
  layer.name = "bn1";
  layer.weight = (1 + noise({kChannels}, 1, 0.5)).to(p.type);
  layer.bias = noise({kChannels}, 2).to(p.type);
  layer.running_mean = noise({kChannels}, 3);
  layer.running_var = 1 + noise({kChannels}, 4, 0.5);
  layer.ghost_batch = ghost_batch;
  layer.eps = 1e-3;
  if (trained) {
    layer.weight_grad = noise({kChannels}, 5).to(p.gradients());
    layer.bias_grad = noise({kChannels}, 6).to(p.gradients());
  }
  return layer;
}

at::Tensor input(std::int64_t samples, const Precision& p) {
  return (noise({samples, kChannels, 4, 3}, 50) * 2 + 1).to(p.type);
}

at::Tensor per_channel(const at::Tensor& v) {
  return v.view({1, -1, 1, 1});
}

at::Tensor normalised(const at::Tensor& x, double eps) {
  const auto mean = x.mean({0, 2, 3}, true);
  return (x - mean) / ((x - mean).square().mean({0, 2, 3}, true) + eps).sqrt();
}

void check_groups(std::int64_t samples, std::int64_t ghost_batch, const Precision& p) {
  SCOPED_TRACE(std::to_string(samples) + " samples in groups of " + std::to_string(ghost_batch));
  const auto layer = make_layer(p, true, ghost_batch);
  const auto x = input(samples, p);
  const auto x64 = leaf64(x), weight64 = leaf64(layer.weight), bias64 = leaf64(layer.bias);
  std::vector<at::Tensor> groups;
  auto expected_statistics = at::zeros({2, kChannels}, at::kDouble);
  for (const auto& group : x64.split(ghost_batch > 0 ? ghost_batch : samples)) {
    groups.push_back(normalised(group, layer.eps));
    const auto flat = group.detach().transpose(0, 1).flatten(1);
    expected_statistics +=
        at::stack({flat.mean(1), flat.var(1, /*unbiased=*/true)}) * group.size(0);
  }
  const auto expected = at::cat(groups) * per_channel(weight64) + per_channel(bias64);
  const auto dy = noise(expected.sizes(), 51).to(p.type);
  const auto gradients = autograd_of(expected, dy, {x64, weight64, bias64});
  const auto weight_before = layer.weight_grad.clone(), bias_before = layer.bias_grad.clone();
  const auto statistics_before = noise({2, kChannels}, 7);
  auto statistics = statistics_before.clone();

  BatchNormSaved saved;
  expect_close(layer.forward(x, &saved, statistics), expected, p.tolerance, "y");
  expect_close(statistics, statistics_before + expected_statistics, 1e-5, "statistics");
  const auto dy_before = dy.clone();
  expect_close(layer.backward(dy, saved, true), gradients[0], p.tolerance, "dx");
  expect_close(layer.weight_grad, weight_before + gradients[1], p.tolerance, "weight");
  expect_close(layer.bias_grad, bias_before + gradients[2], p.tolerance, "bias");
  EXPECT_TRUE(same_bits(dy, dy_before));
  const auto once = layer.weight_grad.clone();
  EXPECT_FALSE(layer.backward(dy, saved, false).defined());
  expect_close(layer.weight_grad - once, gradients[1], p.tolerance, "weight alone");
}

TEST(BatchNormTest, GroupsOfALeaf) {
  for (const auto& p : {kDouble, kSingle, kSixteenBit}) {
    check_groups(6, 0, p);
    check_groups(6, 6, p);
    check_groups(6, 2, p);
    check_groups(7, 3, p);  // 3, 3 and 1
    check_groups(2, 4, p);
    check_groups(1, 0, p);
  }
}

// A group is normalised as if it were alone: the same bits.
TEST(BatchNormTest, GroupsDoNotSeeEachOther) {
  const auto layer = make_layer(kSingle, true, 2);
  const auto x = input(6, kSingle);
  BatchNormSaved saved;
  const auto all = layer.forward(x, &saved, {});
  for (const std::int64_t first : {0, 2, 4}) {
    BatchNormSaved alone;
    EXPECT_TRUE(
        same_bits(layer.forward(x.narrow(0, first, 2), &alone, {}), all.narrow(0, first, 2)));
  }
}

// torch's own running state after one batch, at momentum 0.1.
TEST(BatchNormTest, StatisticsAreThoseOfTorch) {
  const auto layer = make_layer(kSingle, true);
  const auto x = input(5, kSingle);
  auto mean = layer.running_mean.clone(), variance = layer.running_var.clone();
  at::batch_norm(x, layer.weight, layer.bias, mean, variance, /*training=*/true, 0.1, layer.eps,
                 /*cudnn_enabled=*/false);
  auto statistics = at::zeros({2, kChannels});
  BatchNormSaved saved;
  layer.forward(x, &saved, statistics);
  const auto leaf = statistics / 5;
  expect_close(0.9 * layer.running_mean + 0.1 * leaf[0], mean, 1e-6);
  expect_close(0.9 * layer.running_var + 0.1 * leaf[1], variance, 1e-6);
}

at::Tensor affine(const BatchNorm& layer, const at::Tensor& x) {
  const auto wide = [](const at::Tensor& t) { return per_channel(t.to(at::kDouble)); };
  return (x - wide(layer.running_mean)) / (wide(layer.running_var) + layer.eps).sqrt() *
             wide(layer.weight) +
         wide(layer.bias);
}

TEST(BatchNormTest, EvaluationUsesTheRunningState) {
  for (const auto& p : {kDouble, kSingle, kSixteenBit}) {
    const auto layer = make_layer(p, true, 2);
    const auto x = input(3, p);
    auto statistics = at::zeros({2, kChannels});
    expect_close(layer.forward(x, nullptr, statistics), affine(layer, x.to(at::kDouble)),
                 p.tolerance);
    EXPECT_TRUE(statistics.equal(at::zeros({2, kChannels})));
  }
}

TEST(BatchNormTest, FrozenIsAnAffineMapInTrainingToo) {
  for (const auto& p : {kDouble, kSingle, kSixteenBit}) {
    const auto layer = make_layer(p, false);
    const auto x = input(3, p);
    const auto x64 = leaf64(x);
    const auto expected = affine(layer, x64);
    const auto dy = noise(x.sizes(), 51).to(p.type);
    auto statistics = at::zeros({2, kChannels});
    BatchNormSaved saved;
    const auto y = layer.forward(x, &saved, statistics);
    expect_close(y, expected, p.tolerance);
    EXPECT_TRUE(same_bits(y, layer.forward(x, nullptr, {})));
    EXPECT_FALSE(saved.input.defined());  // nothing is kept
    EXPECT_TRUE(statistics.equal(at::zeros({2, kChannels})));
    const auto dx = layer.backward(dy, saved, true);
    EXPECT_EQ(dx.scalar_type(), p.type);
    expect_close(dx, autograd_of(expected, dy, {x64})[0], p.tolerance);
    EXPECT_FALSE(layer.backward(dy, saved, false).defined());
  }
}

TEST(BatchNormTest, OneValueAChannelIsRefused) {
  const auto layer = make_layer(kSingle, true, 2);
  const auto refused = [&](std::int64_t samples) {
    BatchNormSaved saved;
    try {
      layer.forward(noise({samples, kChannels, 1, 1}, 1), &saved, {});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadConfig);
      EXPECT_THAT(error.what(), testing::HasSubstr("bn1: "));
      EXPECT_THAT(error.what(), testing::HasSubstr("ghost_batch"));
      return true;
    }
    return false;
  };
  EXPECT_TRUE(refused(1));
  EXPECT_TRUE(refused(3));  // 2 and 1
  EXPECT_FALSE(refused(4));
  EXPECT_NO_THROW(layer.forward(noise({1, kChannels, 1, 1}, 1), nullptr, {}));
}

}  // namespace
}  // namespace lorascale::nn
