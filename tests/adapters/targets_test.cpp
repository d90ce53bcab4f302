#include "adapters/targets.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/small_model.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The layers that are named, or the refusal after them.
std::vector<std::string> named(const std::vector<std::string>& texts) {
  test::SmallModel layers;
  const auto model = layers.adapted();
  std::vector<std::string> names;
  try {
    Targets targets(texts);
    for (const auto& site : model.sites) {
      if (targets.names(site)) {
        names.push_back(site.name.substr(std::string("model.").size()));
      }
    }
    targets.require_all_used(model);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    names.emplace_back(error.what());
  }
  return names;
}

TEST(Targets, AllLinearLeavesConvolutionsOutAndAllLayersDoesNot) {
  EXPECT_THAT(named({"all-linear"}), ElementsAre("layers.0.q_proj", "layers.0.v_proj",
                                                 "layers.0.up_proj", "layers.1.q_proj"));
  EXPECT_THAT(named({"all-layers"}),
              ElementsAre("layers.0.q_proj", "layers.0.v_proj", "layers.0.up_proj",
                          "layers.1.q_proj", "stem.conv"));
}

TEST(Targets, NameLayersOfEitherKind) {
  EXPECT_THAT(named({"conv"}), ElementsAre("stem.conv"));
  EXPECT_THAT(named({"v_proj", "layers.1.q_proj"}),
              ElementsAre("layers.0.v_proj", "layers.1.q_proj"));
  EXPECT_THAT(named({"model.layers.0.q_proj", "stem.conv"}),
              ElementsAre("layers.0.q_proj", "stem.conv"));
}

// Only a single entry is an expression or a word for many; peft takes lists literally, too.
TEST(Targets, OfAListAreLiteral) {
  EXPECT_THAT(named({R"(.*\.[qv]_proj)"}),
              ElementsAre("layers.0.q_proj", "layers.0.v_proj", "layers.1.q_proj"));
  EXPECT_THAT(named({"v_proj", ".*q_proj"}),
              ElementsAre("layers.0.v_proj", HasSubstr("'.*q_proj' matches no layer")));
  EXPECT_THAT(named({"v_proj", "all-linear"}),
              ElementsAre("layers.0.v_proj", HasSubstr("'all-linear' matches no layer")));
}

TEST(Targets, ThatNameNothingAreRefusedWithWhatThereIs) {
  EXPECT_THAT(named({"q_proj", "k_proj"}),
              ElementsAre("layers.0.q_proj", "layers.1.q_proj",
                          "adapter.targets: 'k_proj' matches no layer of this model that takes an "
                          "adapter; there are q_proj, v_proj, up_proj, conv, or write all-linear "
                          "or all-layers"));
}

// Of a number alone, as in a sequence of torch's, nobody would know what it is.
TEST(Targets, AreNamedByMoreThanANumber) {
  nn::Deltas deltas;
  AdaptedModel model;
  for (const char* name : {"layer1.0.downsample.0", "0", "fc"}) {
    model.sites.push_back({name, nn::SiteKind::kConv2d, at::Tensor(), {}, {}, &deltas, 0});
  }
  try {
    Targets({"q_proj"}).require_all_used(model);
    ADD_FAILURE() << "took it";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("there are downsample.0, 0, fc, or"));
  }
}

// A part without a site is refused where it is named, and passed over where everything is meant.
TEST(Targets, ThatNameAPartWithoutASiteAreRefused) {
  EXPECT_THAT(named({"lm_head", "conv"}),
              ElementsAre("stem.conv", HasSubstr("adapter.targets names lm_head, which takes no "
                                                 "adapter yet")));
  EXPECT_THAT(named({".*(conv|head)"}),
              ElementsAre("stem.conv", HasSubstr("adapter.targets names lm_head")));
}

TEST(LayerPattern, MatchesWholePartsAtTheEndOfAName) {
  const auto matches = [](const std::string& key, const std::string& layer) {
    return layer_pattern(key).matches_whole(layer);
  };
  EXPECT_TRUE(matches("q_proj", "q_proj"));
  EXPECT_TRUE(matches("q_proj", "layers.1.q_proj"));
  EXPECT_FALSE(matches("q_proj", "layers.1.qq_proj"));
  EXPECT_FALSE(matches("q_proj", "layers.1.q_proj.base"));
  EXPECT_FALSE(matches("1.q_proj", "layers.11.q_proj"));
  // Alternatives are those of the key, not of what stands around it.
  EXPECT_TRUE(matches("q_proj|up_proj", "layers.1.up_proj"));
  EXPECT_FALSE(matches("q_proj|up_proj", "layers.1.q_proj.x"));
  EXPECT_FALSE(matches("q_proj|up_proj", "xup_proj"));
}

TEST(Exceptions, AreTheValueThatMatchesOrTheUsualOne) {
  Exceptions<double> alphas({{"q_proj", 4.0}, {R"(layers\.0\..*)", 4.0}, {"conv", 0.5}}, "alphas");
  EXPECT_EQ(alphas.of("model.layers.0.q_proj", 16), 4);  // both, and they agree
  EXPECT_EQ(alphas.of("model.layers.1.v_proj", 16), 16);
  EXPECT_THROW(alphas.require_all_used(), Error) << "conv has not come yet";
  EXPECT_EQ(alphas.of("model.stem.conv", 16), 0.5);
  alphas.require_all_used();
  Exceptions<std::int64_t> ranks({{"q_proj", 4}, {R"(layers\.0\..*)", 2}}, "ranks");
  EXPECT_EQ(ranks.of("model.layers.1.q_proj", 8), 4);
  try {
    static_cast<void>(ranks.of("model.layers.0.q_proj", 8));
    ADD_FAILURE() << "two values for one layer";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    EXPECT_THAT(error.what(), testing::StartsWith("ranks: "));
  }
}

}  // namespace
}  // namespace lorascale::adapters
