// The weights of a model on disk: one .safetensors file, or a folder with model.safetensors or an
// index and its shards (also diffusers' names), as one map from key to tensor. Never opens pickle
// files, and never a file outside the folder because an index says so. Reading is thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.hpp"

namespace lorascale::io {

// The folder that belongs to a model's path, with config.json and the tokenizer: the path itself,
// or where the file lies that it names.
std::filesystem::path model_folder(const std::filesystem::path& file_or_folder);

class ModelReader {
 public:
  // Opens all files and checks them against the index: a missing shard and a key in two shards are
  // Error(kBadInput); an entry of the index that its shard lacks is one where the tensor is asked
  // for, as indices keep entries that nobody needs. Symbolic links are followed (model caches
  // consist of them).
  explicit ModelReader(const std::filesystem::path& file_or_folder);

  struct ReadRequest {
    std::string_view key;
    std::span<std::byte> destination;  // exactly at(key).bytes()
  };

  // Null where there is none, in the file that the index names.
  [[nodiscard]] const TensorInfo* find(std::string_view key) const;
  [[nodiscard]] const TensorInfo& at(std::string_view key) const;  // throws where there is none
  [[nodiscard]] std::vector<std::string> keys() const;             // sorted
  [[nodiscard]] std::size_t tensor_count() const { return entries_.size(); }
  [[nodiscard]] std::uint64_t total_bytes() const;  // of all tensors
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const std::vector<SafetensorsFile>& files() const { return files_; }
  [[nodiscard]] const SafetensorsMetadata& metadata() const { return files_.front().metadata(); }

  void read(std::string_view key, std::span<std::byte> destination,
            int threads = kDefaultReadThreads) const;
  // Reads many tensors at once, in the order of their place on disk.
  void read_all(std::span<const ReadRequest> requests, int threads = kDefaultReadThreads) const;

  // SHA-256 over config.json beside the files, their names, sizes and headers, and samples of every
  // tensor (its beginning, middle and end): reads a few KiB per tensor, and tells fine-tuned
  // variants of one model apart. A few changed bytes elsewhere escape it.
  [[nodiscard]] std::string fingerprint() const;

 private:
  struct Entry {
    const TensorInfo* tensor;
    std::uint32_t file;
  };

  void open_single(const std::filesystem::path& file);
  void open_index(const std::filesystem::path& index);
  void add_file(std::uint32_t file);
  void sort_entries();
  [[nodiscard]] const Entry* find_entry(std::string_view key) const;
  [[nodiscard]] const Entry& entry_at(std::string_view key) const;

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;  // the order of their names
  std::vector<Entry> entries_;          // by key
  // Entries of the index that are wrong: key -> the shard that does not hold it.
  std::map<std::string, std::string, std::less<>> stale_;
};

}  // namespace lorascale::io
