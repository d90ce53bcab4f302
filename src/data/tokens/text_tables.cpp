#include "data/tokens/text_tables.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace lorascale::data {
namespace {

constexpr std::uint64_t kMaxBytes = std::uint64_t{256} << 20;

template <typename T>
std::vector<T> read_whole(const io::Hdf5File& file, const std::string& name, io::Hdf5Type type) {
  const auto dataset = file.dataset(name, {type});
  if (dataset.size() > kMaxBytes / sizeof(T)) {
    throw_bad_input(file.path().string() + ": " + name + " is larger than any real one");
  }
  std::vector<T> values(dataset.size());
  dataset.read(0, dataset.size(), values.data());
  return values;
}

// Where the entries of an array begin and end, checked against its size.
std::vector<std::int64_t> read_offsets(const io::Hdf5File& file, const std::string& group,
                                       const std::string& array, std::size_t size) {
  auto offsets = read_whole<std::int64_t>(file, group + "/offsets", io::Hdf5Type::kInt64);
  if (offsets.empty() || offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end()) ||
      offsets.back() != static_cast<std::int64_t>(size)) {
    throw_bad_input(file.path().string() + ": " + group + "/offsets does not fit " + group + "/" +
                    array + "; make the file again");
  }
  return offsets;
}

}  // namespace

ByteTable ByteTable::read(const io::Hdf5File& file, const std::string& group) {
  ByteTable table;
  if (!file.has(group) || !file.has(group + "/bytes") || !file.has(group + "/offsets")) {
    return table;
  }
  const auto bytes = read_whole<std::uint8_t>(file, group + "/bytes", io::Hdf5Type::kUint8);
  table.bytes_.assign(bytes.begin(), bytes.end());
  table.offsets_ = read_offsets(file, group, "bytes", bytes.size());
  return table;
}

std::string_view ByteTable::operator[](std::int64_t entry) const {
  LS_ASSERT(entry >= 0 && entry < size());
  const auto i = static_cast<std::size_t>(entry);
  return std::string_view(bytes_).substr(static_cast<std::size_t>(offsets_[i]),
                                         static_cast<std::size_t>(offsets_[i + 1] - offsets_[i]));
}

PromptTable PromptTable::read(const io::Hdf5File& file, std::int64_t vocabulary) {
  PromptTable table;
  if (!file.has("/prompts")) {
    return table;
  }
  const std::string where = file.path().string() + ": /prompts";
  const auto texts = ByteTable::read(file, "/prompts/texts");
  const auto ids = read_whole<std::uint32_t>(file, "/prompts/ids", io::Hdf5Type::kUint32);
  const auto offsets = read_offsets(file, "/prompts", "ids", ids.size());
  if (static_cast<std::int64_t>(offsets.size()) != texts.size() + 1) {
    throw_bad_input(where + " has " + std::to_string(texts.size()) + " texts for " +
                    std::to_string(offsets.size() - 1) + " lists of ids; make the file again");
  }
  if (std::adjacent_find(offsets.begin(), offsets.end()) != offsets.end()) {
    throw_bad_input(where + " has a prompt without ids; make the file again");
  }
  const auto largest = std::max_element(ids.begin(), ids.end());
  if (largest != ids.end() && *largest >= vocabulary) {
    throw_bad_input(where + " holds id " + std::to_string(*largest) +
                    ", but the model's vocabulary ends at " + std::to_string(vocabulary - 1) +
                    "; prepare it with this model's tokenizer");
  }
  for (std::int64_t i = 0; i < texts.size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    table.ids_.emplace(texts[i], std::vector<std::int32_t>(ids.begin() + offsets[at],
                                                           ids.begin() + offsets[at + 1]));
  }
  return table;
}

std::optional<std::vector<std::int32_t>> PromptTable::find(const std::string& text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace lorascale::data
