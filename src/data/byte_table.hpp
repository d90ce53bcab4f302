// Byte strings of an HDF5 file, back to back: GROUP/bytes u8, GROUP/offsets i64 [entries + 1].
// Checked when read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "io/hdf5_file.hpp"

namespace lorascale::data {

// A data set that is small by its nature; a larger one is refused.
template <typename T>
std::vector<T> read_small(const io::Hdf5File& file, const std::string& name, io::Hdf5Type type) {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{256} << 20;
  const auto dataset = file.dataset(name, {type});
  if (dataset.size() > kMaxBytes / sizeof(T)) {
    throw_bad_input(file.path().string() + ": " + name + " is larger than any real one");
  }
  std::vector<T> values(dataset.size());
  dataset.read(0, dataset.size(), values.data());
  return values;
}

// GROUP/offsets: where the entries of GROUP/ARRAY begin and end, checked against its size.
std::vector<std::int64_t> read_table_offsets(const io::Hdf5File& file, const std::string& group,
                                             const std::string& array, std::size_t size);

class ByteTable {
 public:
  ByteTable() = default;  // no entries
  // Without entries where the file has no such group; throws where it does not hold together.
  static ByteTable read(const io::Hdf5File& file, const std::string& group);

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(offsets_.size()) - 1; }
  [[nodiscard]] std::string_view operator[](std::int64_t entry) const;
  // As they are in the file.
  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  [[nodiscard]] const std::vector<std::int64_t>& offsets() const { return offsets_; }

 private:
  std::string bytes_;
  std::vector<std::int64_t> offsets_{0};
};

}  // namespace lorascale::data
