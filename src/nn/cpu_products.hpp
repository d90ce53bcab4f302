// Products of small fp32 matrices that stand in a core's cache, for kernels that make many of them:
// a call of BLAS costs as much as such a product.
#pragma once

#include <cstdint>

namespace lorascale::nn::cpu {

// Columns of a right factor and of a result come in whole multiples of kFewColumns, padded where
// needed; wide ones are best in multiples of kColumns.
constexpr std::int64_t kFewColumns = 8, kColumns = 16;
constexpr std::int64_t padded(std::int64_t columns, std::int64_t multiple = kColumns) {
  return (columns + multiple - 1) / multiple * multiple;
}

// A left factor [rows, inner]: its element (i, k) is at data[i * row_step + k * inner_step], so
// that a matrix can be turned where it stands.
struct LeftFactor {
  const float* data;
  std::int64_t row_step, inner_step;
};

// c = a b, or c += a b. b: [inner, columns], rows `b_step` apart; c: [rows, columns], rows `c_step`
// apart. columns % kFewColumns == 0. Each element's sum runs over the inner dimension in its order,
// in fused multiply-adds where the CPU has them, before it is added: the same bits whatever stands
// beside it.
void small_product(const LeftFactor& a, const float* b, std::int64_t b_step, float* c,
                   std::int64_t c_step, std::int64_t rows, std::int64_t inner, std::int64_t columns,
                   bool add);

}  // namespace lorascale::nn::cpu
