#include "io/model_reader.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <system_error>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".safetensors";
constexpr std::string_view kIndexSuffix = ".safetensors.index.json";
// In order of preference: transformers' names, then diffusers', full precision first.
constexpr std::array<std::string_view, 4> kStems{"model", "diffusion_pytorch_model", "model.fp16",
                                                 "diffusion_pytorch_model.fp16"};
constexpr std::array<std::string_view, 5> kPickleSuffixes{".bin", ".ckpt", ".pt", ".pth", ".pkl"};
constexpr std::size_t kMaxShards = 10'000;
constexpr std::uint64_t kMaxConfigBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kSampleBytes = 1024;

bool is_pickle(const fs::path& path) {
  const std::string suffix = path.extension().string();
  return std::find(kPickleSuffixes.begin(), kPickleSuffixes.end(), suffix) != kPickleSuffixes.end();
}

[[noreturn]] void throw_pickle(const fs::path& path) {
  throw_bad_input(path.string() +
                  " is a pickle file, which can run any program when it is opened: use the model's "
                  ".safetensors "
                  "files, or convert it once in Python (torch.load with weights_only=True, then "
                  "safetensors.torch.save_file)");
}

[[noreturn]] void throw_nothing_found(const fs::path& folder) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    if (is_pickle(entry.path())) {
      throw_pickle(entry.path());
    }
  }
  throw_bad_input(folder.string() +
                  " holds no model: model.safetensors, model.safetensors.index.json, "
                  "diffusion_pytorch_model.safetensors or its index is needed; check the path");
}

// Key to shard, from an index file.
std::map<std::string, std::string> read_weight_map(const fs::path& index) {
  const nlohmann::json tree = read_json_file(index);
  const JsonObject map = JsonObject(tree, index.string()).object("weight_map");
  std::map<std::string, std::string> shard_of;
  for (const auto& item : map.value().items()) {
    if (!item.value().is_string()) {
      map.fail(item.key(), "must name a shard file");
    }
    const auto& shard = item.value().get_ref<const std::string&>();
    if (!is_plain_file_name(shard) || !std::string_view(shard).ends_with(kSuffix)) {
      map.fail(item.key(),
               "names the shard " + in_quotes(shard) +
                   ", which is not the plain name of a .safetensors file beside the index: "
                   "the index is damaged or hostile; get the model from a source you trust");
    }
    shard_of.emplace(item.key(), shard);
  }
  if (shard_of.empty()) {
    throw_bad_input(index.string() + ": \"weight_map\" is empty: get a fresh copy of the index");
  }
  return shard_of;
}

std::vector<std::string> shard_names(const std::map<std::string, std::string>& shard_of) {
  std::vector<std::string> names;
  names.reserve(shard_of.size());
  for (const auto& [key, shard] : shard_of) {
    names.push_back(shard);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

void check_shards_exist(const fs::path& index, const std::vector<std::string>& names) {
  if (names.size() > kMaxShards) {
    throw_bad_input(index.string() + ": names " + std::to_string(names.size()) +
                    " shards, more than " + std::to_string(kMaxShards) +
                    ": get a fresh copy of the index");
  }
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    std::error_code ignored;
    if (!fs::exists(index.parent_path() / name, ignored)) {
      missing.push_back(name);
    }
  }
  if (!missing.empty()) {
    throw_bad_input(index.string() + ": " + std::to_string(missing.size()) + " of " +
                    std::to_string(names.size()) + " shards are missing, the first is " +
                    in_quotes(missing.front()) + ": finish the download of the model");
  }
}

}  // namespace

fs::path model_folder(const fs::path& file_or_folder) {
  std::error_code ignored;
  if (fs::is_regular_file(file_or_folder, ignored)) {
    return file_or_folder.has_parent_path() ? file_or_folder.parent_path() : fs::path(".");
  }
  return file_or_folder;
}

ModelReader::ModelReader(const fs::path& file_or_folder) : path_(file_or_folder) {
  std::error_code ignored;
  if (!fs::is_directory(path_, ignored)) {
    if (is_pickle(path_)) {
      throw_pickle(path_);
    }
    if (path_.string().ends_with(kIndexSuffix)) {
      open_index(path_);
    } else {
      open_single(path_);
    }
    return;
  }
  for (const std::string_view stem : kStems) {
    const fs::path single = path_ / (std::string(stem) + std::string(kSuffix));
    const fs::path index = path_ / (std::string(stem) + std::string(kIndexSuffix));
    if (fs::exists(single, ignored)) {
      open_single(single);
      return;
    }
    if (fs::exists(index, ignored)) {
      open_index(index);
      return;
    }
  }
  throw_nothing_found(path_);
}

void ModelReader::open_single(const fs::path& file) {
  files_.emplace_back(file);
  add_file(0);
  sort_entries();
}

void ModelReader::open_index(const fs::path& index) {
  const std::map<std::string, std::string> shard_of = read_weight_map(index);
  const std::vector<std::string> names = shard_names(shard_of);
  check_shards_exist(index, names);
  files_.reserve(names.size());
  for (const std::string& name : names) {
    files_.emplace_back(index.parent_path() / name);
    add_file(static_cast<std::uint32_t>(files_.size() - 1));
  }
  sort_entries();
  const auto twice = std::adjacent_find(
      entries_.begin(), entries_.end(),
      [](const Entry& a, const Entry& b) { return a.tensor->name == b.tensor->name; });
  if (twice != entries_.end()) {
    throw_bad_input(index.string() + ": tensor " + in_quotes(twice->tensor->name) + " is in both " +
                    files_[twice->file].path().filename().string() + " and " +
                    files_[std::next(twice)->file].path().filename().string() +
                    ": the shards are of different downloads; get the model afresh");
  }
  for (const auto& [key, shard] : shard_of) {
    const Entry* entry = find_entry(key);
    if (entry == nullptr || files_[entry->file].path().filename() != shard) {
      stale_.emplace(key, shard);
    }
  }
}

void ModelReader::add_file(std::uint32_t file) {
  for (const TensorInfo& tensor : files_[file].tensors()) {
    entries_.push_back({&tensor, file});
  }
}

// Pointers stay valid: a moved SafetensorsFile keeps the storage of its tensors.
void ModelReader::sort_entries() {
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.tensor->name < b.tensor->name; });
}

const ModelReader::Entry* ModelReader::find_entry(std::string_view key) const {
  const auto found = std::lower_bound(
      entries_.begin(), entries_.end(), key,
      [](const Entry& entry, std::string_view name) { return entry.tensor->name < name; });
  return found == entries_.end() || found->tensor->name != key ? nullptr : &*found;
}

const ModelReader::Entry& ModelReader::entry_at(std::string_view key) const {
  if (const auto stale = stale_.find(key); stale != stale_.end()) {
    throw_bad_input(
        path_.string() + ": tensor " + in_quotes(key) + " is not in " + in_quotes(stale->second) +
        " as the index says: index and shards are of different downloads; get the model afresh");
  }
  const Entry* entry = find_entry(key);
  if (entry == nullptr) {
    throw_bad_input(path_.string() + " has no tensor " + in_quotes(key) +
                    ": check that the model is of the expected kind and complete");
  }
  return *entry;
}

const TensorInfo* ModelReader::find(std::string_view key) const {
  const Entry* entry = find_entry(key);
  return entry == nullptr || stale_.contains(key) ? nullptr : entry->tensor;
}

const TensorInfo& ModelReader::at(std::string_view key) const {
  return *entry_at(key).tensor;
}

std::vector<std::string> ModelReader::keys() const {
  std::vector<std::string> keys;
  keys.reserve(entries_.size());
  for (const Entry& entry : entries_) {
    keys.push_back(entry.tensor->name);
  }
  return keys;
}

std::uint64_t ModelReader::total_bytes() const {
  std::uint64_t total = 0;
  for (const SafetensorsFile& file : files_) {
    total += file.data_bytes();
  }
  return total;
}

void ModelReader::read(std::string_view key, std::span<std::byte> destination, int threads) const {
  const Entry& entry = entry_at(key);
  files_[entry.file].read(*entry.tensor, destination, threads);
}

void ModelReader::read_all(std::span<const ReadRequest> requests, int threads) const {
  struct Placed {
    std::uint32_t file;
    ByteRange range;
  };
  std::vector<Placed> placed;
  placed.reserve(requests.size());
  for (const ReadRequest& request : requests) {
    const Entry& entry = entry_at(request.key);
    placed.push_back({entry.file, files_[entry.file].range_of(*entry.tensor, request.destination)});
  }
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return std::pair(a.file, a.range.offset) < std::pair(b.file, b.range.offset);
  });
  std::vector<ByteRange> ranges;
  ranges.reserve(placed.size());
  for (const Placed& item : placed) {
    ranges.push_back(item.range);
  }
  read_parallel(ranges, threads);
}

std::string ModelReader::fingerprint() const {
  Sha256 hash;
  const fs::path config = files_.front().path().parent_path() / "config.json";
  std::error_code ignored;
  if (fs::exists(config, ignored)) {
    hash.update(read_file(config, kMaxConfigBytes));
  }
  std::vector<std::byte> sample;
  for (const SafetensorsFile& file : files_) {
    hash.update(in_quotes(file.path().filename().string()) + " " +
                std::to_string(file.file_bytes()) + " " + file.header_sha256() + "\n");
    for (const TensorInfo& tensor : file.tensors()) {
      sample.resize(std::min<std::uint64_t>(tensor.bytes(), kSampleBytes));
      const std::uint64_t last = tensor.bytes() - sample.size();
      for (const std::uint64_t first : {std::uint64_t{0}, last / 2, last}) {
        file.read_part(tensor, first, sample);
        hash.update(std::span<const std::byte>(sample));
      }
    }
  }
  return hash.hex();
}

}  // namespace lorascale::io
