#include "models/decoder/export.hpp"

#include <array>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "io/model_reader.hpp"
#include "nn/dtypes.hpp"

namespace lorascale::models::decoder {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::array kCompanions = {"generation_config.json",
                                    "tokenizer.json",
                                    "tokenizer_config.json",
                                    "special_tokens_map.json",
                                    "tokenizer.model",
                                    "vocab.json",
                                    "merges.txt",
                                    "chat_template.jinja",
                                    "added_tokens.json"};

constexpr std::uint64_t kMaxCompanionBytes = std::uint64_t{1} << 30;

// config.json names the stored type; ours may differ from the base's.
std::string config_with_type(const std::filesystem::path& base, at::ScalarType type) {
  auto config = nlohmann::json::parse(io::read_file(base / "config.json", 1 << 20));
  config.erase("torch_dtype");
  config["dtype"] = nn::float_type(type).hugging_face;
  return config.dump(2) + "\n";
}

// An object; empty where the text is none (damaged, or there is no file).
OrderedJson object_of(const std::string& text) {
  auto json = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
  return json.is_object() ? json : OrderedJson::object();
}

}  // namespace

void write_companions(const std::filesystem::path& folder, const std::filesystem::path& base_path,
                      at::ScalarType stored, std::int64_t answer_end_id) {
  const auto base = io::model_folder(base_path);
  io::write_file_atomically(folder / "config.json",
                            std::string_view(config_with_type(base, stored)));
  for (const char* name : kCompanions) {
    if (std::filesystem::exists(base / name)) {
      const auto text = io::read_file(base / name, kMaxCompanionBytes);
      io::write_file_atomically(folder / name, std::string_view(text));
    }
  }
  const auto text_of = [&](const char* name) {
    return std::filesystem::exists(base / name) ? io::read_file(base / name, 1 << 20)
                                                : std::string();
  };
  if (const auto right = generation_config_with_end(text_of("generation_config.json"),
                                                    text_of("config.json"), answer_end_id)) {
    io::write_file_atomically(folder / "generation_config.json", std::string_view(*right));
  }
}

std::optional<std::string> generation_config_with_end(const std::string& generation_config,
                                                      const std::string& config,
                                                      std::int64_t answer_end_id) {
  if (answer_end_id < 0) {
    return std::nullopt;
  }
  auto result = object_of(generation_config);
  const auto model = object_of(config);
  // As transformers makes it of config.json where there is none.
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if ((!result.contains(key) || result[key].is_null()) && model.contains(key)) {
      result[key] = model[key];
    }
  }
  OrderedJson ends = OrderedJson::array({answer_end_id});
  const OrderedJson named =
      result.contains("eos_token_id") ? result["eos_token_id"] : OrderedJson();
  for (const auto& id : named.is_array() ? named : OrderedJson::array({named})) {
    if (id == answer_end_id) {
      return std::nullopt;
    }
    if (id.is_number_integer()) {
      ends.push_back(id);
    }
  }
  result["eos_token_id"] = ends;
  result.erase("_from_model_config");  // or transformers would take config.json's after all
  return result.dump(2) + "\n";
}

}  // namespace lorascale::models::decoder
