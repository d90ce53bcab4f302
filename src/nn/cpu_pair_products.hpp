// Products of small bf16 matrices by instructions of AVX512_BF16, which multiply pairs of bf16
// numbers and add them in fp32. A word holds two numbers that follow each other along the inner
// dimension, the first one in the lower half; an odd one is filled up by zero.
#pragma once

#include <cstdint>

namespace lorascale::nn::cpu {

// Whether this CPU has the instructions, ATEN_CPU_CAPABILITY not forbidding them. Nothing else here
// may be called where it has not.
[[nodiscard]] bool has_bf16_pairs();

// A left factor [rows, words]: its word (i, k) is at data[i * row_step + k * inner_step].
struct LeftPairs {
  const std::uint32_t* data;
  std::int64_t row_step, inner_step;
};

// c = a b, or c += a b, in fp32. b: [words, columns], rows `b_step` words apart; c: [rows,
// columns], rows `c_step` apart. columns % kColumns == 0 (cpu_products.hpp). Each element's sum
// runs over the inner dimension in its order, before it is added: the same bits whatever stands
// beside it.
void small_product(const LeftPairs& a, const std::uint32_t* b, std::int64_t b_step, float* c,
                   std::int64_t c_step, std::int64_t rows, std::int64_t words, std::int64_t columns,
                   bool add);

// Two rows of numbers as one of words, both rounded to nearest even; the second one may be null.
// Words [n].
void pair_rows(const float* first, const float* second, std::uint32_t* words, std::int64_t n);
void pair_rows(const std::uint16_t* first, const std::uint16_t* second, std::uint32_t* words,
               std::int64_t n);
// round_row() and widen_row() of cpu_kernels.hpp, two to four times as fast; numbers below the
// normal ones round to zero.
void round_row_with_pairs(const float* x, std::uint16_t* y, std::int64_t n);
void widen_row_with_pairs(const std::uint16_t* x, float* y, std::int64_t n);

}  // namespace lorascale::nn::cpu
