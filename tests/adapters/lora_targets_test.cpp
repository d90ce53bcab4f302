#include <gtest/gtest.h>

#include "adapters/lora.hpp"

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

}  // namespace
}  // namespace lorascale::adapters
