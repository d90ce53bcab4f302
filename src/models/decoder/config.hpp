// config.json of the Llama family: Llama 2/3.x, Mistral, Qwen2/2.5, Qwen3 (dense). What would
// change the result and is not known is refused by name; what has no effect on training is ignored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/strict_json.hpp"
#include "nn/rope.hpp"

namespace lorascale::models::decoder {

struct DecoderConfig;

// How a family's layers attend to a window of the latest tokens.
enum class Windows {
  kNone,
  kWhereGiven,    // sliding_window is enough
  kWhereAllowed,  // use_sliding_window as well, from max_window_layers on
};

// What one family has of its own: its name, its quirks and what its fields are called. One file
// each in families/, a row each in families/table.cpp.
struct Family {
  std::string_view model_type;
  Windows windows = Windows::kNone;
  std::int64_t head_dim = 0;  // where config.json names none; 0: hidden_size / num_attention_heads
  // Sets which layers have biases and norms of heads; null: none.
  void (*read_layers)(const io::JsonObject& fields, DecoderConfig& config) = nullptr;
};
std::span<const Family> decoder_families();

struct DecoderConfig {
  std::string model_type;  // of its family
  std::int64_t vocabulary = 0;
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  double norm_eps = 1e-6;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
  std::vector<std::optional<std::int64_t>> windows;  // [layers] sliding window, if any
  nn::RopeParameters rope;
  std::string stored_dtype;  // as the file says, may be empty
  // Positions that it was made for: max_position_embeddings, times the factor of linear RoPE
  // scaling, which stretches them; 0 where the file does not say.
  double context = 0;
  // Whether positions beyond `context` rotate in a way that is not followed here, and are refused:
  // dynamic RoPE, which is the usual one up to there.
  bool ends_at_context = false;
  std::vector<std::int64_t> eos_ids;  // of config.json and generation_config.json
  // Where servers and transformers' generate() stop: at those of generation_config.json, or, where
  // it names none, of config.json.
  std::vector<std::int64_t> server_eos_ids;
  std::optional<std::int64_t> bos_id;
  std::vector<std::string> warnings;  // for the log
};

// Throws Error(kBadInput) naming the file, the field and the remedy.
DecoderConfig read_decoder_config(const std::filesystem::path& config_json);
DecoderConfig parse_decoder_config(const std::string& text, const std::string& where,
                                   std::span<const Family> families = decoder_families());

// Throws Error(kBadConfig), with the remedy, where `positions` (of `what`) go beyond the model's
// last.
void require_positions(const DecoderConfig& config, std::int64_t positions,
                       const std::string& what);

// Adds the end tokens of generation_config.json, where chat models name those of a turn. Nothing
// else depends on that file: without it, or where it is damaged (a warning), those of config.json
// stand alone.
void add_generation_config(const std::filesystem::path& generation_config_json,
                           DecoderConfig& config);

}  // namespace lorascale::models::decoder
