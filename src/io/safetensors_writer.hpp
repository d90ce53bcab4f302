// Writing safetensors files that the reference implementation reads, and orders the same way:
// larger element types first (every tensor is then aligned to its element), names next. Tensor data
// stays where it is: it is streamed out, never copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors_header.hpp"
#include "io/safetensors_types.hpp"

namespace lorascale::io {

struct TensorToWrite {
  std::string name;  // UTF-8, without NUL, not "__metadata__", unique in its file
  Dtype dtype = Dtype::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;  // row-major, little-endian; must outlive the writing
};

// A file as its pieces in order. Refers to the data of its tensors.
struct SafetensorsLayout {
  std::string head;                              // length field and header
  std::vector<std::span<const std::byte>> data;  // after it
  [[nodiscard]] std::uint64_t file_bytes() const;
};

// Checks and orders the tensors. A data size that contradicts dtype and shape, and a name that a
// file cannot hold, are Error(kInternal); `where` opens the message.
SafetensorsLayout lay_out_safetensors(std::span<const TensorToWrite> tensors,
                                      const SafetensorsMetadata& metadata,
                                      const std::string& where);

// Writes durably and atomically: Error(kCannotWrite) leaves an older file of that name untouched.
// Set metadata {"format", "pt"} for files that transformers shall load.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const SafetensorsMetadata& metadata = {});

}  // namespace lorascale::io
