// An HDF5 file that is made in memory, to be written to disk as one step (io/durable_file.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lorascale::io {

class Hdf5Image {
 public:
  Hdf5Image();
  ~Hdf5Image();
  Hdf5Image(const Hdf5Image&) = delete;
  Hdf5Image& operator=(const Hdf5Image&) = delete;

  // A 1-d data set of the root, little-endian, contiguous and unfiltered.
  void add(const std::string& name, std::span<const std::uint8_t> values);
  void add(const std::string& name, std::span<const std::uint32_t> values);
  void add(const std::string& name, std::span<const std::int64_t> values);
  // Of the root.
  void add_attribute(const std::string& name, std::int64_t value);
  void add_attribute(const std::string& name, const std::string& value);

  [[nodiscard]] std::vector<std::byte> bytes() const;

 private:
  void add(const std::string& name, std::int64_t stored, std::int64_t in_memory, std::size_t count,
           const void* data);

  std::int64_t id_;
};

}  // namespace lorascale::io
