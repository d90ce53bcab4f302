// The JSON header of a safetensors file: parsing an untrusted one with every check of the format,
// in memory that a hostile header cannot inflate, and composing one. Offsets are in bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors_types.hpp"

namespace lorascale::io {

// The limit of the reference implementation; a file may not ask for more.
constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;
// Limits of ours, far above any published file, which bound memory: the largest models have some
// 140,000 tensors over all their shards.
constexpr std::size_t kMaxTensorsPerFile = 500'000;
constexpr std::size_t kMaxMetadataItems = 100'000;
constexpr std::size_t kMaxTensorRank = 64;  // as torch

using SafetensorsMetadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<TensorInfo>
      tensors;  // by offset; they cover the data section without hole or overlap
  SafetensorsMetadata metadata;
};

// `text` is the header without its length field, `data_bytes` the size of all that follows it,
// `where` the file name for messages. Throws Error(kBadInput).
SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                           const std::string& where);

// The header for tensors whose offsets are set, as compact JSON padded with spaces to a multiple
// of 8. Throws Error(kCannotWrite) where it would exceed kMaxSafetensorsHeader.
std::string compose_safetensors_header(const std::vector<TensorInfo>& tensors,
                                       const SafetensorsMetadata& metadata,
                                       const std::string& where);

}  // namespace lorascale::io
