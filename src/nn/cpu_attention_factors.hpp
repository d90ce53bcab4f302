// Scratch of the attention kernels, and the two ways in which its matrices are held and multiplied:
// in fp32, or as pairs of bf16 where the CPU multiplies these. Of cpu_attention.cpp alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>
#include <memory>

#include "nn/cpu_kernels.hpp"
#include "nn/cpu_pair_products.hpp"
#include "nn/cpu_products.hpp"
#include "nn/cpu_rows.hpp"

namespace lorascale::nn::factors {

constexpr std::int64_t kQueries = 32;  // of a block

// Numbers of type T, not set to anything.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(count))) {}
  T* get() { return data_.get(); }

 private:
  std::unique_ptr<T[]> data_;
};

// Rows of a matrix with elements of type T, `step` apart.
template <class T>
struct Rows {
  T* data;
  std::int64_t step;
  [[nodiscard]] T* operator[](std::int64_t row) const { return data + row * step; }
};

inline std::int64_t words(std::int64_t numbers, std::int64_t inner) {
  return (numbers + inner - 1) / inner;
}

// How factors of products stand in scratch, and what a product makes of them. A word holds kInner
// numbers that follow each other along the inner dimension. Both kinds have the same functions.

// fp32, whatever the type T of the model's numbers.
template <class T>
struct Fp32Factors {
  using Element = T;
  using Word = float;
  using Left = cpu::LeftFactor;
  static constexpr std::int64_t kInner = 1;

  // A row of n numbers as words, for a matrix whose inner dimension runs along rows.
  static void along(const T* x, Word* to, std::int64_t n) { widen(x, to, n); }
  // Rows x and y (or none) as one row of words, for one whose inner dimension runs across them.
  static void across(const T* x, const T* /*y*/, Word* to, std::int64_t n) { widen(x, to, n); }

  // Left factors of what a softmax left in fp32 rows: as they stand, and turned.
  explicit Fp32Factors(std::int64_t /*row_step*/) {}
  Left left(const Rows<float>& x, std::int64_t /*rows*/, std::int64_t /*n*/) {
    return {x.data, x.step, 1};
  }
  Left left_turned(const Rows<float>& x, std::int64_t /*rows*/, std::int64_t /*n*/) {
    return {x.data, 1, x.step};
  }
};

// Pairs of bf16 (cpu_pair_products.hpp): twice as fast, and softmax and its gradients are rounded
// to bf16 before they meet values, keys and queries.
struct Bf16Factors {
  using Element = at::BFloat16;
  using Word = std::uint32_t;
  using Left = cpu::LeftPairs;
  static constexpr std::int64_t kInner = 2;

  static void along(const Element* x, Word* to, std::int64_t n) {
    std::memcpy(to, x, static_cast<std::size_t>(n) * sizeof(Element));
  }
  static void across(const Element* x, const Element* y, Word* to, std::int64_t n) {
    cpu::pair_rows(bf16_bits(x), y == nullptr ? nullptr : bf16_bits(y), to, n);
  }

  explicit Bf16Factors(std::int64_t row_step) : words_(kQueries / 2 * row_step) {}
  Left left(const Rows<float>& x, std::int64_t rows, std::int64_t n) {
    for (std::int64_t i = 0; i < rows; ++i) {
      auto* row = reinterpret_cast<std::uint16_t*>(words_.get()) + i * x.step;
      cpu::round_row_with_pairs(x[i], row, (n + 1) / 2 * 2);
    }
    return {words_.get(), x.step / 2, 1};
  }
  Left left_turned(const Rows<float>& x, std::int64_t rows, std::int64_t n) {
    for (std::int64_t i = 0; i < rows; i += 2) {
      cpu::pair_rows(x[i], i + 1 < rows ? x[i + 1] : nullptr, words_.get() + i / 2 * x.step, n);
    }
    return {words_.get(), 1, x.step};
  }

 private:
  Scratch<Word> words_;
};

}  // namespace lorascale::nn::factors
