// Reading one safetensors file. Opening checks everything that the format promises, so what an
// object says of its tensors can be relied on; data is then read on demand with checked reads,
// never mapped. Reading is thread-safe. User errors are Error(kBadInput) with the file, the tensor
// and the remedy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file_descriptor.hpp"
#include "io/parallel_read.hpp"
#include "io/safetensors_header.hpp"
#include "io/safetensors_types.hpp"

namespace lorascale::io {

// Threads per read where the caller does not say: enough requests to keep an NVMe disk busy.
constexpr int kDefaultReadThreads = 8;

class SafetensorsFile {
 public:
  // `max_header_bytes` can be lowered for files that are known to be small, such as adapters.
  explicit SafetensorsFile(std::filesystem::path path,
                           std::uint64_t max_header_bytes = kMaxSafetensorsHeader);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::uint64_t file_bytes() const { return file_.bytes; }
  [[nodiscard]] std::uint64_t data_bytes() const { return file_.bytes - data_start_; }
  [[nodiscard]] const std::string& header_sha256() const { return header_sha256_; }
  [[nodiscard]] const SafetensorsMetadata& metadata() const { return header_.metadata; }
  [[nodiscard]] const std::vector<TensorInfo>& tensors() const {
    return header_.tensors;
  }  // by offset

  [[nodiscard]] const TensorInfo* find(std::string_view name) const;  // null where there is none
  [[nodiscard]] const TensorInfo& at(std::string_view name) const;    // throws where there is none

  // Where the bytes of a tensor of this file lie; `destination` must have exactly tensor.bytes().
  [[nodiscard]] ByteRange range_of(const TensorInfo& tensor,
                                   std::span<std::byte> destination) const;

  // Reads one tensor, large ones in parallel.
  void read(const TensorInfo& tensor, std::span<std::byte> destination,
            int threads = kDefaultReadThreads) const;
  // The bytes of a tensor from byte `first` of it on.
  void read_part(const TensorInfo& tensor, std::uint64_t first,
                 std::span<std::byte> destination) const;

 private:
  std::filesystem::path path_;
  OpenedFile file_;
  std::uint64_t data_start_ = 0;
  std::string header_sha256_;
  SafetensorsHeader header_;
  std::vector<std::uint32_t> by_name_;  // indices into header_.tensors
};

}  // namespace lorascale::io
