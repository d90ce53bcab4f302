// config.json of each family as its authors publish it.
#include "models/decoder/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tiny_decoder.hpp"

namespace lorascale::models::decoder {
namespace {

using testing::Each;
using testing::ElementsAre;

const std::optional<std::int64_t> kNoWindow;

TEST(DecoderConfigTest, Llama31) {
  const auto c = parse_decoder_config(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 128256})",
                                      "x");
  EXPECT_EQ(c.vocabulary, 128256);
  EXPECT_EQ(c.hidden, 4096);
  EXPECT_EQ(c.intermediate, 14336);
  EXPECT_EQ(c.layers, 32);
  EXPECT_EQ(c.heads, 32);
  EXPECT_EQ(c.kv_heads, 8);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_DOUBLE_EQ(c.norm_eps, 1e-5);
  EXPECT_FALSE(c.tied_embeddings || c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
  EXPECT_EQ(c.rope.type, nn::RopeType::kLlama3);
  EXPECT_EQ(c.rope.theta, 5e5);
  EXPECT_EQ(c.rope.dim, 128);
  EXPECT_EQ(c.rope.factor, 8.0);
  EXPECT_EQ(c.rope.original_context, 8192.0);
  EXPECT_EQ(c.rope.low_freq_factor, 1.0);
  EXPECT_EQ(c.rope.high_freq_factor, 4.0);
  EXPECT_THAT(c.eos_ids, ElementsAre(128001, 128008, 128009));
  EXPECT_EQ(c.bos_id, 128000);
  EXPECT_EQ(c.stored_dtype, "bfloat16");
  EXPECT_EQ(c.windows.size(), 32U);
  EXPECT_THAT(c.windows, Each(kNoWindow));
  EXPECT_TRUE(c.warnings.empty());
}

TEST(DecoderConfigTest, DynamicRopeIsTheDefaultUpToTheContext) {
  Json json = tiny_json("llama");
  json["max_position_embeddings"] = 64;
  const auto plain = parse(json);
  require_positions(plain, 1000, "text");  // poor beyond, but followed
  json["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 4.0}};
  const auto c = parse(json);
  EXPECT_EQ(c.rope.type, nn::RopeType::kDefault);
  EXPECT_EQ(c.rope.theta, plain.rope.theta);
  EXPECT_EQ(c.context, 64);
  require_positions(c, 64, "text");
  try {
    require_positions(c, 65, "data.sequence_length 65");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    EXPECT_THAT(error.what(), testing::HasSubstr("data.sequence_length 65 is more than 64"));
    EXPECT_THAT(error.what(), testing::HasSubstr("dynamic RoPE"));
  }
}

TEST(DecoderConfigTest, MistralWithAndWithoutWindow) {
  Json json = tiny_json("mistral");
  EXPECT_THAT(parse(json).windows, Each(kNoWindow));
  json["sliding_window"] = nullptr;
  EXPECT_THAT(parse(json).windows, Each(kNoWindow));
  json["sliding_window"] = 4096;
  EXPECT_THAT(parse(json).windows, ElementsAre(4096, 4096));
  json["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_THAT(parse(json).windows, ElementsAre(kNoWindow, 4096));
  json.erase("layer_types");
  json["attention_bias"] = true;  // this family has none
  EXPECT_FALSE(parse(json).qkv_bias);
}

TEST(DecoderConfigTest, Qwen2HasBiasesOnQkvAlone) {
  const auto c = parse(tiny_json("qwen2"));
  EXPECT_TRUE(c.qkv_bias);
  EXPECT_FALSE(c.o_bias || c.mlp_bias || c.qk_norm);
  EXPECT_TRUE(c.tied_embeddings);
}

TEST(DecoderConfigTest, Qwen3HeadsHaveAWidthOfTheirOwn) {
  Json json = tiny_json("qwen3");
  json.erase("head_dim");
  const auto c = parse(json);
  EXPECT_EQ(c.head_dim, 128);  // not 64 / 4
  EXPECT_EQ(c.rope.dim, 128);
  EXPECT_TRUE(c.qk_norm);
  EXPECT_FALSE(c.qkv_bias);
}

TEST(DecoderConfigTest, WindowsOfQwen) {
  Json json = tiny_json("qwen2");
  json.update({{"num_hidden_layers", 4}, {"sliding_window", 7}, {"max_window_layers", 3}});
  EXPECT_THAT(parse(json).windows, Each(kNoWindow));  // unless it is switched on
  json["use_sliding_window"] = true;
  EXPECT_THAT(parse(json).windows, ElementsAre(kNoWindow, kNoWindow, kNoWindow, 7));
  json["layer_types"] = {"full_attention", "sliding_attention", "full_attention",
                         "sliding_attention"};
  EXPECT_THAT(parse(json).windows, ElementsAre(kNoWindow, 7, kNoWindow, 7));
}

TEST(DecoderConfigTest, BiasesOfLlama) {
  Json json = tiny_json("llama");
  json.update({{"attention_bias", true}, {"mlp_bias", true}});
  const auto c = parse(json);
  EXPECT_TRUE(c.qkv_bias && c.o_bias && c.mlp_bias);
  json["sliding_window"] = 5;  // without effect in this family
  EXPECT_THAT(parse(json).windows, Each(kNoWindow));
}

TEST(DecoderConfigTest, DefaultsOfAbsentFields) {
  Json json = tiny_json("llama");
  for (const char* key : {"num_key_value_heads", "rms_norm_eps", "rope_theta"}) {
    json.erase(key);
  }
  const auto c = parse(json);
  EXPECT_EQ(c.kv_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_DOUBLE_EQ(c.norm_eps, 1e-6);
  EXPECT_EQ(c.rope.type, nn::RopeType::kDefault);
  EXPECT_EQ(c.rope.theta, 1e4);
  EXPECT_FALSE(c.tied_embeddings);
  EXPECT_TRUE(c.eos_ids.empty());
  EXPECT_FALSE(c.bos_id.has_value());
  json["num_key_value_heads"] = nullptr;
  EXPECT_EQ(parse(json).kv_heads, 4);
}

TEST(DecoderConfigTest, NewerFilesKeepThetaWithTheRest) {
  Json json = tiny_json("llama");
  json.erase("rope_theta");
  json["rope_parameters"] = {{"rope_theta", 123.0}, {"rope_type", "default"}};
  EXPECT_EQ(parse(json).rope.theta, 123.0);
  json["rope_theta"] = 5.0;  // the inner one counts
  EXPECT_EQ(parse(json).rope.theta, 123.0);
  json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2.0}};
  EXPECT_EQ(parse(json).rope.theta, 5.0);
  EXPECT_EQ(parse(json).rope.type, nn::RopeType::kLinear);
  json["max_position_embeddings"] = 100;
  EXPECT_EQ(parse(json).context, 200);  // stretched
  json["rope_parameters"]["partial_rotary_factor"] = 1.0;
  EXPECT_EQ(parse(json).rope.dim, 16);
  json["dtype"] = "float16";
  EXPECT_EQ(parse(json).stored_dtype, "float16");
}

TEST(DecoderConfigTest, Yarn) {
  Json json = tiny_json("qwen2");
  json["rope_scaling"] = {
      {"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
  auto c = parse(json);
  EXPECT_EQ(c.rope.type, nn::RopeType::kYarn);
  EXPECT_EQ(c.rope.original_context, 64.0);
  EXPECT_EQ(c.rope.beta_fast, 32.0);
  EXPECT_TRUE(c.rope.truncate);
  EXPECT_TRUE(c.warnings.empty());
  // Files disagree about what the factor is when the lengths say another; that is worth a word.
  json["max_position_embeddings"] = 32;
  c = parse(json);
  EXPECT_EQ(c.rope.factor, 4.0);
  ASSERT_EQ(c.warnings.size(), 1U);
  EXPECT_THAT(c.warnings[0], testing::HasSubstr("YaRN factor"));
  json["rope_scaling"].update({{"beta_fast", 16.0},
                               {"beta_slow", 2.0},
                               {"truncate", false},
                               {"attention_factor", 1.5},
                               {"mscale", 0.7},
                               {"mscale_all_dim", 0.9}});
  c = parse(json);
  EXPECT_EQ(c.rope.beta_fast, 16.0);
  EXPECT_EQ(c.rope.beta_slow, 2.0);
  EXPECT_FALSE(c.rope.truncate);
  EXPECT_EQ(c.rope.attention_factor, 1.5);
  EXPECT_EQ(c.rope.mscale, 0.7);
  EXPECT_EQ(c.rope.mscale_all_dim, 0.9);
}

class GenerationConfigTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  // The end tokens of a model whose config.json has 2 and whose generation_config.json is `text`.
  DecoderConfig with(const std::string& text) const {
    std::ofstream(path_) << text;
    DecoderConfig config;
    config.eos_ids = config.server_eos_ids = {2};
    add_generation_config(path_, config);
    return config;
  }
  std::filesystem::path path_ =
      std::filesystem::path(testing::TempDir()) /
      (std::string("generation_config_") +
       testing::UnitTest::GetInstance()->current_test_info()->name() + std::to_string(::getpid()));
};

TEST_F(GenerationConfigTest, AddsItsEndTokens) {
  EXPECT_THAT(with(R"({"eos_token_id": 7})").eos_ids, ElementsAre(2, 7));
  EXPECT_THAT(with(R"({"eos_token_id": 7})").server_eos_ids, ElementsAre(7));
  EXPECT_THAT(with(R"({"eos_token_id": [7, 2]})").server_eos_ids, ElementsAre(7, 2));
  EXPECT_THAT(with("{}").server_eos_ids, ElementsAre(2));
  EXPECT_THAT(with(R"({"eos_token_id": [7, 2, 9], "pad_token_id": 0})").eos_ids,
              ElementsAre(2, 7, 9));
  for (const char* none : {"{}", R"({"eos_token_id": null})", R"({"eos_token_id": []})"}) {
    const auto config = with(none);
    EXPECT_THAT(config.eos_ids, ElementsAre(2)) << none;
    EXPECT_TRUE(config.warnings.empty()) << none;
  }
}

TEST_F(GenerationConfigTest, DamagedItIsAWarning) {
  for (const char* bad :
       {"{", "[]", "", R"({"eos_token_id": "7"})", R"({"eos_token_id": [7, true]})",
        R"({"eos_token_id": 7.5})", R"({"eos_token_id": 99999999999999999999})"}) {
    const auto config = with(bad);
    EXPECT_THAT(config.eos_ids, ElementsAre(2)) << bad;
    EXPECT_THAT(config.warnings, ElementsAre(testing::HasSubstr(path_.string()))) << bad;
  }
  DecoderConfig without;
  add_generation_config(path_.string() + "-nowhere", without);
  EXPECT_TRUE(without.eos_ids.empty() && without.warnings.empty());
}

}  // namespace
}  // namespace lorascale::models::decoder
