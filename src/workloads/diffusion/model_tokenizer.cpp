#include "workloads/diffusion/model_tokenizer.hpp"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/file_descriptor.hpp"
#include "io/strict_json.hpp"

namespace lorascale::workloads::diffusion {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Vocabulary {
  std::map<std::string, std::int64_t> ids;
  std::vector<std::string> merges;  // "LEFT RIGHT", in their order
};

bool is_file(const fs::path& path) {
  std::error_code unknown;
  return fs::is_regular_file(path, unknown);
}

void add_ids(const Json& names, Vocabulary& vocabulary) {
  for (const auto& [name, id] : names.items()) {
    if (id.is_number_integer()) {
      vocabulary.ids[name] = id.get<std::int64_t>();
    }
  }
}

void read_tokenizer_json(const fs::path& file, Vocabulary& vocabulary) {
  const auto json = io::read_json_file(file);
  const auto model = json.value("model", Json::object());
  add_ids(model.value("vocab", Json::object()), vocabulary);
  for (const auto& merge : model.value("merges", Json::array())) {
    if (merge.is_string()) {
      vocabulary.merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      vocabulary.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
  }
  for (const auto& token : json.value("added_tokens", Json::array())) {
    if (token.is_object() && token.value("content", Json()).is_string() &&
        token.value("id", Json()).is_number_integer()) {
      vocabulary.ids[token["content"].get<std::string>()] = token["id"].get<std::int64_t>();
    }
  }
}

void read_pair(const fs::path& folder, Vocabulary& vocabulary) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;
  add_ids(io::read_json_file(folder / "vocab.json"), vocabulary);
  if (is_file(folder / "added_tokens.json")) {
    add_ids(io::read_json_file(folder / "added_tokens.json"), vocabulary);
  }
  const auto text = io::read_file(folder / "merges.txt", kMostBytes);
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    auto line = text.substr(at, end - at);
    if (line.ends_with('\r')) {
      line.pop_back();
    }
    if (!line.empty() && !(at == 0 && line.starts_with("#version"))) {
      vocabulary.merges.push_back(line);
    }
    at = end + 1;
  }
}

std::optional<Vocabulary> read_vocabulary(const fs::path& folder) {
  Vocabulary vocabulary;
  if (is_file(folder / "tokenizer.json")) {
    read_tokenizer_json(folder / "tokenizer.json", vocabulary);
  } else if (is_file(folder / "vocab.json") && is_file(folder / "merges.txt")) {
    read_pair(folder, vocabulary);
  } else {
    return std::nullopt;
  }
  return vocabulary;
}

// As scripts/lorascale_captions/vocabulary.py has it.
std::string hash_of(const Vocabulary& vocabulary) {
  std::map<std::int64_t, std::string> by_id;
  for (const auto& [name, id] : vocabulary.ids) {
    by_id[id] = name;
  }
  Sha256 hash;
  std::int64_t index = 0;
  for (const auto& [id, name] : by_id) {
    hash.update(fmt::format("{} {}\n", index++, name));
  }
  for (const auto& merge : vocabulary.merges) {
    hash.update(merge + "\n");
  }
  return hash.hex();
}

std::int64_t pad_of(const fs::path& folder, const Vocabulary& vocabulary) {
  std::string name = "<|endoftext|>";
  for (const auto* file : {"special_tokens_map.json", "tokenizer_config.json"}) {
    if (!is_file(folder / file)) {
      continue;
    }
    auto pad = io::read_json_file(folder / file).value("pad_token", Json());
    if (pad.is_object()) {
      pad = pad.value("content", Json());
    }
    if (pad.is_string()) {
      name = pad.get<std::string>();
    }
  }
  const auto found = vocabulary.ids.find(name);
  return found == vocabulary.ids.end() ? -1 : found->second;
}

}  // namespace

void require_tokenizer_of_model(const data::CaptionedFile& file, const fs::path& model) {
  const auto& tokens = file.tokens();
  for (std::size_t i = 0; i < tokens.pads.size(); ++i) {
    const auto folder = model / (i == 0 ? "tokenizer" : "tokenizer_2");
    const auto vocabulary = read_vocabulary(folder);
    if (!vocabulary) {
      continue;
    }
    const bool same_words = hash_of(*vocabulary) == tokens.tokenizer;
    if (!same_words || pad_of(folder, *vocabulary) != tokens.pads[i]) {
      throw_bad_input(fmt::format(
          "{} was made with another tokenizer than {}: {}; make it again with {} --model {}",
          file.path().string(), folder.string(),
          same_words ? "it pads captions otherwise" : "its words have other ids",
          data::kCaptionedFileMaker, model.string()));
    }
  }
}

}  // namespace lorascale::workloads::diffusion
