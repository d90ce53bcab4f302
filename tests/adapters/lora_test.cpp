#include "adapters/lora.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace lorascale::adapters {
namespace {

// As peft: a name is the whole path of a layer, or its end from a dot on.
TEST(LoraTargets, NameLayersByWholeParts) {
  const std::string layer = "model.layers.0.self_attn.q_proj";
  EXPECT_TRUE(target_names("q_proj", layer));
  EXPECT_TRUE(target_names("self_attn.q_proj", layer));
  EXPECT_TRUE(target_names(layer, layer));
  EXPECT_FALSE(target_names("proj", layer));
  EXPECT_FALSE(target_names("attn.q_proj", layer));
  EXPECT_FALSE(target_names("q_proj", layer + "s"));
}

TEST(LoraSettings, ScaleIsAlphaByRankOrByItsRoot) {
  LoraSettings settings;
  EXPECT_DOUBLE_EQ(settings.scale(16, 8), 0.5);
  settings.rslora = true;
  EXPECT_DOUBLE_EQ(settings.scale(16, 8), 2);
}

// A starts as a function of seed and name, between ±1/sqrt(in), and B at zero: the same on every
// rank, and another in every layer.
TEST(AttachLora, StartsEveryLayerWithNumbersOfItsOwn) {
  std::vector<nn::LinearGroup> layers(3);
  std::vector<nn::LinearGroup*> groups;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers[i].members = {{"layers." + std::to_string(i < 2 ? i : 0) + ".q_proj", 8, 0}};
    layers[i].weight = at::zeros({8, 16});
    groups.push_back(&layers[i]);
  }
  LoraSettings settings;
  settings.rank = 4;
  settings.targets = {"q_proj"};
  const auto attach = [&](nn::LinearGroup* group, std::uint64_t seed) {
    const auto parameters = attach_lora(match_lora_targets({group}, settings), settings, seed);
    EXPECT_TRUE(at::equal(group->branches.back().b, at::zeros({8, 4})));
    EXPECT_LE(group->branches.back().a.abs().max().item<float>(), 0.25F);
    return group->branches.back().a.clone();
  };
  const at::Tensor first = attach(groups[0], 1);
  EXPECT_FALSE(at::equal(first, attach(groups[1], 1)));
  EXPECT_TRUE(at::equal(first, attach(groups[2], 1)));  // of the same name
  EXPECT_FALSE(at::equal(first, attach(groups[2], 2)));
}

}  // namespace
}  // namespace lorascale::adapters
