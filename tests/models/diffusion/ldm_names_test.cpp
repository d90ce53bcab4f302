// Names in one file of all parts, as sd-scripts' and diffusers' converters have them.
#include "models/diffusion/ldm_names.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "models/diffusion/clip_text.hpp"
#include "models/diffusion/unet.hpp"
#include "models/diffusion/vae.hpp"

namespace lorascale::models::diffusion {
namespace {

UNetConfig sd1() {
  UNetConfig config;
  config.levels = {{320, 1, 8}, {640, 1, 8}, {1280, 1, 8}, {1280, 0, 8}};
  return config;
}

UNetConfig sdxl() {
  UNetConfig config;
  config.levels = {{320, 0, 5}, {640, 2, 10}, {1280, 10, 20}};
  config.middle_depth = 10;
  config.context = 2048;
  config.addition = 2816;
  return config;
}

const auto kNoMemory = at::TensorOptions().dtype(at::kFloat).device(at::kMeta);

struct Count {
  std::size_t tensors = 0;
  std::int64_t numbers = 0;
};

Count count(const std::vector<nn::ParameterSlot>& slots) {
  Count all;
  for (const auto& slot : slots) {
    all.tensors += slot.parts.size();
    all.numbers += slot.value->numel();
  }
  return all;
}

TEST(LdmNamesTest, ModelsHaveTheTensorsOfTheirKind) {
  const auto unet = count(UNet(sd1(), kNoMemory).parameter_slots());
  EXPECT_EQ(unet.tensors, 686U);
  EXPECT_EQ(unet.numbers, 859520964);
  const auto large = count(UNet(sdxl(), kNoMemory).parameter_slots());
  EXPECT_EQ(large.tensors, 1680U);
  EXPECT_EQ(large.numbers, 2567463684);
  const auto vae = count(Vae({}, kNoMemory).parameter_slots());
  EXPECT_EQ(vae.tensors, 248U);
  EXPECT_EQ(vae.numbers, 83653863);
  const auto text = count(ClipTextEncoder({}, kNoMemory).parameter_slots());
  EXPECT_EQ(text.tensors, 196U);
  EXPECT_EQ(text.numbers, 123060480);
}

TEST(LdmNamesTest, OfUnets) {
  const std::map<std::string, std::string> expected = {
      {"conv_in.weight", "input_blocks.0.0.weight"},
      {"time_embedding.linear_2.bias", "time_embed.2.bias"},
      {"down_blocks.0.resnets.1.conv1.weight", "input_blocks.2.0.in_layers.2.weight"},
      {"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.bias",
       "input_blocks.4.1.transformer_blocks.0.attn1.to_out.0.bias"},
      {"down_blocks.1.downsamplers.0.conv.weight", "input_blocks.6.0.op.weight"},
      {"mid_block.resnets.1.time_emb_proj.bias", "middle_block.2.emb_layers.1.bias"},
      {"mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"},
      {"up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.1.conv.bias"},
      {"up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.2.conv.bias"},
      {"up_blocks.3.resnets.2.conv_shortcut.weight", "output_blocks.11.0.skip_connection.weight"},
      {"conv_norm_out.weight", "out.0.weight"},
      {"conv_out.bias", "out.2.bias"},
  };
  for (const auto& [name, ldm] : expected) {
    EXPECT_EQ(unet_name_in_ldm(name, 2, {true, true, true, false}), "model.diffusion_model." + ldm);
  }
  EXPECT_EQ(unet_name_in_ldm("up_blocks.0.upsamplers.0.conv.bias", 2, {false, true, true}),
            "model.diffusion_model.output_blocks.2.2.conv.bias");
  EXPECT_EQ(unet_name_in_ldm("add_embedding.linear_1.weight", 2, {false, true, true}),
            "model.diffusion_model.label_emb.0.0.weight");
}

TEST(LdmNamesTest, OfAutoencoders) {
  const std::map<std::string, std::string> expected = {
      {"encoder.conv_in.weight", "encoder.conv_in.weight"},
      {"encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
       "encoder.down.1.block.0.nin_shortcut.bias"},
      {"encoder.down_blocks.0.downsamplers.0.conv.weight", "encoder.down.0.downsample.conv.weight"},
      {"decoder.up_blocks.0.resnets.2.norm2.weight", "decoder.up.3.block.2.norm2.weight"},
      {"decoder.up_blocks.2.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias"},
      {"decoder.mid_block.resnets.0.conv1.bias", "decoder.mid.block_1.conv1.bias"},
      {"encoder.mid_block.attentions.0.group_norm.bias", "encoder.mid.attn_1.norm.bias"},
      {"encoder.mid_block.attentions.0.to_q.weight", "encoder.mid.attn_1.q.weight"},
      {"encoder.mid_block.attentions.0.to_out.0.weight", "encoder.mid.attn_1.proj_out.weight"},
      {"decoder.conv_norm_out.weight", "decoder.norm_out.weight"},
      {"post_quant_conv.bias", "post_quant_conv.bias"},
  };
  for (const auto& [name, ldm] : expected) {
    EXPECT_EQ(vae_name_in_ldm(name, 4), "first_stage_model." + ldm);
  }
}

TEST(LdmNamesTest, OfOpenClip) {
  EXPECT_EQ(text_name_in_open_clip("text_model.encoder.layers.7.mlp.fc2.bias"),
            "transformer.resblocks.7.mlp.c_proj.bias");
  for (const auto* part : {"q", "k", "v"}) {
    EXPECT_EQ(text_name_in_open_clip("text_model.encoder.layers.0.self_attn." + std::string(part) +
                                     "_proj.weight"),
              "transformer.resblocks.0.attn.in_proj_weight");
  }
  EXPECT_EQ(text_name_in_open_clip("text_model.embeddings.position_embedding.weight"),
            "positional_embedding");
  EXPECT_EQ(text_name_in_open_clip("text_model.final_layer_norm.bias"), "ln_final.bias");
}

// No two tensors are called alike.
TEST(LdmNamesTest, AreOneToOne) {
  for (const auto& config : {sd1(), sdxl()}) {
    std::vector<bool> attention;
    for (const auto& level : config.levels) {
      attention.push_back(level.depth > 0);
    }
    std::set<std::string> names;
    std::size_t tensors = 0;
    for (const auto& slot : UNet(config, kNoMemory).parameter_slots()) {
      for (const auto& part : slot.parts) {
        names.insert(unet_name_in_ldm(part.key, 2, attention));
        ++tensors;
      }
    }
    EXPECT_EQ(names.size(), tensors);
  }
  std::set<std::string> names;
  for (const auto& slot : Vae({}, kNoMemory).parameter_slots()) {
    for (const auto& part : slot.parts) {
      names.insert(vae_name_in_ldm(part.key, 4));
    }
  }
  EXPECT_EQ(names.size(), 248U);
}

}  // namespace
}  // namespace lorascale::models::diffusion
