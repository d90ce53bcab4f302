// A folder of computed values that are kept from run to run: bytes by keys, in HDF5 files that are
// written once, as one step each, so that processes may write beside each other and one that ends
// early leaves what is whole. What cannot be read is as good as not there.
//
// part-*.h5: attributes `format` "lorascale values", `version` 1 and `source` (what all values
// follow from); /keys u8 [64 n] SHA-256 of the keys in hexadecimal digits; /offsets i64 [n + 1]
// into /values u8; /checks u32 [n] CRC-32 of each value.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/hdf5_file.hpp"

namespace lorascale::io {

class ValueStore {
 public:
  // `source` tells apart what values follow from beside their keys; only its own are seen.
  ValueStore(std::filesystem::path folder, std::string source);
  ~ValueStore();
  ValueStore(const ValueStore&) = delete;
  ValueStore& operator=(const ValueStore&) = delete;

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  [[nodiscard]] bool has(std::string_view key) const;
  // Nothing where there is none, or a damaged one, which is then forgotten.
  std::optional<std::vector<std::byte>> read(std::string_view key);
  // On disk after some more of them, or after write(). Error(kCannotWrite).
  void add(std::string_view key, std::span<const std::byte> value);
  void write();
  // Looks for what others wrote, at most once a second.
  void refresh();

 private:
  struct Part;
  struct Place {
    std::shared_ptr<Part> part;
    std::int64_t first = 0, bytes = 0;
    std::uint32_t check = 0;
  };
  void look();
  bool open_part(const std::filesystem::path& file);

  std::filesystem::path folder_;
  std::string source_;
  std::unordered_multimap<std::string, Place> places_;  // by digest
  std::set<std::filesystem::path> seen_;
  std::map<std::string, std::vector<std::byte>> waiting_;  // to be written
  std::size_t waiting_bytes_ = 0;
  std::chrono::steady_clock::time_point looked_{};
};

}  // namespace lorascale::io
