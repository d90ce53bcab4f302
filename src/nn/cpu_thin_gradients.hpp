// Gradients of low-rank factors: sums over tokens of products of a wide row and a thin one. BLAS is
// at its worst at those in fp32 (a third of its rate on some CPUs). In bf16 libraries multiply
// matrices into 16-bit ones, or want them widened to fp32 first; CPUs with AVX512_BF16 multiply
// pairs of bf16 numbers and add them in fp32.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace lorascale::nn::cpu {

// [tokens, width], rows `row_step` elements apart.
template <class T>
struct TokenRows {
  const T* data;
  std::int64_t row_step, width;
};

// Where the result goes: that of wide column w and thin column r is at
// data[w * wide_step + r * thin_step].
struct ThinGradient {
  float* data;
  std::int64_t wide_step, thin_step;
};

// out += scale * wide' thin, formed and added up in fp32, along tokens in their order: the same
// bits for any number of threads. In bf16 for CPUs with has_bf16_pairs() (cpu_pair_products.hpp).
void add_thin_gradient(const TokenRows<float>& wide, const TokenRows<float>& thin,
                       std::int64_t tokens, float scale, const ThinGradient& out);
void add_thin_gradient(const TokenRows<c10::BFloat16>& wide, const TokenRows<c10::BFloat16>& thin,
                       std::int64_t tokens, float scale, const ThinGradient& out);

}  // namespace lorascale::nn::cpu
