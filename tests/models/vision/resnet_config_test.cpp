// config.json of residual networks: read, written, and refused where something is wrong.
#include "models/vision/resnet_config.hpp"

#include <nlohmann/json.hpp>

#include "io/support.hpp"

namespace lorascale::models::vision {
namespace {

using Json = nlohmann::json;

Json sound() {
  return {{"model_type", "resnet"},
          {"architectures", {"ResNet"}},
          {"block", "bottleneck"},
          {"layers", {3, 4, 6, 3}},
          {"width", 48},
          {"norm", "group"},
          {"groups", 16},
          {"ghost_batch", 8},
          {"norm_eps", 1e-4},
          {"norm_momentum", 0.2},
          {"stem", "small"},
          {"in_channels", 2},
          {"classes", 3},
          {"labels", {"cat", "dog", "\u00e9t\u00e9"}},
          {"image_size", {32, 40}},
          {"image_mean", {0.1, 0.2}},
          {"image_std", {0.3, 0.4}}};
}

ResNetConfig parse(const Json& json) {
  return parse_resnet_config(json.dump(), "m/config.json");
}

void expect_refused(const Json& change, std::initializer_list<std::string_view> words) {
  Json json = sound();
  for (const auto& [key, value] : change.items()) {
    json.erase(key);
    if (!value.is_null()) {
      json[key] = value;
    }
  }
  SCOPED_TRACE(change.dump());
  io::expect_error(ExitCode::kBadInput, words, [&] { parse(json); });
  io::expect_error(ExitCode::kBadInput, {"m/config.json"}, [&] { parse(json); });
}

TEST(ResNetConfigTest, EveryField) {
  const auto c = parse(sound());
  EXPECT_EQ(c.block, BlockKind::kBottleneck);
  EXPECT_EQ(c.layers, (std::vector<std::int64_t>{3, 4, 6, 3}));
  EXPECT_EQ(c.width, 48);
  EXPECT_EQ(c.norm, NormKind::kGroup);
  EXPECT_EQ(c.groups, 16);
  EXPECT_EQ(c.ghost_batch, 8);
  EXPECT_EQ(c.norm_eps, 1e-4);
  EXPECT_EQ(c.norm_momentum, 0.2);
  EXPECT_EQ(c.stem, StemKind::kSmall);
  EXPECT_EQ(c.in_channels, 2);
  EXPECT_EQ(c.classes, 3);
  EXPECT_EQ(c.labels, (std::vector<std::string>{"cat", "dog", "\u00e9t\u00e9"}));
  EXPECT_EQ(c.image_size, (std::array<std::int64_t, 2>{32, 40}));
  EXPECT_EQ(c.image_mean, (std::vector<double>{0.1, 0.2}));
  EXPECT_EQ(c.image_std, (std::vector<double>{0.3, 0.4}));
}

TEST(ResNetConfigTest, DefaultsAreTorchvisions) {
  const auto c = parse(
      {{"model_type", "resnet"}, {"block", "basic"}, {"layers", {2, 2, 2, 2}}, {"classes", 1000}});
  EXPECT_EQ(c.block, BlockKind::kBasic);
  EXPECT_EQ(c.width, 64);
  EXPECT_EQ(c.norm, NormKind::kBatch);
  EXPECT_EQ(c.ghost_batch, 0);
  EXPECT_EQ(c.norm_eps, 1e-5);
  EXPECT_EQ(c.norm_momentum, 0.1);
  EXPECT_EQ(c.stem, StemKind::kLarge);
  EXPECT_EQ(c.in_channels, 3);
  EXPECT_TRUE(c.labels.empty());
  EXPECT_EQ(c.image_size, (std::array<std::int64_t, 2>{0, 0}));
}

TEST(ResNetConfigTest, WhatIsWrittenIsRead) {
  EXPECT_EQ(Json::parse(resnet_config_json(parse(sound()))), sound());
  for (const auto& change : std::vector<Json>{{{"block", "basic"}, {"norm", "batch"}},
                                              {{"norm", "none"}, {"stem", "large"}}}) {
    Json json = sound();
    json.update(change);
    EXPECT_EQ(Json::parse(resnet_config_json(parse(json))), json);
  }
  Json bare = sound();
  for (const char* key : {"labels", "image_size", "image_mean", "image_std"}) {
    bare.erase(key);
  }
  EXPECT_EQ(Json::parse(resnet_config_json(parse(bare))), bare);
}

TEST(ResNetConfigTest, WhatIsMissing) {
  for (const char* key : {"block", "layers", "classes"}) {
    expect_refused({{key, nullptr}}, {key, "is missing"});
  }
}

TEST(ResNetConfigTest, WhatIsWrong) {
  expect_refused({{"model_type", "llama"}}, {"model_type", "llama", "'resnet'"});
  expect_refused({{"block", "wide"}}, {"block", "wide", "basic, bottleneck"});
  expect_refused({{"norm", "layer"}}, {"norm", "batch, group, none"});
  expect_refused({{"stem", "tiny"}}, {"stem", "small, large"});
  expect_refused({{"layers", Json::array()}}, {"layers", "1 to 8 stages"});
  expect_refused({{"layers", std::vector<int>(9, 1)}}, {"layers", "1 to 8 stages"});
  expect_refused({{"layers", {2, 0}}}, {"layers"});
  expect_refused({{"layers", {2, 1 << 20}}}, {"layers"});
  expect_refused({{"layers", "18"}}, {"layers"});
  expect_refused({{"width", 0}}, {"width"});
  expect_refused({{"width", 1 << 20}}, {"width"});
  expect_refused({{"groups", 5}}, {"groups", "must divide width", "48", "5"});
  expect_refused({{"groups", 0}}, {"groups"});
  expect_refused({{"ghost_batch", -1}}, {"ghost_batch"});
  expect_refused({{"ghost_batch", 2.5}}, {"ghost_batch"});
  expect_refused({{"norm_eps", 0}}, {"norm_eps", "above zero"});
  expect_refused({{"norm_momentum", 1.5}}, {"norm_momentum", "at most 1"});
  expect_refused({{"in_channels", 0}}, {"in_channels"});
  expect_refused({{"classes", 0}}, {"classes"});
  expect_refused({{"classes", 4}}, {"labels", "4 classes", "has 3"});
  expect_refused({{"labels", {"a", 1, "b"}}}, {"labels"});
  expect_refused({{"image_size", {32}}}, {"image_size", "[height, width]"});
  expect_refused({{"image_size", {32, 0}}}, {"image_size"});
  expect_refused({{"image_mean", {0.5}}}, {"image_mean", "2 channels"});
  expect_refused({{"image_std", {0.5, 0.0}}}, {"image_std", "above zero"});
  expect_refused({{"dropout", 0.5}}, {"dropout"});
}

TEST(ResNetConfigTest, TheOneOfTransformers) {
  expect_refused({{"hidden_sizes", {256, 512}}, {"depths", {3, 4}}, {"layer_type", "bottleneck"}},
                 {"hidden_sizes", "transformers", "torchvision"});
}

// groups are of no consequence where nothing is normalised in groups.
TEST(ResNetConfigTest, GroupsOfOtherNorms) {
  Json json = sound();
  json.update({{"norm", "batch"}, {"groups", 5}});
  EXPECT_EQ(parse(json).groups, 5);
}

}  // namespace
}  // namespace lorascale::models::vision
