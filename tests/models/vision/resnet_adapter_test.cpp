// LoRA on every site of small networks against the same networks with merged weights, by torch's
// operators and autograd in fp64.
#include "nn/lora_conv2d.hpp"
#include "nn/lora_linear.hpp"
#include "tiny_resnet.hpp"

namespace lorascale::models::vision {
namespace {

using test::expect_close;
using test::noise;

const data::ImageLeaf kLeaf = pictures({0, 1, 2, 3, 4, 5, 7});

struct Adapter {
  std::vector<nn::LoraFactors> factors;
  std::vector<std::string> names;
};

// LoRA on every site, in the model and in the reference's weights.
Adapter attach(ResNet& model, double dropout) {
  Adapter adapter;
  for (const auto& site : model.sites()) {
    nn::LoraFactors f;
    auto shape = site.weight.sizes().vec();
    std::vector<std::int64_t> b_shape(shape.size(), 1);
    b_shape[0] = shape[0];
    b_shape[1] = shape[0] = 2;
    const auto seed = fnv1a64(site.name);
    f.a = noise(shape, seed + 1, 0.5).to(model.dtype());
    f.b = noise(b_shape, seed + 2, 0.5).to(model.dtype());
    f.grad_a = at::zeros_like(f.a);
    f.grad_b = at::zeros_like(f.b);
    f.scale = 0.8;
    f.dropout = dropout;
    f.draw = static_cast<std::uint32_t>(adapter.factors.size());
    adapter.factors.push_back(f);
    adapter.names.push_back(site.name);
    if (site.kind == nn::SiteKind::kConv2d) {
      site.attach(std::make_unique<nn::LoraConv2d>(f, site.geometry));
    } else {
      site.attach(std::make_unique<nn::LoraLinear>(f));
    }
  }
  return adapter;
}

TEST(ResNetAdapterTest, AdaptersOnEverySite) {
  for (const auto block : {BlockKind::kBasic, BlockKind::kBottleneck}) {
    const auto model = tiny_resnet(tiny_config(block, NormKind::kBatch));
    Reference reference(*model);
    reference.training = false;
    const auto adapter = attach(*model, 0.0);
    std::vector<at::Tensor> inputs;
    for (std::size_t i = 0; i < adapter.factors.size(); ++i) {
      const auto& f = adapter.factors[i];
      auto& weight = reference.weights.at(adapter.names[i] + ".weight");
      const auto a = inputs.emplace_back(test::leaf64(f.a));
      const auto b = inputs.emplace_back(test::leaf64(f.b));
      weight = weight + f.scale * at::matmul(b.flatten(1), a.flatten(1)).view(weight.sizes());
    }
    const auto loss = reference.loss(kLeaf);
    const auto expected = test::autograd_of(loss, at::ones({}), inputs);
    const auto result = model->accumulate(kLeaf);
    expect_close(result.loss_sum, loss, 1e-6);
    EXPECT_FALSE(result.statistics.defined());
    for (std::size_t i = 0; i < adapter.factors.size(); ++i) {
      const auto& f = adapter.factors[i];
      expect_close(f.grad_a, expected[2 * i], 1e-5, adapter.names[i] + " A");
      expect_close(f.grad_b, expected[2 * i + 1], 1e-5, adapter.names[i] + " B");
    }
  }
}

// Dropout follows from the leaf's key and the samples: the same in any leaf, another in an epoch.
TEST(ResNetAdapterTest, DropoutOfAdaptersBelongsToTheSample) {
  const auto config = tiny_config(BlockKind::kBasic, NormKind::kGroup);
  const auto loss_of = [&](const std::vector<data::ImageLeaf>& leaves, double dropout) {
    const auto model = tiny_resnet(config);
    attach(*model, dropout);
    double loss = 0;
    for (const auto& leaf : leaves) {
      loss += model->accumulate(leaf).loss_sum.item<double>();
    }
    return loss;
  };
  const double once = loss_of({kLeaf}, 0.5);
  EXPECT_NEAR(loss_of({pictures({0, 1, 2}), pictures({3, 4, 5, 7})}, 0.5), once, 1e-10);
  EXPECT_GT(std::abs(loss_of({kLeaf}, 0) - once), 1e-3);
  auto later = kLeaf;
  later.key.epoch += 1;
  EXPECT_GT(std::abs(loss_of({later}, 0.5) - once), 1e-3);
}

// The layout that GPUs work on gives the same numbers.
TEST(ResNetAdapterTest, ChannelsLast) {
  for (const auto norm : {NormKind::kBatch, NormKind::kGroup}) {
    const auto config = tiny_config(BlockKind::kBottleneck, norm);
    const auto& leaf = kLeaf;
    const auto adapted = tiny_resnet(config), adapted_last = tiny_resnet(config);
    adapted_last->set_channels_last(true);
    const auto a = attach(*adapted, 0.3), b = attach(*adapted_last, 0.3);
    expect_close(adapted_last->accumulate(leaf).loss_sum, adapted->accumulate(leaf).loss_sum,
                 1e-10);
    for (std::size_t i = 0; i < a.factors.size(); ++i) {
      expect_close(b.factors[i].grad_a, a.factors[i].grad_a, 1e-9, a.names[i]);
      expect_close(b.factors[i].grad_b, a.factors[i].grad_b, 1e-9, a.names[i]);
    }
  }
}

}  // namespace
}  // namespace lorascale::models::vision
