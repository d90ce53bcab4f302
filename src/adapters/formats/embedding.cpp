#include "adapters/formats/embedding.hpp"

#include <ATen/ops/linalg_vector_norm.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <system_error>

#include "adapters/formats/factor.hpp"
#include "adapters/formats/kohya.hpp"
#include "base/error.hpp"
#include "base/units.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors.hpp"
#include "io/safetensors_writer.hpp"
#include "io/untrusted_text.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOnlyRows = "emb_params";
constexpr const char* kRowsOfTwo[] = {"clip_l", "clip_g"};
constexpr const char* kWord = "modelspec.trigger_phrase";
constexpr std::uint64_t kMostHeader = std::uint64_t{1} << 20;  // such files are small

// Its tensors in the order of the text encoders; empty where it is none.
std::vector<std::string> keys_of_rows(const io::SafetensorsFile& file) {
  const auto& tensors = file.tensors();
  if (file.find(kRowsOfTwo[0]) != nullptr && file.find(kRowsOfTwo[1]) != nullptr &&
      tensors.size() == 2) {
    return {kRowsOfTwo[0], kRowsOfTwo[1]};
  }
  // By the word's own name, as diffusers writes them: no layer of a model.
  if (tensors.size() == 1 && !tensors[0].name.ends_with(".weight") &&
      !tensors[0].name.ends_with(".bias") && !tensors[0].shape.empty() &&
      tensors[0].shape.size() <= 2) {
    return {tensors[0].name};
  }
  return {};
}

bool is_embedding(const fs::path& path) {
  try {
    return !keys_of_rows(io::SafetensorsFile(path, kMostHeader)).empty();
  } catch (const Error&) {  // whoever opens it as what it is says what is wrong with it
    return false;
  }
}

// What interfaces would call the word by, and every system's files can bear.
std::string file_name_of(const std::string& word) {
  std::string name;
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = std::isalnum(byte) != 0 || byte >= 0x80 || c == '-' || c == '_' || c == '.';
    const bool gap = !name.empty() && name.back() != '_';
    if (plain && (c != '.' || !name.empty())) {
      name += c;
    } else if (gap) {
      name += '_';
    }
  }
  while (name.ends_with('_') || name.ends_with('.')) {
    name.pop_back();
  }
  name = name.empty() ? "word" : name.substr(0, 200);
  return (name + ".safetensors" == kKohyaFile ? name + "-word" : name) + ".safetensors";
}

io::SafetensorsMetadata metadata_of_word(const Embedding& embedding, const ExportContext& context) {
  io::SafetensorsMetadata metadata = {
      {"format", "pt"}, {kWord, embedding.word}, {"modelspec.title", embedding.word}};
  for (const auto& [key, value] : context.metadata) {
    const auto slash = value.rfind("/lora");
    metadata.emplace(key, key == "modelspec.architecture" && slash != std::string::npos
                              ? value.substr(0, slash) + "/textual-inversion"
                              : value);
  }
  return metadata;
}

std::string vectors_of(const Embedding& embedding) {
  std::vector<std::int64_t> widths;
  for (const auto& rows : embedding.rows) {
    widths.push_back(rows.size(1));
  }
  return fmt::format("{} of width {}", counted(embedding.rows.front().size(0), "vector"),
                     fmt::join(widths, " and "));
}

}  // namespace

void write_embedding(const fs::path& folder, const Embedding& embedding,
                     const ExportContext& context) {
  io::create_folders(folder);
  const auto file = folder / file_name_of(embedding.word);
  std::vector<io::TensorToWrite> tensors;
  for (std::size_t i = 0; i < embedding.rows.size(); ++i) {
    const auto& rows = embedding.rows[i];
    tensors.push_back({embedding.rows.size() == 1 ? kOnlyRows : kRowsOfTwo[i], io::Dtype::kF32,
                       rows.sizes().vec(), nn::bytes_of(rows)});
  }
  io::write_safetensors(file, tensors, metadata_of_word(embedding, context));
  const auto written = read_embedding(file);
  for (std::size_t i = 0; i < embedding.rows.size(); ++i) {
    if (written.word != embedding.word || !written.rows[i].equal(embedding.rows[i])) {
      throw Error(ExitCode::kInternal,
                  file.string() +
                      ": the written embedding differs from the trained one; do not "
                      "use it");
    }
  }
}

std::optional<fs::path> embedding_file(const fs::path& path) {
  std::error_code unknown;
  if (fs::is_regular_file(path, unknown)) {
    return path.extension() == ".safetensors" && is_embedding(path) ? std::optional(path)
                                                                    : std::nullopt;
  }
  for (const auto& folder : {path, path / "adapter"}) {
    std::set<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder, unknown)) {
      if (entry.path().extension() == ".safetensors" && entry.is_regular_file(unknown)) {
        files.insert(entry.path());
      }
    }
    if (const auto found = std::ranges::find_if(files, is_embedding); found != files.end()) {
      return *found;
    }
  }
  return std::nullopt;
}

Embedding read_embedding(const fs::path& path) {
  const io::SafetensorsFile file(path, kMostHeader);
  const auto keys = keys_of_rows(file);
  if (keys.empty()) {
    throw_bad_input(path.string() +
                    " is no embedding (emb_params, clip_l and clip_g, or one "
                    "tensor by the word's name)");
  }
  Embedding embedding;
  const auto word = file.metadata().find(kWord);
  embedding.word =
      word != file.metadata().end() && !word->second.empty() ? word->second : path.stem().string();
  if (keys.size() == 1 && keys[0] != kOnlyRows && word == file.metadata().end()) {
    embedding.word = keys[0];
  }
  for (const auto& key : keys) {
    const at::Tensor rows = read_rows(file, key);
    if (!embedding.rows.empty() && rows.size(0) != embedding.rows.front().size(0)) {
      throw_bad_input(path.string() + ": its text encoders have different numbers of vectors");
    }
    embedding.rows.push_back(rows);
  }
  return embedding;
}

std::string summarise_embedding(const fs::path& file) {
  const auto embedding = read_embedding(file);
  return fmt::format("word {}, {}", io::in_quotes(embedding.word), vectors_of(embedding));
}

std::string describe_embedding(const fs::path& path) {
  const auto embedding = read_embedding(path);
  auto text = fmt::format(
      "embedding (textual inversion) of the word {} for {}: {}\n", io::in_quotes(embedding.word),
      embedding.rows.size() == 1 ? "one text encoder" : "the two of SDXL", vectors_of(embedding));
  for (std::size_t i = 0; i < embedding.rows.size(); ++i) {
    const at::Tensor norms = at::linalg_vector_norm(embedding.rows[i], 2, {1});
    for (std::int64_t j = 0; j < norms.size(0); ++j) {
      text += fmt::format("  text encoder {}, vector {:<4} |v| {:.4g}\n", i + 1, j + 1,
                          norms[j].item<double>());
    }
  }
  return text;
}

}  // namespace lorascale::adapters
