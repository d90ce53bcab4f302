// Small models of each family with published pseudo-random weights (FNV-1a of the key, splitmix64),
// leaves of documents, and folders as Hugging Face writes them.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/tokens/token_leaf.hpp"
#include "io/safetensors_writer.hpp"
#include "io/support.hpp"
#include "models/decoder/decoder.hpp"
#include "models/golden.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::models::decoder {

using Json = nlohmann::json;

// Width 64, 4 heads on 2 of keys and values, 2 layers, 256 tokens.
inline Json tiny_json(const std::string& family) {
  Json json = {
      {"model_type", family},     {"vocab_size", 256},      {"hidden_size", 64},
      {"intermediate_size", 128}, {"num_hidden_layers", 2}, {"num_attention_heads", 4},
      {"num_key_value_heads", 2}, {"rms_norm_eps", 1e-5},   {"max_position_embeddings", 256},
      {"rope_theta", 1e4}};
  if (family.starts_with("qwen")) {
    json["rope_theta"] = 1e6;
    json["rms_norm_eps"] = 1e-6;
    json["tie_word_embeddings"] = true;
  }
  if (family == "qwen3") {
    json["head_dim"] = 32;
  }
  return json;
}

inline DecoderConfig parse(const Json& json) {
  return parse_decoder_config(json.dump(), "config.json");
}

inline std::map<std::string, at::Tensor> golden_weights(Decoder& model) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& slot : model.parameter_slots()) {
    for (const auto& part : slot.parts) {
      weights[part.key] = golden_tensor(part.key, part.shape);
    }
  }
  return weights;
}

inline std::unique_ptr<Decoder> golden_model(const Json& json, at::ScalarType dtype = at::kFloat) {
  auto model = std::make_unique<Decoder>(parse(json), dtype, at::kCPU);
  for (const auto& slot : model->parameter_slots()) {
    std::int64_t first = 0;
    for (const auto& part : slot.parts) {
      slot.value->narrow(0, first, part.shape[0]).copy_(golden_tensor(part.key, part.shape));
      first += part.shape[0];
    }
  }
  return model;
}

// One row of documents back to back; every token but each document's first is a target.
inline data::TokenLeaf leaf_of(const std::vector<std::vector<std::int32_t>>& documents) {
  data::TokenLeaf leaf;
  leaf.sample_ids = {0};
  for (const auto& document : documents) {
    const auto begin = static_cast<std::int32_t>(leaf.tokens.size());
    for (std::size_t i = 0; i < document.size(); ++i) {
      leaf.tokens.push_back(document[i]);
      leaf.positions.push_back(static_cast<std::int32_t>(i));
      leaf.labels.push_back(i + 1 < document.size() ? document[i + 1] : -1);
      leaf.targets += leaf.labels.back() >= 0 ? 1 : 0;
    }
    leaf.segments.push_back({begin, static_cast<std::int32_t>(leaf.tokens.size())});
  }
  leaf.row_offsets = {0, static_cast<std::int32_t>(leaf.tokens.size())};
  return leaf;
}

inline std::vector<std::int32_t> golden_ids(std::int64_t first, std::int64_t count) {
  std::vector<std::int32_t> ids;
  for (auto i = first; i < first + count; ++i) {
    ids.push_back(static_cast<std::int32_t>((37 * i + 11) % 256));
  }
  return ids;
}

inline nn::Site site_named(const std::vector<nn::Site>& sites, const std::string& name) {
  for (const auto& site : sites) {
    if (site.name == name) {
      return site;
    }
  }
  throw std::runtime_error("no site " + name);
}

inline void drop_label(data::TokenLeaf& leaf, std::size_t position) {
  leaf.targets -= leaf.labels[position] >= 0 ? 1 : 0;
  leaf.labels[position] = -1;
}

inline void write_weights(const std::filesystem::path& file,
                          const std::map<std::string, at::Tensor>& weights) {
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [key, tensor] : weights) {
    const auto type = tensor.scalar_type();
    const auto dtype = type == at::kFloat      ? io::Dtype::kF32
                       : type == at::kHalf     ? io::Dtype::kF16
                       : type == at::kBFloat16 ? io::Dtype::kBF16
                       : type == at::kDouble   ? io::Dtype::kF64
                                               : io::Dtype::kI64;
    tensors.push_back({key, dtype, tensor.sizes().vec(), nn::bytes_of(tensor)});
  }
  io::write_safetensors(file, tensors, {{"format", "pt"}});
}

inline void write_folder(const std::filesystem::path& folder, const Json& json,
                         const std::map<std::string, at::Tensor>& weights) {
  std::filesystem::create_directories(folder);
  io::put_file(folder / "config.json", json.dump());
  write_weights(folder / "model.safetensors", weights);
}

}  // namespace lorascale::models::decoder
