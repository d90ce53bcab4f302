// Losses and gradients of small networks against the same networks by torch's operators, with
// autograd, in fp64.
#include <numeric>

#include "tiny_resnet.hpp"

namespace lorascale::models::vision {
namespace {

using test::expect_close;
using test::same_bits;

// Relative to the largest of each tensor.
void expect_same(const Gradients& actual, const Gradients& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [key, gradient] : expected) {
    const auto scale = gradient.abs().max();
    ASSERT_GT(scale.item<double>(), 1e-4) << key;
    expect_close(actual.at(key) / scale, gradient / scale, tolerance, key);
  }
}

Gradients by_autograd(Reference& reference, const at::Tensor& loss, const Gradients& of) {
  std::vector<at::Tensor> inputs;
  for (const auto& [key, gradient] : of) {
    inputs.push_back(reference.weights.at(key));
  }
  const auto values = test::autograd_of(loss, at::ones({}), inputs);
  Gradients result;
  std::size_t next = 0;
  for (const auto& [key, gradient] : of) {
    result[key] = values[next++];
  }
  return result;
}

void check(const ResNetConfig& config, const data::ImageLeaf& leaf, double smoothing = 0) {
  const auto model = tiny_resnet(config);
  const auto gradients = train_all(*model);
  model->set_label_smoothing(smoothing);
  Reference reference(*model);
  const auto loss = reference.loss(leaf, smoothing);
  const auto expected = by_autograd(reference, loss, gradients);
  const auto result = model->accumulate(leaf);
  EXPECT_EQ(result.loss_sum.scalar_type(), at::kDouble);
  expect_close(result.loss_sum, loss, 1e-10, "loss");
  EXPECT_EQ(result.targets, targets_of(leaf));
  expect_same(gradients, expected, 1e-9);
  // A second leaf adds to what is there.
  model->accumulate(leaf);
  for (const auto& [key, gradient] : gradients) {
    expect_close(gradient, 2 * expected.at(key), 1e-8, key);
  }
}

const data::ImageLeaf kLeaf = pictures({0, 1, 2, 3, 4, 5, 7});

TEST(ResNetGradientTest, EveryBlockAndNorm) {
  for (const auto block : {BlockKind::kBasic, BlockKind::kBottleneck}) {
    for (const auto norm : {NormKind::kBatch, NormKind::kGroup, NormKind::kNone}) {
      SCOPED_TRACE(std::to_string(static_cast<int>(block)) +
                   std::to_string(static_cast<int>(norm)));
      check(tiny_config(block, norm), kLeaf);
    }
  }
}

TEST(ResNetGradientTest, GhostBatches) {
  for (const std::int64_t size : {1, 2, 3, 7, 100}) {
    auto config = tiny_config(BlockKind::kBasic, NormKind::kBatch);
    config.ghost_batch = size;
    check(config, kLeaf);
  }
}

TEST(ResNetGradientTest, LargeStemAndManyStages) {
  auto config = tiny_config(BlockKind::kBottleneck, NormKind::kBatch);
  config.stem = StemKind::kLarge;
  config.in_channels = 2;
  check(config, pictures({1, 2, 3}, 23, 18, 2));
  config = tiny_config(BlockKind::kBasic, NormKind::kGroup);
  config.layers = {1, 1, 2};
  config.stem = StemKind::kLarge;
  check(config, pictures({1, 2, 3}, 23, 18));
  config.layers = {1};
  check(config, pictures({1, 2, 3}, 16, 16));
}

TEST(ResNetGradientTest, LabelSmoothing) {
  check(tiny_config(BlockKind::kBasic, NormKind::kBatch), kLeaf, 0.2);
}

// What trains gets the same bits as if all did.
TEST(ResNetGradientTest, PartsThatTrain) {
  for (const auto block : {BlockKind::kBasic, BlockKind::kBottleneck}) {
    const auto config = tiny_config(block, NormKind::kGroup);
    const auto all = tiny_resnet(config);
    const auto expected = train_all(*all);
    all->accumulate(kLeaf);
    for (const std::string part : {"fc.", "layer2.0.conv2", "layer2.0.downsample.0", "layer2.0.bn1",
                                   "layer1.1.", "conv1", "bn1", "layer1.0.conv1.weight"}) {
      SCOPED_TRACE(part);
      const auto model = tiny_resnet(config);
      const auto gradients =
          train(*model, [&](const std::string& key) { return key.starts_with(part); });
      ASSERT_FALSE(gradients.empty());
      model->accumulate(kLeaf);
      for (const auto& [key, gradient] : gradients) {
        EXPECT_TRUE(same_bits(gradient, expected.at(key))) << key;
      }
    }
  }
}

TEST(ResNetGradientTest, FrozenBatchNormsGoByTheirRunningState) {
  const auto model = tiny_resnet(tiny_config(BlockKind::kBottleneck, NormKind::kBatch));
  const auto gradients =
      train(*model, [](const std::string& key) { return key.find("conv") != std::string::npos; });
  Reference reference(*model);
  reference.training = false;
  const auto loss = reference.loss(kLeaf);
  const auto expected = by_autograd(reference, loss, gradients);
  const auto result = model->accumulate(kLeaf);
  expect_close(result.loss_sum, loss, 1e-6);  // the running state is fp32
  expect_same(gradients, expected, 1e-5);
  EXPECT_FALSE(result.statistics.defined());
}

// Samples are summed: any split of a batch into leaves agrees, where no sample sees another.
TEST(ResNetGradientTest, AnySplitAgreesWithoutBatchNorm) {
  for (const auto norm : {NormKind::kGroup, NormKind::kNone}) {
    const auto whole = tiny_resnet(tiny_config(BlockKind::kBasic, norm));
    const auto expected = train_all(*whole);
    const auto at_once = whole->accumulate(kLeaf);
    for (const auto& split :
         std::vector<std::vector<std::vector<std::int64_t>>>{{{0, 1, 2}, {3, 4, 5, 7}},
                                                             {{0}, {1}, {2}, {3}, {4}, {5}, {7}},
                                                             {{7, 5}, {4, 0, 1, 3, 2}}}) {
      const auto model = tiny_resnet(tiny_config(BlockKind::kBasic, norm));
      const auto gradients = train_all(*model);
      auto loss = at::zeros({}, at::kDouble);
      auto measures = at::zeros({1, 2}, at::kDouble);
      for (const auto& ids : split) {
        const auto result = model->accumulate(pictures(ids));
        loss += result.loss_sum;
        measures += result.measures;
      }
      expect_close(loss, at_once.loss_sum, 1e-12);
      EXPECT_TRUE(measures.equal(at_once.measures));
      expect_same(gradients, expected, 1e-11);
    }
  }
}

// Cosine between two gradients as a whole.
double cosine(const Gradients& a, const Gradients& b) {
  double dot = 0, a2 = 0, b2 = 0;
  for (const auto& [key, gradient] : a) {
    const auto x = gradient.to(at::kDouble), y = b.at(key).to(at::kDouble);
    dot += (x * y).sum().item<double>();
    a2 += x.square().sum().item<double>();
    b2 += y.square().sum().item<double>();
  }
  return dot / std::sqrt(a2 * b2);
}

// 16-bit training comes as near the gradients of fp64 as torch's own, and adds them up in fp32.
TEST(ResNetGradientTest, SixteenBit) {
  for (const auto norm : {NormKind::kBatch, NormKind::kGroup, NormKind::kNone}) {
    const auto model = tiny_resnet(tiny_config(BlockKind::kBasic, norm), at::kBFloat16);
    double ours = 0, torchs = 0;
    for (std::int64_t first = 0; first < 96; first += 12) {
      std::vector<std::int64_t> ids(12);
      std::iota(ids.begin(), ids.end(), first);
      const auto leaf = pictures(ids, 8, 8);
      const auto gradients = train_all(*model);
      Reference exact(*model), rounded(*model, at::kBFloat16);
      const auto loss = exact.loss(leaf);
      const auto expected = by_autograd(exact, loss, gradients);
      expect_close(model->accumulate(leaf).loss_sum, loss, 3e-2);
      ours += 1 - cosine(gradients, expected);
      torchs += 1 - cosine(by_autograd(rounded, rounded.loss(leaf), gradients), expected);
      EXPECT_EQ(gradients.at("conv1.weight").scalar_type(), at::kFloat);
    }
    EXPECT_LT(ours, 1.2 * torchs);
    EXPECT_LT(ours, 8 * 0.03);
  }
}

// The layout that GPUs work on gives the same numbers.
TEST(ResNetGradientTest, ChannelsLast) {
  for (const auto norm : {NormKind::kBatch, NormKind::kGroup, NormKind::kNone}) {
    auto config = tiny_config(BlockKind::kBottleneck, norm);
    config.ghost_batch = 2;
    config.stem = StemKind::kLarge;
    const auto leaf = pictures({1, 2, 3, 4}, 23, 18);
    const auto plain = tiny_resnet(config), last = tiny_resnet(config);
    last->set_channels_last(true);
    const auto expected = train_all(*plain), actual = train_all(*last);
    expect_close(last->accumulate(leaf).loss_sum, plain->accumulate(leaf).loss_sum, 1e-10);
    expect_same(actual, expected, 1e-9);
  }
}

TEST(ResNetGradientTest, RepeatsBitForBit) {
  const auto config = tiny_config(BlockKind::kBasic, NormKind::kBatch);
  const auto a = tiny_resnet(config, at::kFloat), b = tiny_resnet(config, at::kFloat);
  const auto first = train_all(*a), second = train_all(*b);
  const auto x = a->accumulate(kLeaf), y = b->accumulate(kLeaf);
  EXPECT_TRUE(same_bits(x.loss_sum, y.loss_sum));
  EXPECT_TRUE(same_bits(x.statistics, y.statistics));
  for (const auto& [key, gradient] : first) {
    EXPECT_TRUE(same_bits(gradient, second.at(key))) << key;
  }
}

}  // namespace
}  // namespace lorascale::models::vision
