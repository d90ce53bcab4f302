// Large arrays of an HDF5 file whose blocks are checked against CRC-32 when first touched. They are
// read past the HDF5 library where they lie in the file as one run. Reading is thread-safe.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "io/file_descriptor.hpp"
#include "io/hdf5_file.hpp"

namespace lorascale::data {

// An HDF5 file, open for the library and for reads past it.
class CheckedFile {
 public:
  // `maker`: the script that messages name.
  CheckedFile(std::filesystem::path path, std::string maker);
  // CheckedElements keep its address.
  CheckedFile(const CheckedFile&) = delete;
  CheckedFile& operator=(const CheckedFile&) = delete;
  ~CheckedFile() = default;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const io::Hdf5File& hdf5() const { return hdf5_; }
  // Elements that each check stands for; an error where it is not in 1..largest.
  [[nodiscard]] std::int64_t block_size(std::int64_t largest) const;
  // The data set /checks/NAME, which must have `expected` entries; empty where there is none.
  [[nodiscard]] std::vector<std::uint32_t> checks(const std::string& name,
                                                  std::uint64_t expected) const;
  // Compares `arrays`, one after the other, with the one check of /NAME, where there is one.
  void check_whole(const std::string& name,
                   std::initializer_list<std::span<const std::byte>> arrays) const;

 private:
  friend class CheckedElements;
  [[noreturn]] void refuse(const std::string& what) const;  // that does not match its checksum

  std::filesystem::path path_;
  io::OpenedFile raw_;
  io::Hdf5File hdf5_;
};

class CheckedElements {
 public:
  // The data set /NAME and its checks. The file must outlive it.
  CheckedElements(const CheckedFile& file, std::string name,
                  const std::vector<io::Hdf5Type>& accepted, std::int64_t block_size);

  [[nodiscard]] io::Hdf5Type type() const { return dataset_.type(); }
  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(dataset_.size()); }

  // Elements [first, first + count) as they are; `destination` has the element's type.
  void read(std::int64_t first, std::int64_t count, void* destination) const;
  // A block of them, the last one short, compared with its check. T: as type() says.
  template <typename T>
  [[nodiscard]] std::vector<T> block(std::int64_t index) const {
    const auto first = index * block_size_;
    std::vector<T> values(static_cast<std::size_t>(std::min(block_size_, size() - first)));
    read(first, static_cast<std::int64_t>(values.size()), values.data());
    compare(index, std::as_bytes(std::span(values)));
    return values;
  }
  // Calls `check` with each block of [first, first + count) that has not passed it before; twice at
  // worst, by two threads.
  void at_first_touch(std::int64_t first, std::int64_t count,
                      const std::function<void(std::int64_t block)>& check) const;

  // What tells the elements apart: their checks, or where there are none, all of a small array and
  // samples of a large one.
  void hash_checks(Sha256& hash) const;
  void hash_samples(Sha256& hash) const;  // nothing where there are checks

 private:
  void compare(std::int64_t block, std::span<const std::byte> bytes) const;

  const CheckedFile& file_;
  std::string name_;
  io::Hdf5Dataset dataset_;
  std::int64_t block_size_;
  std::vector<std::uint32_t> checks_;                    // [blocks] CRC-32, or empty
  mutable std::unique_ptr<std::atomic<bool>[]> passed_;  // [blocks]
};

}  // namespace lorascale::data
