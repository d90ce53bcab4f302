// What a residual network is made of, how it starts, its running state, and what it refuses.
#include "models/vision/resnet.hpp"

#include <fstream>
#include <sstream>

#include "base/error.hpp"
#include "io/support.hpp"
#include "tiny_resnet.hpp"

namespace lorascale::models::vision {
namespace {

using test::expect_close;
using test::same_bits;

ResNetConfig torchvision_config(BlockKind block, std::vector<std::int64_t> layers) {
  ResNetConfig config;
  config.block = block;
  config.layers = std::move(layers);
  config.classes = 1000;
  return config;
}

// "name dim dim ..." of every tensor, as torchvision 0.26 lists them.
std::vector<std::string> fixture(const std::string& name) {
  std::ifstream file(std::string(LORASCALE_SOURCE_DIR) + "/tests/models/vision/" + name);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> names_and_shapes(ResNet& model) {
  std::vector<std::string> lines;
  for (const auto& slot : model.file_slots()) {
    std::ostringstream line;
    line << slot.parts[0].key;
    for (const auto size : slot.value->sizes()) {
      line << ' ' << size;
    }
    EXPECT_EQ(slot.value->sizes().vec(), slot.parts[0].shape);
    lines.push_back(line.str());
  }
  return lines;
}

TEST(ResNetTest, NamesAndShapesOfTorchvision) {
  ResNet resnet18(torchvision_config(BlockKind::kBasic, {2, 2, 2, 2}), at::kFloat, at::kMeta);
  EXPECT_THAT(names_and_shapes(resnet18),
              testing::UnorderedElementsAreArray(fixture("resnet18_tensors.txt")));
  ResNet resnet50(torchvision_config(BlockKind::kBottleneck, {3, 4, 6, 3}), at::kFloat, at::kMeta);
  EXPECT_THAT(names_and_shapes(resnet50),
              testing::UnorderedElementsAreArray(fixture("resnet50_tensors.txt")));
}

TEST(ResNetTest, SitesAreAllConvolutionsAndTheHead) {
  const auto model = tiny_resnet(tiny_config(BlockKind::kBasic, NormKind::kBatch));
  std::vector<std::string> names;
  for (const auto& site : model->sites()) {
    names.push_back(site.name);
    EXPECT_EQ(site.kind, site.name == "fc" ? nn::SiteKind::kLinear : nn::SiteKind::kConv2d);
  }
  EXPECT_THAT(names, testing::ElementsAre("conv1", "layer1.0.conv1", "layer1.0.conv2",
                                          "layer1.1.conv1", "layer1.1.conv2", "layer2.0.conv1",
                                          "layer2.0.conv2", "layer2.0.downsample.0", "fc"));
  EXPECT_EQ(model->sites()[5].geometry.stride, (std::array<std::int64_t, 2>{2, 2}));
}

TEST(ResNetTest, NormsOfNoneHaveNoTensors) {
  ResNet model(tiny_config(BlockKind::kBasic, NormKind::kNone), at::kFloat, at::kCPU);
  bool biased = false;
  for (const auto& line : names_and_shapes(model)) {
    EXPECT_EQ(line.find("bn"), std::string::npos) << line;
    EXPECT_EQ(line.find("downsample.1"), std::string::npos) << line;
    biased = biased || line == "layer2.0.conv1.bias 8";
  }
  EXPECT_TRUE(biased);
  EXPECT_FALSE(model.running_state().defined());
  ResNet grouped(tiny_config(BlockKind::kBasic, NormKind::kGroup), at::kFloat, at::kCPU);
  EXPECT_FALSE(grouped.running_state().defined());
  EXPECT_TRUE(grouped.buffers().empty());
}

std::map<std::string, at::Tensor> weights_of(ResNet& model) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& slot : model.file_slots()) {
    weights[slot.parts[0].key] = *slot.value;
  }
  return weights;
}

TEST(ResNetTest, StartsAsTorchvisionDoes) {
  auto config = torchvision_config(BlockKind::kBottleneck, {1, 1});
  ResNet model(config, at::kFloat, at::kCPU, 5);
  for (const auto& [key, value] : weights_of(model)) {
    if (value.dim() == 4) {
      const auto fan_out = static_cast<double>(value.size(0) * value.size(2) * value.size(3));
      const double expected = std::sqrt(2.0 / fan_out);
      const double spread = 4.0 / std::sqrt(2.0 * static_cast<double>(value.numel()));
      EXPECT_NEAR(value.std().item<double>() / expected, 1, spread) << key;
    } else if (key.starts_with("fc.")) {
      const double bound = 1 / std::sqrt(512.0);
      EXPECT_LE(value.abs().max().item<double>(), bound);
      EXPECT_GT(value.abs().max().item<double>(), 0.99 * bound);
    } else {
      const bool one = key.ends_with("weight") || key.ends_with("running_var");
      EXPECT_TRUE(value.eq(one ? 1 : 0).all().item<bool>()) << key;
    }
  }
  ResNet same(config, at::kFloat, at::kCPU, 5), other(config, at::kFloat, at::kCPU, 6);
  for (const auto& [key, value] : weights_of(model)) {
    EXPECT_TRUE(same_bits(value, weights_of(same).at(key)));
    EXPECT_EQ(value.equal(weights_of(other).at(key)), value.dim() == 1 && key != "fc.bias") << key;
  }
}

// Without normalisation every block starts as its shortcut.
TEST(ResNetTest, StartsWithSilentBranchesWithoutNorms) {
  ResNet model(tiny_config(BlockKind::kBasic, NormKind::kNone), at::kDouble, at::kCPU, 5);
  auto weights = weights_of(model);
  const auto before = model.logits(pictures({1, 2}));
  weights.at("layer1.1.conv1.weight").fill_(3);
  EXPECT_TRUE(model.logits(pictures({1, 2})).equal(before));
  weights.at("layer1.1.conv2.weight").fill_(3);
  EXPECT_FALSE(model.logits(pictures({1, 2})).equal(before));
}

TEST(ResNetTest, EvaluationGoesByTheRunningState) {
  const auto leaf = pictures({0, 1, 2, 3, 4, 5, 7});
  for (const auto norm : {NormKind::kBatch, NormKind::kGroup, NormKind::kNone}) {
    const auto model = tiny_resnet(tiny_config(BlockKind::kBasic, norm));
    train_all(*model);
    model->set_label_smoothing(0.3);  // not of evaluation
    Reference reference(*model);
    reference.training = false;
    const auto result = model->evaluate(leaf);
    expect_close(result.loss_sum, reference.loss(leaf), 1e-6);
    const auto logits = reference.logits(pixels_of(leaf));
    expect_close(model->logits(leaf), logits, 1e-6);
    double correct = 0;
    for (std::size_t i = 0; i < leaf.labels.size(); ++i) {
      correct +=
          logits[static_cast<std::int64_t>(i)].argmax().item<std::int64_t>() == leaf.labels[i] ? 1
                                                                                               : 0;
    }
    EXPECT_EQ(result.targets, 6);
    ASSERT_EQ(result.measures.sizes(), (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(result.measures[0][0].item<double>(), correct);
    EXPECT_EQ(result.measures[0][1].item<double>(), 6);
    EXPECT_EQ(model->measure_names(), std::vector<std::string>{"accuracy"});
    EXPECT_FALSE(result.statistics.defined());
  }
}

// One leaf: as torch's BatchNorm2d moves its state.
TEST(ResNetTest, RunningStateOfOneLeafIsTorchs) {
  const auto leaf = pictures({0, 1, 2, 3, 4});
  const auto model = tiny_resnet(tiny_config(BlockKind::kBottleneck, NormKind::kBatch));
  train_all(*model);
  Reference reference(*model);
  reference.logits(pixels_of(leaf));
  const auto result = model->accumulate(leaf);
  ASSERT_EQ(result.statistics.scalar_type(), at::kFloat);
  ASSERT_EQ(result.statistics.sizes(), model->statistics().sizes());
  const auto before = model->statistics().clone();
  model->move_statistics(result.statistics / 5, at::scalar_tensor(true, at::kBool));
  EXPECT_TRUE(same_bits(model->statistics(), before));
  model->move_statistics(result.statistics / 5, at::scalar_tensor(false, at::kBool));
  EXPECT_FALSE(model->statistics().equal(before));
  for (const auto& slot : model->buffers()) {
    expect_close(*slot.value, reference.weights.at(slot.parts[0].key), 1e-6, slot.parts[0].key);
  }
}

// Groups and leaves: the state moves once, to the mean of all groups by their samples.
TEST(ResNetTest, RunningStateOfManyGroups) {
  auto config = tiny_config(BlockKind::kBasic, NormKind::kBatch);
  config.ghost_batch = 2;
  const auto model = tiny_resnet(config);
  train_all(*model);
  const auto start = model->statistics().clone();
  const auto sum = model->accumulate(pictures({0, 1, 2, 3, 4})).statistics +
                   model->accumulate(pictures({5, 7})).statistics;
  auto expected = at::zeros_like(start, at::kDouble);
  for (const auto& ids : std::vector<std::vector<std::int64_t>>{{0, 1}, {2, 3}, {4}, {5, 7}}) {
    model->statistics().zero_();
    Reference alone(*model);
    alone.logits(pixels_of(pictures(ids)));
    std::vector<at::Tensor> moved;  // a tenth of the way from zero
    for (const auto& slot : model->buffers()) {
      moved.push_back(alone.weights.at(slot.parts[0].key));
    }
    expected += at::cat(moved) * (10.0 * static_cast<double>(ids.size()));
  }
  expect_close(sum, expected, 1e-5);
  model->statistics().copy_(start);
  model->move_statistics(sum / 7, at::scalar_tensor(false, at::kBool));
  expect_close(model->statistics(), 0.9 * start + 0.1 * expected / 7, 1e-6);
}

TEST(ResNetTest, StateOfFrozenNormsStays) {
  const auto model = tiny_resnet(tiny_config(BlockKind::kBasic, NormKind::kBatch));
  train(*model, [](const std::string& key) { return key.starts_with("layer2."); });
  const auto before = model->statistics().clone();
  const auto result = model->accumulate(pictures({1, 2, 3}));
  model->move_statistics(result.statistics / 3, at::scalar_tensor(false, at::kBool));
  for (const auto& slot : model->buffers()) {
    const bool moved = slot.parts[0].key.starts_with("layer2.");
    const auto& now = *slot.value;
    const auto was = before.as_strided(now.sizes(), {1}, now.storage_offset());
    EXPECT_EQ(!now.equal(was), moved) << slot.parts[0].key;
  }
}

TEST(ResNetTest, LeavesWithoutTargets) {
  const auto model = tiny_resnet(tiny_config(BlockKind::kBasic, NormKind::kBatch));
  const auto gradients = train_all(*model);
  auto leaf = pictures({1, 2, 3});
  leaf.drop_targets();
  const auto result = model->accumulate(leaf);
  EXPECT_EQ(result.targets, 0);
  EXPECT_EQ(result.loss_sum.item<double>(), 0);
  EXPECT_EQ(result.measures[0][1].item<double>(), 0);
  for (const auto& [key, gradient] : gradients) {
    EXPECT_EQ(gradient.abs().max().item<double>(), 0) << key;
  }
}

TEST(ResNetTest, PicturesThatDoNotFit) {
  const auto model = tiny_resnet(tiny_config(BlockKind::kBasic, NormKind::kBatch));
  io::expect_error(ExitCode::kBadInput, {"1 channels", "takes 3", "in_channels"},
                   [&] { model->evaluate(pictures({1}, 6, 5, 1)); });
  auto leaf = pictures({1, 2});
  leaf.labels[1] = 5;
  io::expect_error(ExitCode::kBadInput, {"class 5", "has 5", "classes"},
                   [&] { model->accumulate(leaf); });
}

double kept_bytes(const ResNetConfig& config, const std::string& from) {
  const auto model = tiny_resnet(config, at::kFloat);
  train(*model, [&](const std::string& key) { return key.starts_with(from); });
  return model->activation_bytes(pictures({1, 2, 3}, 8, 8)).blocks;
}

// 3 pictures of 8 x 8: 64 positions of 4 channels, then 16 of 8; fp32.
TEST(ResNetTest, ActivationBytes) {
  const auto config = tiny_config(BlockKind::kBasic, NormKind::kNone);
  const double stem = 3 * 64 + 4 * 64;    // input, output
  const double first = 2 * (2 * 4 * 64);  // two blocks, two outputs each
  const double second = 2 * 8 * 16;
  EXPECT_EQ(kept_bytes(config, ""), 3 * 4 * (stem + first + second + 8));
  EXPECT_EQ(kept_bytes(config, "layer2.0"), 3 * 4 * (4 * 64 + second + 8));
  EXPECT_EQ(kept_bytes(config, "fc"), 3 * 4 * 8.0);
  // Norms that train keep their inputs; the shortcut has one, too.
  const auto normed = tiny_config(BlockKind::kBasic, NormKind::kBatch);
  EXPECT_EQ(kept_bytes(normed, ""), 3 * 4 * (stem + 4 * 64 + 2 * first + 2 * second + 8 * 16 + 8));
  EXPECT_EQ(tiny_resnet(config, at::kFloat)->activation_bytes(pictures({1, 2, 3})).head, 3 * 4 * 5);
}

}  // namespace
}  // namespace lorascale::models::vision
