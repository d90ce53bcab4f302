// What the layers have in common: types of sums, shares of threads, products that add up in fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "nn/cpu_pair_products.hpp"

namespace lorascale::nn {

// Where the CPU does not multiply bf16, libraries widen it number by number, at best: a weight that
// is widened once a product is many times faster.
inline bool is_slow_in_its_type(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 && !cpu::has_bf16_pairs();
}
inline at::Tensor fp32(const at::Tensor& x) {
  return x.defined() ? x.to(at::kFloat) : x;
}

// The type that numbers of x's type are added up in: fp32, unless they are wider.
inline at::ScalarType sum_type(const at::Tensor& x) {
  return x.element_size() < 4 ? at::kFloat : x.scalar_type();
}

// Rows that are worth handing to a thread: about 32K elements.
inline std::int64_t row_grain(std::int64_t width) {
  return std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, width));
}

// A factor with no more columns is thin, as LoRA's are: libraries are slow at its products.
constexpr std::int64_t kThin = 64;

// target (fp32; fp64 in tests) += scale * a b, with a and b in the model's type: [m, tokens] and
// [tokens, n]. The product of 16-bit factors is formed and added in fp32, never rounded to 16 bits
// in between: a leaf's share of a small gradient would be lost to it. On CPUs the sum runs over
// tokens in pieces of a fixed size, in their order.
void accumulate_product(const at::Tensor& target, const at::Tensor& a, const at::Tensor& b,
                        double scale = 1.0);

}  // namespace lorascale::nn
