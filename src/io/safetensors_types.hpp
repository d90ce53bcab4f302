// What a safetensors file speaks of: element types and tensor descriptions. Elements are
// little-endian and row-major. Source: format section of huggingface/safetensors README, and its
// Rust reader.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorascale::io {

// In the order of the reference implementation, which sorts tensors by it when it writes.
enum class Dtype : std::uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

constexpr int kDtypeCount = static_cast<int>(Dtype::kU64) + 1;

std::string_view dtype_name(Dtype dtype);                     // "BF16", as files spell it
std::optional<Dtype> dtype_from_name(std::string_view name);  // exact spelling
int dtype_bits(Dtype dtype);                                  // per element
inline bool has_whole_bytes(Dtype dtype) {
  return dtype_bits(dtype) % 8 == 0;
}  // all that torch can hold

// product(shape); empty where it overflows 64 bits or a size is negative.
std::optional<std::uint64_t> element_count(const std::vector<std::int64_t>& shape);

// The bytes of a tensor; empty where they overflow or would end within a byte.
std::optional<std::uint64_t> tensor_bytes(Dtype dtype, const std::vector<std::int64_t>& shape);

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<std::int64_t> shape;  // empty for a scalar; sizes may be 0
  std::uint64_t begin = 0;          // bytes from the start of the data section
  std::uint64_t end = 0;

  [[nodiscard]] std::uint64_t bytes() const { return end - begin; }
};

}  // namespace lorascale::io
