// Layers that take adapters, as sd-scripts counts and names them.
#include "models/diffusion/kohya_names.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "models/diffusion/pipeline.hpp"

namespace lorascale::models::diffusion {
namespace {

PipelineConfig sd1() {
  PipelineConfig config;
  config.unet.levels = {{320, 1, 8}, {640, 1, 8}, {1280, 1, 8}, {1280, 0, 8}};
  config.texts = {{}};
  return config;
}

PipelineConfig sdxl() {
  PipelineConfig config;
  config.variant = Variant::kSdxl;
  config.unet.levels = {{320, 0, 5}, {640, 2, 10}, {1280, 10, 20}};
  config.unet.middle_depth = 10;
  config.unet.context = 2048;
  config.unet.addition = 2816;
  ClipTextConfig second;
  second.hidden = 1280;
  second.intermediate = 5120;
  second.layers = 32;
  second.heads = 20;
  second.projection = 1280;
  config.texts = {{}, {second, {2, false}}};
  return config;
}

// Of transformers, as sd-scripts adapts them by default, and of the rest (LoCon).
struct Counted {
  std::size_t texts = 0, transformers = 0, rest = 0, convolutions = 0;
};

Counted count(const PipelineConfig& config) {
  Pipeline pipeline(config, at::kFloat, at::kMeta);
  Counted counted;
  std::set<std::string> names;
  for (const auto& site : pipeline.sites()) {
    names.insert(site.kohya_name);
    EXPECT_EQ(site.kohya_name.find('.'), std::string::npos) << site.kohya_name;
    if (!site.name.starts_with("unet.")) {
      ++counted.texts;
    } else if (site.name.find(".attentions.") != std::string::npos) {
      ++counted.transformers;
      counted.convolutions += site.stored_as_convolution ? 1 : 0;
    } else {
      ++counted.rest;
    }
  }
  EXPECT_EQ(names.size(), counted.texts + counted.transformers + counted.rest);
  return counted;
}

TEST(KohyaNamesTest, LayersAreAsManyAsSdScriptsAdapts) {
  const auto one = count(sd1());
  EXPECT_EQ(one.texts, 72U);
  EXPECT_EQ(one.transformers, 192U);
  EXPECT_EQ(one.rest, 86U);
  EXPECT_EQ(one.convolutions, 32U);  // before and after 16 transformers
  const auto large = count(sdxl());
  EXPECT_EQ(large.texts, 72U + 192U);
  EXPECT_EQ(large.transformers, 722U);
  EXPECT_EQ(large.convolutions, 0U);
}

TEST(KohyaNamesTest, NamesAreThoseOfItsFiles) {
  const std::string block = "transformer_blocks.0.";
  const std::map<std::string, std::string> of_sd1 = {
      {"unet.down_blocks.0.attentions.0." + block + "attn1.to_out.0",
       "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"},
      {"unet.mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in"},
      {"unet.up_blocks.1.resnets.0.conv1", "lora_unet_up_blocks_1_resnets_0_conv1"},
      {"text_encoder.text_model.encoder.layers.0.mlp.fc1",
       "lora_te_text_model_encoder_layers_0_mlp_fc1"}};
  for (const auto& [site, name] : of_sd1) {
    EXPECT_EQ(kohya_name(site, sd1()), name);
  }
  const std::map<std::string, std::string> of_sdxl = {
      {"unet.down_blocks.1.attentions.0." + block + "attn1.to_q",
       "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"},
      {"unet.mid_block.attentions.0.proj_in", "lora_unet_middle_block_1_proj_in"},
      {"text_encoder.text_model.encoder.layers.0.mlp.fc1",
       "lora_te1_text_model_encoder_layers_0_mlp_fc1"},
      {"text_encoder_2.text_model.encoder.layers.31.self_attn.q_proj",
       "lora_te2_text_model_encoder_layers_31_self_attn_q_proj"}};
  for (const auto& [site, name] : of_sdxl) {
    EXPECT_EQ(kohya_name(site, sdxl()), name);
  }
}

}  // namespace
}  // namespace lorascale::models::diffusion
