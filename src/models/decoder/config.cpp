#include "models/decoder/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.hpp"
#include "io/file_descriptor.hpp"
#include "io/strict_json.hpp"

namespace lorascale::models::decoder {
namespace {

using Json = nlohmann::json;
using Fields = io::JsonObject;

// Beyond any model, and small enough for products of them to fit 63 bits.
constexpr std::int64_t kMaxVocabulary = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 24;  // hidden and intermediate sizes
constexpr std::int64_t kMaxLayers = 10'000;
constexpr std::int64_t kMaxHeads = std::int64_t{1} << 14;
constexpr std::int64_t kMaxHeadDim = std::int64_t{1} << 16;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;

double positive(const Fields& fields, std::string_view key, std::optional<double> fallback = {}) {
  const double value = fallback ? fields.number_or(key, *fallback) : fields.number(key);
  if (!(value > 0)) {
    fields.fail(key, "must be above zero");
  }
  return value;
}

// Fields of related architectures that change what a model computes.
constexpr std::array kForeignFields = {
    "num_experts",          "num_local_experts",       "kv_lora_rank",       "no_rope_layers",
    "attention_multiplier", "attn_logit_softcapping",  "logit_scale",        "logits_scaling",
    "embedding_multiplier", "final_logit_softcapping", "residual_multiplier"};

void refuse_partial_rotation(const Fields& fields) {
  if (fields.number_or("partial_rotary_factor", 1.0) != 1.0) {
    fields.fail("partial_rotary_factor", "differs from 1, which is not supported");
  }
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
  refuse_partial_rotation(fields);
  if (!fields.boolean_or("is_causal", true)) {
    fields.fail("is_causal", "is false; only causal language models are supported");
  }
  for (const char* key : kForeignFields) {
    if (fields.has(key)) {
      fields.fail(key,
                  "belongs to another architecture; only dense Llama, Mistral, Qwen2 and Qwen3 are "
                  "supported");
    }
  }
}

nn::RopeParameters read_rope(const Fields& fields, const Fields& rope, DecoderConfig& config) {
  const auto type = rope.text_or("rope_type", rope.text_or("type", "default"));
  constexpr std::array kTypes = {"default", "linear", "llama3", "yarn", "dynamic"};
  if (std::ranges::find(kTypes, type) == kTypes.end()) {
    rope.fail(rope.has("rope_type") ? "rope_type" : "type",
              "is '" + type +
                  "', which is not supported; there are default, linear, llama3, yarn " +
                  "and, within the context, dynamic. Take a variant of the model without it, as " +
                  "those for shorter contexts often are");
  }
  rope.allow_only({"rope_theta", "rope_type", "type", "factor", "original_max_position_embeddings",
                   "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "truncate",
                   "attention_factor", "mscale", "mscale_all_dim", "partial_rotary_factor",
                   "finetuned"});
  refuse_partial_rotation(rope);
  nn::RopeParameters p;
  p.dim = config.head_dim;
  p.theta = positive(rope, "rope_theta", positive(fields, "rope_theta", 10000.0));
  const auto context = positive(fields, "max_position_embeddings", 2048.0);
  if (type == "default") {
    return p;
  }
  if (type == "dynamic") {  // as the default up to the context; its base grows beyond
    static_cast<void>(positive(rope, "factor"));
    config.ends_at_context = true;
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
  } else {
    p.type = nn::RopeType::kYarn;
    if (p.theta <= 1.0) {  // its logarithm divides
      fields.fail("rope_theta", "must exceed 1 where rope_type is yarn");
    }
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
  }
  return p;
}

void read_rope(const Fields& fields, DecoderConfig& config) {
  static const Json kEmpty = Json::object();
  if (fields.has("rope_parameters") && fields.has("rope_scaling") &&
      fields.raw("rope_parameters") != fields.raw("rope_scaling")) {
    fields.fail("rope_scaling",
                "is set beside another rope_parameters, which has taken its place; keep one of the "
                "two, with rope_theta in it");
  }
  const char* key = fields.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  config.rope = read_rope(
      fields, fields.has(key) ? fields.object(key) : Fields(kEmpty, fields.where()), config);
  // Numbers that are sound one by one can still overflow together.
  const auto frequencies = nn::rope_frequencies(config.rope);
  const auto* first = frequencies.inverse.const_data_ptr<float>();
  if (!std::isfinite(frequencies.attention_factor) ||
      !std::all_of(first, first + frequencies.inverse.numel(),
                   [](float value) { return std::isfinite(value); })) {
    fields.fail(fields.has(key) ? key : "rope_theta",
                "gives rotary frequencies that are not finite; compare with the model's original");
  }
}

// Layers that attend to a window of the latest tokens, of families that have them.
void read_windows(const Fields& fields, const Family& family, DecoderConfig& config) {
  config.windows.assign(static_cast<std::size_t>(config.layers), std::nullopt);
  if (family.windows == Windows::kNone) {
    return;
  }
  const auto types =
      fields.has("layer_types") ? fields.texts("layer_types") : std::vector<std::string>{};
  if (!types.empty() && types.size() != config.windows.size()) {
    fields.fail("layer_types", "must list one type for each of the layers");
  }
  for (const auto& type : types) {
    if (type != "full_attention" && type != "sliding_attention") {
      fields.fail("layer_types",
                  "has '" + type + "'; supported are full_attention and sliding_attention");
    }
  }
  const bool always = family.windows == Windows::kWhereGiven;
  if (!fields.has("sliding_window") ||
      (!always && !fields.boolean_or("use_sliding_window", false))) {
    return;
  }
  const auto window = fields.integer("sliding_window", 1, kMaxTokens);
  const auto first =
      always ? 0
             : static_cast<std::size_t>(fields.integer_or("max_window_layers", 28, 0, kMaxTokens));
  for (std::size_t layer = 0; layer < config.windows.size(); ++layer) {
    const bool slides = types.empty() ? layer >= first : types[layer] == "sliding_attention";
    if (slides) {
      config.windows[layer] = window;
    }
  }
}

void read_sizes(const Fields& fields, const Family& family, DecoderConfig& config) {
  config.vocabulary = fields.integer("vocab_size", 1, kMaxVocabulary);
  config.hidden = fields.integer("hidden_size", 1, kMaxWidth);
  config.intermediate = fields.integer("intermediate_size", 1, kMaxWidth);
  config.layers = fields.integer("num_hidden_layers", 1, kMaxLayers);
  config.heads = fields.integer("num_attention_heads", 1, kMaxHeads);
  config.kv_heads = fields.integer_or("num_key_value_heads", config.heads, 1, kMaxHeads);
  if (fields.has("head_dim")) {
    config.head_dim = fields.integer("head_dim", 1, kMaxHeadDim);
  } else if (family.head_dim > 0) {
    config.head_dim = family.head_dim;
  } else if (config.hidden % config.heads == 0) {
    config.head_dim = config.hidden / config.heads;
  } else {
    fields.fail("num_attention_heads", "must divide hidden_size where head_dim is not given");
  }
  if (config.heads % config.kv_heads != 0) {
    fields.fail("num_key_value_heads", "must divide num_attention_heads");
  }
  if (config.head_dim % 2 != 0) {
    fields.fail("head_dim", "is " + std::to_string(config.head_dim) +
                                "; it must be even for rotary embeddings");
  }
}

// One id, a list of them, or none.
std::vector<std::int64_t> end_ids(const Fields& fields) {
  if (!fields.has("eos_token_id")) {
    return {};
  }
  return fields.raw("eos_token_id").is_array()
             ? fields.integers("eos_token_id")
             : std::vector<std::int64_t>{fields.integer("eos_token_id")};
}

void read_token_ids(const Fields& fields, DecoderConfig& config) {
  config.eos_ids = end_ids(fields);
  config.server_eos_ids = config.eos_ids;
  if (fields.has("bos_token_id")) {
    config.bos_id = fields.integer("bos_token_id");
  }
}

const Family* find_family(std::span<const Family> families, const std::string& name) {
  const auto found = std::ranges::find(families, name, &Family::model_type);
  return found != families.end() ? &*found : nullptr;
}

// "llama, mistral and qwen2"
std::string names_of(std::span<const Family> families) {
  std::string names;
  for (std::size_t i = 0; i < families.size(); ++i) {
    names += i == 0 ? "" : i + 1 == families.size() ? " and " : ", ";
    names += families[i].model_type;
  }
  return names;
}

}  // namespace

DecoderConfig parse_decoder_config(const std::string& text, const std::string& where,
                                   std::span<const Family> families) {
  const Json object = io::parse_json(text, where);
  const Fields fields(object, where);
  DecoderConfig config;
  config.model_type = fields.text_or("model_type", "");
  const auto* family = find_family(families, config.model_type);
  if (family == nullptr) {
    fields.fail("model_type",
                "is '" + config.model_type + "'; supported are " + names_of(families));
  }
  refuse_unsupported(fields);
  read_sizes(fields, *family, config);
  config.norm_eps = positive(fields, "rms_norm_eps", 1e-6);
  config.tied_embeddings = fields.boolean_or("tie_word_embeddings", false);
  if (family->read_layers != nullptr) {
    family->read_layers(fields, config);
  }
  read_rope(fields, config);
  config.context = fields.number_or("max_position_embeddings", config.ends_at_context ? 2048 : 0) *
                   (config.rope.type == nn::RopeType::kLinear ? config.rope.factor : 1);
  config.stored_dtype = fields.text_or("dtype", fields.text_or("torch_dtype", ""));
  if (fields.number_or("attention_dropout", 0.0) != 0.0) {
    config.warnings.push_back(where + ": attention_dropout is not applied in training");
  }
  read_windows(fields, *family, config);
  read_token_ids(fields, config);
  return config;
}

DecoderConfig read_decoder_config(const std::filesystem::path& config_json) {
  return parse_decoder_config(io::read_file(config_json, 1 << 20), config_json.string());
}

void require_positions(const DecoderConfig& config, std::int64_t positions,
                       const std::string& what) {
  if (config.ends_at_context && static_cast<double>(positions) > config.context) {
    throw_bad_config(what + " is more than " +
                     std::to_string(static_cast<std::int64_t>(config.context)) +
                     " positions (max_position_embeddings): beyond them this model's dynamic RoPE "
                     "depends on the length of the text, which is not supported; stay within");
  }
}

void add_generation_config(const std::filesystem::path& generation_config_json,
                           DecoderConfig& config) {
  std::error_code ignored;
  if (!std::filesystem::exists(generation_config_json, ignored)) {
    return;
  }
  try {
    const std::string where = generation_config_json.string();
    const Json object = io::parse_json(io::read_file(generation_config_json, 1 << 20), where);
    const auto named = end_ids(Fields(object, where));
    if (!named.empty()) {
      config.server_eos_ids = named;
    }
    for (const auto id : named) {
      if (std::find(config.eos_ids.begin(), config.eos_ids.end(), id) == config.eos_ids.end()) {
        config.eos_ids.push_back(id);
      }
    }
  } catch (const Error& error) {
    config.warnings.push_back(std::string(error.what()) +
                              "; text ends at the end tokens of config.json alone");
  }
}

}  // namespace lorascale::models::decoder
