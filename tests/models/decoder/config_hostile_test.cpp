// config.json that contradicts itself, belongs to another architecture, or wants to be harmful.
#include "support/tensors.hpp"
#include "tiny_decoder.hpp"

namespace lorascale::models::decoder {
namespace {

void expect_refused(const Json& json, std::initializer_list<std::string_view> words) {
  SCOPED_TRACE(json.dump());
  io::expect_error(ExitCode::kBadInput, words, [&] { parse(json); });
}

Json changed(const std::string& family, const Json& changes) {
  Json json = tiny_json(family);
  json.update(changes);
  return json;
}

void expect_refused_with(const Json& changes, std::initializer_list<std::string_view> words,
                         const std::string& family = "llama") {
  expect_refused(changed(family, changes), words);
}

constexpr const char* kSizes[] = {"vocab_size",        "hidden_size",         "intermediate_size",
                                  "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                                  "head_dim"};

TEST(HostileConfigTest, SizesThatAreNone) {
  for (const char* key : kSizes) {
    for (const Json& value :
         {Json(0), Json(-1), Json(std::numeric_limits<std::int64_t>::min()), Json(4.5), Json(64.0),
          Json(1e300), Json(std::numeric_limits<std::uint64_t>::max()), Json("64"), Json(true),
          Json::array({64}), Json::object()}) {
      expect_refused_with({{key, value}}, {"config.json", key, "must be a whole number"});
    }
  }
}

// Each of these would ask for memory or time without end.
TEST(HostileConfigTest, SizesThatNoModelHas) {
  for (const char* key : kSizes) {
    for (const std::int64_t value :
         {std::int64_t{1} << 33, std::int64_t{1} << 40, std::numeric_limits<std::int64_t>::max()}) {
      expect_refused_with({{key, value}}, {"config.json", key, "from 1 to"});
    }
  }
  expect_refused_with({{"num_hidden_layers", 1'000'000}}, {"num_hidden_layers", "from 1 to"});
}

TEST(HostileConfigTest, WhatOtherProgramsWouldReadOtherwise) {
  expect_refused_with({{"is_causal", false}}, {"is_causal"});
  expect_refused_with({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000.0}}},
                       {"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}},
                      {"rope_scaling", "rope_parameters", "keep one"});
  // By its name, not by a key that only it has.
  expect_refused_with({{"rope_parameters",
                        {{"rope_type", "longrope"}, {"factor", 2.0}, {"long_factor", {1.0, 2.0}}}}},
                      {"rope_type", "'longrope'", "not supported", "dynamic", "variant"});
  expect_refused_with({{"rope_scaling", {{"type", "su"}, {"short_factor", {1.0}}}}},
                      {"type", "'su'", "not supported"});
  for (const char* family : {"mistral", "qwen2", "qwen3"}) {
    expect_refused_with({{"layer_types", {"full_attention", "x"}}}, {"layer_types", "'x'"}, family);
    expect_refused_with({{"layer_types", {"full_attention"}}}, {"layer_types"}, family);
  }
}

TEST(HostileConfigTest, MissingSizes) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads"}) {
    Json json = tiny_json("llama");
    json.erase(key);
    expect_refused(json, {"config.json", key, "is missing"});
  }
}

TEST(HostileConfigTest, HeadsThatDoNotFit) {
  expect_refused_with({{"hidden_size", 66}}, {"hidden_size", "num_attention_heads", "head_dim"});
  expect_refused_with({{"num_attention_heads", 128}}, {"hidden_size", "num_attention_heads"});
  expect_refused_with({{"num_key_value_heads", 3}}, {"num_key_value_heads", "divide"});
  expect_refused_with({{"num_key_value_heads", 8}}, {"num_key_value_heads", "divide"});
  expect_refused_with({{"head_dim", 15}}, {"head_dim", "even"});
  expect_refused_with({{"hidden_size", 60}}, {"head_dim", "even"});  // 60 / 4 = 15
  // With a stated width the division need not come out.
  EXPECT_EQ(parse(changed("llama", {{"hidden_size", 66}, {"head_dim", 16}})).head_dim, 16);
}

TEST(HostileConfigTest, OtherArchitectures) {
  for (const char* type : {"gpt2", "mixtral", "qwen2_moe", "gemma2", "granite", "Llama", ""}) {
    expect_refused_with({{"model_type", type}},
                        {"model_type", type, "llama, mistral, qwen2 and qwen3"});
  }
  Json json = tiny_json("llama");
  json.erase("model_type");
  expect_refused(json, {"model_type", "supported are"});
  expect_refused_with({{"model_type", 3}}, {"model_type", "text"});
  for (const char* key : {"num_experts", "num_local_experts", "kv_lora_rank"}) {
    expect_refused_with({{key, 8}}, {key, "another architecture"});
  }
  // Scalings of other families: whoever sets them means them.
  for (const char* key :
       {"attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "logits_scaling",
        "residual_multiplier", "embedding_multiplier", "attention_multiplier", "no_rope_layers"}) {
    expect_refused_with({{key, 0.5}}, {key, "another architecture"});
    EXPECT_NO_THROW(parse(changed("llama", {{key, nullptr}}))) << key;
  }
}

TEST(HostileConfigTest, ActivationsAndQuantisation) {
  for (const char* act : {"gelu", "relu", "silu ", "swish"}) {
    expect_refused_with({{"hidden_act", act}}, {"hidden_act", act, "silu"});
  }
  for (const auto& quantised : {Json{{"quant_method", "gptq"}, {"bits", 4}},
                                Json{{"load_in_8bit", true}}, Json::object()}) {
    expect_refused_with({{"quantization_config", quantised}},
                        {"quantization_config", "not supported", "original"});
  }
}

TEST(HostileConfigTest, RotaryEmbeddings) {
  const auto rope = [](const Json& value) { return Json{{"rope_scaling", value}}; };
  for (const char* type : {"longrope", "mrope", "su", ""}) {
    expect_refused_with(
        rope({{"rope_type", type}, {"factor", 2.0}}),
        {"rope_type", type, "default, linear, llama3, yarn and, within the context, dynamic"});
  }
  expect_refused_with(rope({{"type", "linear"}}), {"rope_scaling", "factor", "is missing"});
  for (const double factor : {0.0, -2.0}) {
    expect_refused_with(rope({{"type", "linear"}, {"factor", factor}}), {"factor", "above zero"});
  }
  expect_refused_with(rope({{"type", "linear"}, {"factor", "2"}}), {"factor", "number"});
  expect_refused_with(rope(7), {"rope_scaling", "object"});
  Json llama3 = {{"rope_type", "llama3"},
                 {"factor", 8.0},
                 {"low_freq_factor", 4.0},
                 {"high_freq_factor", 4.0},
                 {"original_max_position_embeddings", 64}};
  expect_refused_with(rope(llama3), {"high_freq_factor", "above low_freq_factor"});
  llama3.erase("low_freq_factor");
  expect_refused_with(rope(llama3), {"low_freq_factor", "is missing"});
  for (const double theta : {0.0, -1.0}) {
    expect_refused_with({{"rope_theta", theta}}, {"rope_theta", "above zero"});
  }
  expect_refused_with({{"partial_rotary_factor", 0.5}}, {"partial_rotary_factor", "not supported"});
  // Newer files have it among the other parameters.
  expect_refused_with(
      {{"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}}},
      {"rope_parameters", "partial_rotary_factor", "not supported"});
  // Parameters by kind of layer, sections and whatever else comes: not to be passed over.
  expect_refused_with({{"rope_parameters", {{"full_attention", {{"rope_type", "linear"}}}}}},
                      {"rope_parameters", "full_attention", "not known"});
  expect_refused_with(rope({{"rope_type", "default"}, {"mrope_section", {16, 24, 24}}}),
                      {"mrope_section", "not known"});
}

// Numbers that are fine one by one and give frequencies that are none.
TEST(HostileConfigTest, RotaryFrequenciesAreFinite) {
  const auto yarn = [](double theta) {
    return Json{{"rope_theta", theta},
                {"rope_scaling",
                 {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}}}};
  };
  expect_refused_with(yarn(1.0), {"rope_theta", "exceed 1"});
  expect_refused_with({{"rope_theta", 1e-300}}, {"rope", "finite"});
  expect_refused_with({{"rope_scaling", {{"type", "linear"}, {"factor", 1e-300}}}},
                      {"rope", "finite"});
}

TEST(HostileConfigTest, LayerTypes) {
  const Json base = {{"use_sliding_window", true}, {"sliding_window", 4}};
  Json json = changed("qwen2", base);
  json["layer_types"] = {"full_attention"};
  expect_refused(json, {"layer_types", "one type for each"});
  json["layer_types"] = {"full_attention", "chunked_attention"};
  expect_refused(json, {"layer_types", "chunked_attention", "full_attention"});
  json["layer_types"] = "full_attention";
  expect_refused(json, {"layer_types", "list"});
  json = changed("qwen2", base);
  json["sliding_window"] = 0;
  expect_refused(json, {"sliding_window", "whole number"});
  json = changed("qwen2", base);
  json["max_window_layers"] = -1;
  expect_refused(json, {"max_window_layers", "whole number"});
  expect_refused_with({{"sliding_window", -4}}, {"sliding_window"}, "mistral");
}

TEST(HostileConfigTest, OtherFields) {
  expect_refused_with({{"rms_norm_eps", 0}}, {"rms_norm_eps", "above zero"});
  expect_refused_with({{"rms_norm_eps", "1e-5"}}, {"rms_norm_eps", "number"});
  expect_refused_with({{"tie_word_embeddings", 1}}, {"tie_word_embeddings", "true or false"});
  expect_refused_with({{"eos_token_id", {1, "2"}}}, {"eos_token_id", "whole number"});
  expect_refused_with({{"eos_token_id", 1.5}}, {"eos_token_id", "whole number"});
  expect_refused_with({{"max_position_embeddings", 0}}, {"max_position_embeddings", "above zero"});
}

TEST(HostileConfigTest, TextThatIsNoConfig) {
  const auto refused = [](const std::string& text, std::initializer_list<std::string_view> words) {
    SCOPED_TRACE(text.substr(0, 80));
    io::expect_error(ExitCode::kBadInput, words,
                     [&] { parse_decoder_config(text, "config.json"); });
  };
  refused("", {"config.json"});
  refused("{", {"config.json", "JSON"});
  refused("[]", {"config.json", "object"});
  refused("\xff\xfe{}", {"config.json"});
  refused(R"({"model_type": "llama", "model_type": "qwen2"})", {"model_type", "twice"});
  refused(std::string(100000, '['), {"config.json"});
  refused(R"({"rms_norm_eps": 1e999})", {"config.json"});
  refused(R"({"model_type": "llama", "vocab_size": NaN})", {"config.json"});
}

TEST(HostileConfigTest, Files) {
  const io::TempFolder folder;
  io::expect_error(ExitCode::kBadInput, {"config.json", "No such file"},
                   [&] { read_decoder_config(folder / "config.json"); });
  std::filesystem::create_directory(folder / "config.json");
  io::expect_error(ExitCode::kBadInput, {"config.json"},
                   [&] { read_decoder_config(folder / "config.json"); });
  io::put_file(folder / "large.json", std::string((1 << 20) + 1, ' '));
  io::expect_error(ExitCode::kBadInput, {"large.json"},
                   [&] { read_decoder_config(folder / "large.json"); });
}

}  // namespace
}  // namespace lorascale::models::decoder
