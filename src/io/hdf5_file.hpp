// Reading HDF5 files of unknown origin through the C API. Nothing outside the file is ever opened
// (no external storage, links, virtual data sets or plug-ins), declared sizes are checked against
// what is stored, and the library's error stack ends up in one line. All calls into HDF5 go through
// one lock: the library is not re-entrant.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lorascale::io {

enum class Hdf5Type { kUint8, kUint16, kUint32, kInt64 };
std::size_t size_of(Hdf5Type type);

class Hdf5File;

// One 1-d data set of a known element type.
class Hdf5Dataset {
 public:
  Hdf5Dataset(Hdf5Dataset&& other) noexcept;
  Hdf5Dataset& operator=(Hdf5Dataset&&) = delete;
  ~Hdf5Dataset();

  [[nodiscard]] Hdf5Type type() const { return type_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }  // elements
  // Where the bytes lie in the file, if they lie there as one unfiltered run.
  [[nodiscard]] std::optional<std::uint64_t> raw_offset() const { return raw_offset_; }
  // Reads elements [first, first + count) into memory of exactly that size, in the machine's byte
  // order.
  void read(std::uint64_t first, std::uint64_t count, void* destination) const;

 private:
  friend class Hdf5File;
  Hdf5Dataset(std::int64_t id, std::string where);
  void check(const std::vector<Hdf5Type>& accepted, const std::string& maker);

  std::int64_t id_;
  std::string where_;  // "file: /name", for messages
  Hdf5Type type_ = Hdf5Type::kUint8;
  std::uint64_t size_ = 0;
  std::optional<std::uint64_t> raw_offset_;
};

class Hdf5File {
 public:
  // Error(kBadInput) where it is no readable HDF5 file. `maker`: the script that messages name.
  explicit Hdf5File(std::filesystem::path path, std::string maker = "scripts/prepare_text.py");
  ~Hdf5File();
  Hdf5File(const Hdf5File&) = delete;
  Hdf5File& operator=(const Hdf5File&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] bool has(const std::string& name) const;  // "/tokens"; every component a hard link
  // A 1-d data set whose type is one of `accepted`; anything else throws.
  [[nodiscard]] Hdf5Dataset dataset(const std::string& name,
                                    const std::vector<Hdf5Type>& accepted) const;
  // Scalar attributes of the root group; nothing where there is none, an error where the type is
  // another.
  [[nodiscard]] std::optional<std::string> text_attribute(const std::string& name) const;
  [[nodiscard]] std::optional<std::int64_t> integer_attribute(const std::string& name) const;

 private:
  std::filesystem::path path_;
  std::string maker_;
  std::int64_t id_;
};

}  // namespace lorascale::io
