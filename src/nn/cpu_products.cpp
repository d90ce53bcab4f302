// Tiles of the result stay in registers while the inner dimension goes by: per step a row of the
// right factor is loaded, and each number of the left one meets all of it. Compiled with
// -ffp-contract=fast (see CMakeLists.txt).
#include "nn/cpu_products.hpp"

#include <ATen/Version.h>

#include <string>

namespace lorascale::nn::cpu {
namespace {

struct Sizes {
  std::int64_t rows, inner, columns;
};

template <int kLanes>
struct Vector {
  // Memory is aligned to floats alone.
  typedef float Type __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));
};

// [kRows, kVectors * kLanes] of the result.
template <int kLanes, int kRows, int kVectors>
[[gnu::always_inline]] inline void tile(const LeftFactor& a, const float* b, std::int64_t b_step,
                                        float* c, std::int64_t c_step, std::int64_t inner,
                                        bool add) {
  using V = typename Vector<kLanes>::Type;
  V sums[kRows][kVectors] = {};
  const float* left = a.data;
  for (std::int64_t k = 0; k < inner; ++k, left += a.inner_step, b += b_step) {
    V right[kVectors];
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) {
      right[j] = *reinterpret_cast<const V*>(b + j * kLanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const float factor = left[i * a.row_step];
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; ++j) {
        sums[i][j] += factor * right[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) {
      V* to = reinterpret_cast<V*>(c + i * c_step + j * kLanes);
      *to = add ? *to + sums[i][j] : sums[i][j];
    }
  }
}

// Columns of one tile's width, all rows: in tiles of kRows, what is left in lower ones.
template <int kLanes, int kRows, int kVectors>
[[gnu::always_inline]] inline void strip(LeftFactor a, const float* b, std::int64_t b_step,
                                         float* c, std::int64_t c_step, Sizes sizes, bool add) {
  for (; sizes.rows >= kRows; sizes.rows -= kRows) {
    tile<kLanes, kRows, kVectors>(a, b, b_step, c, c_step, sizes.inner, add);
    a.data += kRows * a.row_step;
    c += kRows * c_step;
  }
  if constexpr (kRows > 1) {
    strip<kLanes, kRows / 2, kVectors>(a, b, b_step, c, c_step, sizes, add);
  }
}

using Product = void(const LeftFactor&, const float*, std::int64_t, float*, std::int64_t,
                     const Sizes&, bool);

#if defined(__x86_64__)
// Of 32 registers, 16 hold sums.
[[gnu::target("avx512f,avx512vl,fma")]] void product_avx512(const LeftFactor& a, const float* b,
                                                            std::int64_t b_step, float* c,
                                                            std::int64_t c_step, const Sizes& sizes,
                                                            bool add) {
  std::int64_t j = 0;
  for (; j + 64 <= sizes.columns; j += 64) {
    strip<16, 4, 4>(a, b + j, b_step, c + j, c_step, sizes, add);
  }
  for (; j + 32 <= sizes.columns; j += 32) {
    strip<16, 8, 2>(a, b + j, b_step, c + j, c_step, sizes, add);
  }
  for (; j + 16 <= sizes.columns; j += 16) {
    strip<16, 12, 1>(a, b + j, b_step, c + j, c_step, sizes, add);
  }
  if (j < sizes.columns) {
    strip<8, 12, 1>(a, b + j, b_step, c + j, c_step, sizes, add);
  }
}

// Of 16 registers, 12 hold sums.
[[gnu::target("avx2,fma")]] void product_avx2(const LeftFactor& a, const float* b,
                                              std::int64_t b_step, float* c, std::int64_t c_step,
                                              const Sizes& sizes, bool add) {
  std::int64_t j = 0;
  for (; j + 16 <= sizes.columns; j += 16) {
    strip<8, 6, 2>(a, b + j, b_step, c + j, c_step, sizes, add);
  }
  if (j < sizes.columns) {
    strip<8, 12, 1>(a, b + j, b_step, c + j, c_step, sizes, add);
  }
}
#endif

void product_plain(const LeftFactor& a, const float* b, std::int64_t b_step, float* c,
                   std::int64_t c_step, const Sizes& sizes, bool add) {
  for (std::int64_t j = 0; j < sizes.columns; j += kFewColumns) {
    strip<4, 4, 2>(a, b + j, b_step, c + j, c_step, sizes, add);
  }
}

// As ATen chooses for its own kernels, ATEN_CPU_CAPABILITY included.
Product* chosen() {
#if defined(__x86_64__)
  const auto capability = at::get_cpu_capability();
  if (capability.starts_with("AVX512")) {
    return product_avx512;
  }
  if (capability == "AVX2") {
    return product_avx2;
  }
#endif
  return product_plain;
}

}  // namespace

void small_product(const LeftFactor& a, const float* b, std::int64_t b_step, float* c,
                   std::int64_t c_step, std::int64_t rows, std::int64_t inner, std::int64_t columns,
                   bool add) {
  static Product* const product = chosen();
  product(a, b, b_step, c, c_step, {rows, inner, columns}, add);
}

}  // namespace lorascale::nn::cpu
