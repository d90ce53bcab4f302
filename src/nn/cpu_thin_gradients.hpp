// Gradients of low-rank factors in bf16: sums over tokens of products of a wide row and a thin one.
// Libraries multiply 16-bit matrices into 16-bit ones, or want them widened to fp32 first; CPUs
// with AVX512_BF16 multiply pairs of bf16 numbers and add them in fp32.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace lorascale::nn::cpu {

// [tokens, width], rows `row_step` elements apart.
struct Bf16Rows {
  const c10::BFloat16* data;
  std::int64_t row_step, width;
};

// Where the result goes: that of wide column w and thin column r is at
// data[w * wide_step + r * thin_step].
struct ThinGradient {
  float* data;
  std::int64_t wide_step, thin_step;
};

// out += scale * wide' thin, formed and added up in fp32, along tokens in their order: the same
// bits for any number of threads.
void add_thin_gradient(const Bf16Rows& wide, const Bf16Rows& thin, std::int64_t tokens, float scale,
                       const ThinGradient& out);

}  // namespace lorascale::nn::cpu
