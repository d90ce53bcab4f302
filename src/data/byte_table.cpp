#include "data/byte_table.hpp"

#include <algorithm>

namespace lorascale::data {

std::vector<std::int64_t> read_table_offsets(const io::Hdf5File& file, const std::string& group,
                                             const std::string& array, std::size_t size) {
  auto offsets = read_small<std::int64_t>(file, group + "/offsets", io::Hdf5Type::kInt64);
  if (offsets.empty() || offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end()) ||
      offsets.back() != static_cast<std::int64_t>(size)) {
    throw_bad_input(file.path().string() + ": " + group + "/offsets does not fit " + group + "/" +
                    array + "; make the file again");
  }
  return offsets;
}

ByteTable ByteTable::read(const io::Hdf5File& file, const std::string& group) {
  ByteTable table;
  if (!file.has(group) || !file.has(group + "/bytes") || !file.has(group + "/offsets")) {
    return table;
  }
  const auto bytes = read_small<std::uint8_t>(file, group + "/bytes", io::Hdf5Type::kUint8);
  table.bytes_.assign(bytes.begin(), bytes.end());
  table.offsets_ = read_table_offsets(file, group, "bytes", bytes.size());
  return table;
}

std::string_view ByteTable::operator[](std::int64_t entry) const {
  LS_ASSERT(entry >= 0 && entry < size());
  const auto i = static_cast<std::size_t>(entry);
  return std::string_view(bytes_).substr(static_cast<std::size_t>(offsets_[i]),
                                         static_cast<std::size_t>(offsets_[i + 1] - offsets_[i]));
}

}  // namespace lorascale::data
