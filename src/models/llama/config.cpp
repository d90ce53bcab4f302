#include "models/llama/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.hpp"
#include "io/file_descriptor.hpp"
#include "io/strict_json.hpp"

namespace lorascale::models::llama {
namespace {

using Json = nlohmann::json;
using Fields = io::JsonObject;

// Bounds that no model comes near. Within them no product of sizes overflows, so that shapes can be
// compared with the files before memory is asked for.
constexpr std::int64_t kLargestSize = std::int64_t{1} << 24;
constexpr std::int64_t kMostVocabulary = std::int64_t{1} << 30;
constexpr std::int64_t kMostLayers = 10000;
constexpr std::int64_t kMostHeads = std::int64_t{1} << 16;

std::int64_t size_of(const Fields& fields, std::string_view key, std::int64_t most = kLargestSize) {
  return fields.integer(key, 1, most);
}

void read_heads(const Fields& fields, LlamaConfig& config) {
  config.heads = size_of(fields, "num_attention_heads", kMostHeads);
  config.kv_heads = fields.integer_or("num_key_value_heads", config.heads, 1, kMostHeads);
  if (config.heads % config.kv_heads != 0) {
    fields.fail("num_key_value_heads", "must divide num_attention_heads");
  }
  if (fields.has("head_dim")) {
    config.head_dim = size_of(fields, "head_dim", kMostHeads);
  } else if (config.model_type == "qwen3") {
    config.head_dim = 128;
  } else if (config.hidden % config.heads != 0) {
    fields.fail("num_attention_heads", "must divide hidden_size where head_dim is not given");
  } else {
    config.head_dim = config.hidden / config.heads;
  }
  if (config.head_dim % 2 != 0) {
    fields.fail("head_dim", "is " + std::to_string(config.head_dim) +
                                "; it must be even for rotary embeddings");
  }
}

double positive(const Fields& fields, std::string_view key, std::optional<double> fallback = {}) {
  const double value = fallback ? fields.number_or(key, *fallback) : fields.number(key);
  if (!(value > 0)) {
    fields.fail(key, "must be above zero");
  }
  return value;
}

void refuse_unsupported(const Fields& fields) {
  const auto act = fields.text_or("hidden_act", "silu");
  if (act != "silu") {
    fields.fail("hidden_act", "is '" + act + "'; only 'silu' is supported for this family");
  }
  if (fields.has("quantization_config")) {
    fields.fail("quantization_config",
                "is set: quantised checkpoints are not supported; use the bf16 or fp16 original");
  }
  if (fields.number_or("partial_rotary_factor", 1.0) != 1.0) {
    fields.fail("partial_rotary_factor", "differs from 1, which is not supported");
  }
  for (const char* key : {"num_experts", "num_local_experts", "kv_lora_rank"}) {
    if (fields.has(key)) {
      fields.fail(key,
                  "belongs to another architecture; only dense Llama, Mistral, Qwen2 and Qwen3 are "
                  "supported");
    }
  }
}

nn::RopeParameters read_rope(const Fields& fields, LlamaConfig& config) {
  static const Json kEmpty = Json::object();
  const char* key = fields.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Fields rope = fields.has(key) ? fields.object(key) : Fields(kEmpty, fields.where());
  nn::RopeParameters p;
  p.dim = config.head_dim;
  p.theta = positive(rope, "rope_theta", positive(fields, "rope_theta", 10000.0));
  const auto context = positive(fields, "max_position_embeddings", 2048.0);
  const auto type = rope.text_or("rope_type", rope.text_or("type", "default"));
  if (type == "default") {
    return p;
  }
  p.original_context = positive(rope, "original_max_position_embeddings", context);
  if (type == "linear") {
    p.type = nn::RopeType::kLinear;
    p.factor = positive(rope, "factor");
  } else if (type == "llama3") {
    p.type = nn::RopeType::kLlama3;
    p.factor = positive(rope, "factor");
    p.low_freq_factor = positive(rope, "low_freq_factor");
    p.high_freq_factor = positive(rope, "high_freq_factor");
    if (p.high_freq_factor <= p.low_freq_factor) {
      rope.fail("high_freq_factor", "must be above low_freq_factor");
    }
  } else if (type == "yarn") {
    p.type = nn::RopeType::kYarn;
    p.factor = positive(rope, "factor", context / p.original_context);
    p.beta_fast = positive(rope, "beta_fast", 32.0);
    p.beta_slow = positive(rope, "beta_slow", 1.0);
    p.truncate = rope.boolean_or("truncate", true);
    if (rope.has("attention_factor")) {
      p.attention_factor = positive(rope, "attention_factor");
    }
    if (rope.has("mscale")) {
      p.mscale = rope.number("mscale");
    }
    if (rope.has("mscale_all_dim")) {
      p.mscale_all_dim = rope.number("mscale_all_dim");
    }
    if (std::abs(context / p.original_context - p.factor) > 1e-6 * p.factor) {
      config.warnings.push_back(
          rope.where() + ": YaRN factor " + std::to_string(p.factor) +
          " differs from max_position_embeddings / original_max_position_embeddings; "
          "the factor is used, as transformers 5 does");
    }
  } else {
    rope.fail("rope_type", "is '" + type + "'; supported are default, linear, llama3 and yarn");
  }
  return p;
}

void read_windows(const Fields& fields, LlamaConfig& config) {
  config.windows.assign(static_cast<std::size_t>(config.layers), std::nullopt);
  if (config.model_type == "llama" || !fields.has("sliding_window")) {
    return;
  }
  const auto window = size_of(fields, "sliding_window");
  if (config.model_type == "mistral") {
    config.windows.assign(config.windows.size(), window);
    return;
  }
  if (!fields.boolean_or("use_sliding_window", false)) {
    return;
  }
  const auto types =
      fields.has("layer_types") ? fields.texts("layer_types") : std::vector<std::string>{};
  if (!types.empty() && types.size() != config.windows.size()) {
    fields.fail("layer_types", "must list one type for each of the layers");
  }
  const auto first =
      static_cast<std::size_t>(fields.integer_or("max_window_layers", 28, 0, kLargestSize));
  for (std::size_t layer = 0; layer < config.windows.size(); ++layer) {
    const bool slides = types.empty() ? layer >= first : types[layer] == "sliding_attention";
    if (slides) {
      config.windows[layer] = window;
    }
  }
}

void read_token_ids(const Fields& fields, LlamaConfig& config) {
  if (fields.has("eos_token_id")) {
    config.eos_ids = fields.raw("eos_token_id").is_array()
                         ? fields.integers("eos_token_id")
                         : std::vector<std::int64_t>{fields.integer("eos_token_id")};
  }
  if (fields.has("bos_token_id")) {
    config.bos_id = fields.integer("bos_token_id");
  }
}

}  // namespace

LlamaConfig parse_llama_config(const std::string& text, const std::string& where) {
  const Json object = io::parse_json(text, where);
  const Fields fields(object, where);
  LlamaConfig config;
  config.model_type = fields.text_or("model_type", "");
  constexpr std::array kFamilies = {"llama", "mistral", "qwen2", "qwen3"};
  if (std::find(kFamilies.begin(), kFamilies.end(), config.model_type) == kFamilies.end()) {
    fields.fail("model_type",
                "is '" + config.model_type + "'; supported are llama, mistral, qwen2 and qwen3");
  }
  refuse_unsupported(fields);
  const bool llama = config.model_type == "llama";
  const bool qwen2 = config.model_type == "qwen2";
  const bool qwen3 = config.model_type == "qwen3";
  config.vocabulary = size_of(fields, "vocab_size", kMostVocabulary);
  config.hidden = size_of(fields, "hidden_size");
  config.intermediate = size_of(fields, "intermediate_size");
  config.layers = size_of(fields, "num_hidden_layers", kMostLayers);
  read_heads(fields, config);
  config.norm_eps = positive(fields, "rms_norm_eps", 1e-6);
  config.tied_embeddings = fields.boolean_or("tie_word_embeddings", false);
  const bool attention_bias = (llama || qwen3) && fields.boolean_or("attention_bias", false);
  config.qkv_bias = qwen2 || attention_bias;
  config.o_bias = attention_bias;
  config.mlp_bias = llama && fields.boolean_or("mlp_bias", false);
  config.qk_norm = qwen3;
  config.rope = read_rope(fields, config);
  config.stored_dtype = fields.text_or("dtype", fields.text_or("torch_dtype", ""));
  read_windows(fields, config);
  read_token_ids(fields, config);
  return config;
}

LlamaConfig read_llama_config(const std::filesystem::path& config_json) {
  return parse_llama_config(io::read_file(config_json, 1 << 20), config_json.string());
}

}  // namespace lorascale::models::llama
