#include "nn/cpu_pair_products.hpp"

#include <ATen/Version.h>

#include "base/error.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define LS_BF16_PAIRS [[gnu::target("avx512f,avx512bw,avx512vl,avx512bf16")]]
#endif

namespace lorascale::nn::cpu {

#if defined(__x86_64__)
namespace {

constexpr std::int64_t kLanes = 16;

// [kRows, kVectors * kLanes] of the result, in registers while the inner dimension goes by.
template <int kRows, int kVectors>
LS_BF16_PAIRS inline void pair_tile(const LeftPairs& a, const std::uint32_t* b, std::int64_t b_step,
                                    float* c, std::int64_t c_step, std::int64_t words, bool add) {
  __m512 sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      sums[i][j] = _mm512_setzero_ps();
    }
  }
  const std::uint32_t* left = a.data;
  for (std::int64_t k = 0; k < words; ++k, left += a.inner_step, b += b_step) {
    __m512bh right[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      right[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + j * kLanes));
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const auto word = _mm512_set1_epi32(static_cast<int>(left[i * a.row_step]));
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) {
        sums[i][j] = _mm512_dpbf16_ps(sums[i][j], right[j], reinterpret_cast<__m512bh>(word));
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      float* to = c + i * c_step + j * kLanes;
      _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), sums[i][j]) : sums[i][j]);
    }
  }
}

// Columns of one tile's width, all rows.
template <int kVectors>
LS_BF16_PAIRS void pair_strip(LeftPairs a, const std::uint32_t* b, std::int64_t b_step, float* c,
                              std::int64_t c_step, std::int64_t rows, std::int64_t words,
                              bool add) {
  constexpr int kRows = 4;
  for (; rows >= kRows; rows -= kRows, a.data += kRows * a.row_step, c += kRows * c_step) {
    pair_tile<kRows, kVectors>(a, b, b_step, c, c_step, words, add);
  }
  for (; rows > 0; --rows, a.data += a.row_step, c += c_step) {
    pair_tile<1, kVectors>(a, b, b_step, c, c_step, words, add);
  }
}

// Of the first n.
__mmask16 lanes(std::int64_t n) {
  return static_cast<__mmask16>(n >= kLanes ? 0xFFFF : (1 << n) - 1);
}

LS_BF16_PAIRS inline __m512i joined(__m256i low, __m256i high) {
  constexpr __mmask16 kAll = 0xFFFF;
  return _mm512_or_si512(
      _mm512_maskz_cvtepu16_epi32(kAll, low),
      _mm512_maskz_slli_epi32(kAll, _mm512_maskz_cvtepu16_epi32(kAll, high), 16));
}

}  // namespace

bool has_bf16_pairs() {
  static const bool has =
      at::get_cpu_capability().starts_with("AVX512") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
  return has;
}

void small_product(const LeftPairs& a, const std::uint32_t* b, std::int64_t b_step, float* c,
                   std::int64_t c_step, std::int64_t rows, std::int64_t words, std::int64_t columns,
                   bool add) {
  std::int64_t j = 0;
  for (; j + 64 <= columns; j += 64) {
    pair_strip<4>(a, b + j, b_step, c + j, c_step, rows, words, add);
  }
  for (; j + 32 <= columns; j += 32) {
    pair_strip<2>(a, b + j, b_step, c + j, c_step, rows, words, add);
  }
  for (; j < columns; j += 16) {
    pair_strip<1>(a, b + j, b_step, c + j, c_step, rows, words, add);
  }
}

LS_BF16_PAIRS void pair_rows(const float* first, const float* second, std::uint32_t* words,
                             std::int64_t n) {
  const float* other = second != nullptr ? second : first;
  for (std::int64_t j = 0; j < n; j += kLanes) {
    const auto mask = lanes(n - j);
    const auto other_mask = second != nullptr ? mask : __mmask16{0};
    const __m512 low = _mm512_maskz_loadu_ps(mask, first + j);
    const __m512 high = _mm512_maskz_loadu_ps(other_mask, other + j);
    const auto pairs = joined(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(low)),
                              reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(high)));
    _mm512_mask_storeu_epi32(words + j, mask, pairs);
  }
}

LS_BF16_PAIRS void pair_rows(const std::uint16_t* first, const std::uint16_t* second,
                             std::uint32_t* words, std::int64_t n) {
  const std::uint16_t* other = second != nullptr ? second : first;
  for (std::int64_t j = 0; j < n; j += kLanes) {
    const auto mask = lanes(n - j);
    const auto other_mask = second != nullptr ? mask : __mmask16{0};
    const auto pairs = joined(_mm256_maskz_loadu_epi16(mask, first + j),
                              _mm256_maskz_loadu_epi16(other_mask, other + j));
    _mm512_mask_storeu_epi32(words + j, mask, pairs);
  }
}

LS_BF16_PAIRS void round_row_with_pairs(const float* x, std::uint16_t* y, std::int64_t n) {
  for (std::int64_t j = 0; j < n; j += kLanes) {
    const auto mask = lanes(n - j);
    const auto bits = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + j));
    _mm256_mask_storeu_epi16(y + j, mask, reinterpret_cast<__m256i>(bits));
  }
}

LS_BF16_PAIRS void widen_row_with_pairs(const std::uint16_t* x, float* y, std::int64_t n) {
  for (std::int64_t j = 0; j < n; j += kLanes) {
    const auto mask = lanes(n - j);
    const __m512i wide = _mm512_maskz_cvtepu16_epi32(mask, _mm256_maskz_loadu_epi16(mask, x + j));
    _mm512_mask_storeu_epi32(y + j, mask, _mm512_maskz_slli_epi32(mask, wide, 16));
  }
}

#else

bool has_bf16_pairs() {
  return false;
}

void small_product(const LeftPairs& /*a*/, const std::uint32_t* /*b*/, std::int64_t /*b_step*/,
                   float* /*c*/, std::int64_t /*c_step*/, std::int64_t /*rows*/,
                   std::int64_t /*words*/, std::int64_t /*columns*/, bool /*add*/) {
  LS_ASSERT(has_bf16_pairs());
}
void pair_rows(const float* /*first*/, const float* /*second*/, std::uint32_t* /*words*/,
               std::int64_t /*n*/) {
  LS_ASSERT(has_bf16_pairs());
}
void pair_rows(const std::uint16_t* /*first*/, const std::uint16_t* /*second*/,
               std::uint32_t* /*words*/, std::int64_t /*n*/) {
  LS_ASSERT(has_bf16_pairs());
}
void round_row_with_pairs(const float* /*x*/, std::uint16_t* /*y*/, std::int64_t /*n*/) {
  LS_ASSERT(has_bf16_pairs());
}
void widen_row_with_pairs(const std::uint16_t* /*x*/, float* /*y*/, std::int64_t /*n*/) {
  LS_ASSERT(has_bf16_pairs());
}

#endif

}  // namespace lorascale::nn::cpu
