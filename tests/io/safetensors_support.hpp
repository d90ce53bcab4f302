// Safetensors files out of hand-written headers, for the tests of readers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "support.hpp"

namespace lorascale::io {

inline std::string little_endian_length(std::uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(length >> (8 * i) & 0xFF);
  }
  return bytes;
}

inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  return little_endian_length(header.size()) + std::string(header) + std::string(data);
}

// One header entry.
inline std::string entry(const std::string& name, const std::string& dtype,
                         const std::string& shape, const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
         offsets + "}";
}

}  // namespace lorascale::io
