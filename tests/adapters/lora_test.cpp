#include "adapters/lora/lora.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "nn/linear_group.hpp"

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

struct Layers {
  std::vector<nn::LinearGroup> owned;
  AdaptedModel model;
  explicit Layers(const std::vector<std::string>& names) : owned(names.size()) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      owned[i].members = {{names[i], 8, 0}};
      owned[i].weight = at::zeros({8, 16});
      model.sites.push_back(owned[i].sites()[0]);
    }
  }
};

// "name: rank alpha" of all adapted layers, or the refusal.
std::string adapted(const LoraSettings& settings) {
  const Layers layers({"model.layers.0.q_proj", "model.layers.1.q_proj", "model.layers.1.up_proj"});
  std::string text;
  try {
    for (const auto& module : match_lora_targets(layers.model, settings)) {
      text += fmt::format("{}: {} {}\n", module.site.name, module.rank, module.alpha);
    }
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    return error.what();
  }
  return text;
}

TEST(LoraTargets, MayBeOneExpressionForTheWholeName) {
  LoraSettings settings;
  settings.rank = 4;
  settings.targets = {R"(model\.layers\.(?!0\.)\d+\.(?P<kind>q|up)_proj)"};
  EXPECT_EQ(adapted(settings), "model.layers.1.q_proj: 4 16\nmodel.layers.1.up_proj: 4 16\n");
  settings.targets = {R"(layers\.\d+\.q_proj)"};  // an end of the name is not enough
  EXPECT_THAT(adapted(settings), ::testing::HasSubstr("matches no layer of this model"));
}

TEST(LoraPatterns, GiveLayersValuesByWholePartsOrExpressions) {
  LoraSettings settings;
  settings.targets = {"all-linear"};
  settings.rank = 4;
  settings.rank_pattern = {{"layers.1.q_proj", 2}, {"pro.", 1}};
  EXPECT_EQ(adapted(settings),
            "adapter.rank_pattern: 'pro.' matches none of the adapted layers; remove it or "
            "adapt the layer through adapter.targets");
  settings.rank_pattern = {{"layers.1.q_proj", 2}};
  settings.alpha_pattern = {{R"(\d+\.(?:q|k)_proj|nothing)", 8}, {R"(model.*\.up_proj)", 0.5}};
  EXPECT_EQ(adapted(settings),
            "model.layers.0.q_proj: 4 8\nmodel.layers.1.q_proj: 2 8\n"
            "model.layers.1.up_proj: 4 0.5\n");
  settings.rank_pattern = {{"layers.1.q_proj", 2}, {"q_proj", 1}};
  EXPECT_THAT(
      adapted(settings),
      ::testing::HasSubstr("'layers.1.q_proj' and 'q_proj' both match model.layers.1.q_proj"));
}

TEST(LoraPatterns, ThatAreWrongOrRunAwayAreRefusedByName) {
  LoraSettings settings;
  const std::string endless = R"(((\w|\.)+)+x)";
  settings.targets = {endless};
  EXPECT_EQ(adapted(settings),
            "adapter.targets: '" + endless + "' is too complex: match limit exceeded");
  settings.targets = {"all-linear"};
  settings.alpha_pattern = {{endless, 8}};
  EXPECT_THAT(adapted(settings),
              ::testing::StartsWith("adapter.alpha_pattern: '" + endless + "' is too complex"));
  settings.rank_pattern = {{"(q_proj", 8}};
  EXPECT_EQ(adapted(settings),
            "adapter.rank_pattern: '(q_proj' is no regular expression that can be used: missing "
            "closing parenthesis at offset 7");
}

// A starts as a function of seed and name, between ±1/sqrt(in), and B at zero: the same on every
// rank, and another in every layer.
TEST(AttachLora, StartsEveryLayerWithNumbersOfItsOwn) {
  const Layers layers({"layers.0.q_proj", "layers.1.q_proj", "layers.0.q_proj"});
  LoraSettings settings;
  settings.rank = 4;
  settings.targets = {"q_proj"};
  const auto attach = [&](std::size_t layer, std::uint64_t seed) {
    AdaptedModel one;
    one.sites = {layers.model.sites[layer]};
    const auto parameters = attach_lora(match_lora_targets(one, settings), settings, seed);
    const auto [a, b] = matrices_of(*parameters, parameters->master(), 1, 0);
    EXPECT_TRUE(at::equal(b, at::zeros({8, 4})));
    EXPECT_LE(a.abs().max().item<float>(), 0.25F);
    return a.clone();
  };
  const at::Tensor first = attach(0, 1);
  EXPECT_FALSE(at::equal(first, attach(1, 1)));
  EXPECT_TRUE(at::equal(first, attach(2, 1)));  // of the same name
  EXPECT_FALSE(at::equal(first, attach(2, 2)));
}

}  // namespace
}  // namespace lorascale::adapters
