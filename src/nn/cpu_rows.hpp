// Rows of fp32 and bf16 matrices for the kernels of cpu_kernels.hpp, which compute in fp32. fp32
// rows are used where they stand; those of bf16 are widened into a buffer that stays in a core's
// cache, and rounded once, to nearest even, when they are put back.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "nn/cpu_kernels.hpp"
#include "nn/cpu_pair_products.hpp"

namespace lorascale::nn {

// True where the fused CPU kernels apply to a matrix; everything else (CUDA, fp16, fp64, rows in
// pieces) goes through ATen's operators.
inline bool has_cpu_kernels(const at::Tensor& x) {
  const auto type = x.scalar_type();
  return x.is_cpu() && (type == at::kFloat || type == at::kBFloat16) && x.stride(1) == 1;
}

// work.operator()<T>() with the C++ type of a tensor for which has_cpu_kernels().
template <class Work>
void with_element_type(const at::Tensor& x, Work&& work) {
  if (x.scalar_type() == at::kFloat) {
    work.template operator()<float>();
  } else {
    work.template operator()<at::BFloat16>();
  }
}

inline const std::uint16_t* bf16_bits(const at::BFloat16* x) {
  return reinterpret_cast<const std::uint16_t*>(x);
}

// Numbers of a row to fp32 and back, by the fastest instructions that there are.
inline void widen(const float* x, float* y, std::int64_t n) {
  std::copy(x, x + n, y);
}
inline void widen(const at::BFloat16* x, float* y, std::int64_t n) {
  (cpu::has_bf16_pairs() ? cpu::widen_row_with_pairs : cpu::widen_row)(bf16_bits(x), y, n);
}
inline void narrow(const float* x, float* y, std::int64_t n) {
  std::copy(x, x + n, y);
}
inline void narrow(const float* x, at::BFloat16* y, std::int64_t n) {
  (cpu::has_bf16_pairs() ? cpu::round_row_with_pairs : cpu::round_row)(
      x, reinterpret_cast<std::uint16_t*>(y), n);
}

// One row at a time, of at most `width` elements of type T. Not for several threads.
template <class T>
class Row;

template <>
class Row<float> {
 public:
  explicit Row(std::int64_t /*width*/) {}
  const float* read(const float* row, std::int64_t /*count*/) { return row; }
  // Where the row's new values go; put() once they are there.
  float* write(float* row, std::int64_t /*count*/) { return row; }
  // write() with the values that there are.
  float* update(float* row, std::int64_t /*count*/) { return row; }
  void put() {}
};

template <>
class Row<at::BFloat16> {
 public:
  explicit Row(std::int64_t width) : buffer_(static_cast<std::size_t>(width)) {}
  const float* read(const at::BFloat16* row, std::int64_t count) {
    widen(row, buffer_.data(), count);
    return buffer_.data();
  }
  float* write(at::BFloat16* row, std::int64_t count) {
    target_ = row;
    count_ = count;
    return buffer_.data();
  }
  float* update(at::BFloat16* row, std::int64_t count) {
    widen(row, buffer_.data(), count);
    return write(row, count);
  }
  void put() { narrow(buffer_.data(), target_, count_); }

 private:
  std::vector<float> buffer_;
  at::BFloat16* target_ = nullptr;
  std::int64_t count_ = 0;
};

}  // namespace lorascale::nn
