#include "nn/cpu_thin_gradients.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "base/error.hpp"
#include "nn/cpu_pair_products.hpp"
#include "nn/cpu_products.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lorascale::nn::cpu {
namespace {

constexpr std::int64_t kFp32Strip = 64;   // columns of the wide factor that are copied at a time,
constexpr std::int64_t kFp32Tokens = 96;  // of so many rows: they stay in the first-level cache

// Columns of the wide factor [tokens, columns], rows kFp32Strip apart, filled up by zeros.
void copy_strip(const float* wide, std::int64_t row_step, std::int64_t tokens, std::int64_t columns,
                float* strip) {
  for (std::int64_t token = 0; token < tokens; ++token, wide += row_step, strip += kFp32Strip) {
    // The next strip: rows stand too far apart for the CPU to see that it comes.
    for (std::int64_t ahead = 0; ahead < kFp32Strip; ahead += 64 / sizeof(float)) {
      __builtin_prefetch(wide + kFp32Strip + ahead, 0, 2);
    }
    std::copy(wide, wide + columns, strip);
    std::fill(strip + columns, strip + padded(columns), 0.0F);
  }
}

}  // namespace

void add_thin_gradient(const TokenRows<float>& wide, const TokenRows<float>& thin,
                       std::int64_t tokens, float scale, const ThinGradient& out) {
  const auto strips = (wide.width + kFp32Strip - 1) / kFp32Strip;
  at::parallel_for(0, strips, 2, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> strip(kFp32Tokens * kFp32Strip);
    std::vector<float> sums(static_cast<std::size_t>((end - begin) * thin.width * kFp32Strip));
    const auto sums_of = [&](std::int64_t of) {
      return sums.data() + (of - begin) * thin.width * kFp32Strip;
    };
    const auto columns_of = [&](std::int64_t of) {
      return std::min(kFp32Strip, wide.width - of * kFp32Strip);
    };
    for (std::int64_t token = 0; token < tokens; token += kFp32Tokens) {
      const auto some = std::min(kFp32Tokens, tokens - token);
      for (auto of = begin; of < end; ++of) {
        copy_strip(wide.data + token * wide.row_step + of * kFp32Strip, wide.row_step, some,
                   columns_of(of), strip.data());
        small_product({thin.data + token * thin.row_step, 1, thin.row_step}, strip.data(),
                      kFp32Strip, sums_of(of), kFp32Strip, thin.width, some, padded(columns_of(of)),
                      true);
      }
    }
    for (auto of = begin; of < end; ++of) {
      for (std::int64_t rank = 0; rank < thin.width; ++rank) {
        const float* row = sums_of(of) + rank * kFp32Strip;
        float* to = out.data + of * kFp32Strip * out.wide_step + rank * out.thin_step;
        for (std::int64_t j = 0; j < columns_of(of); ++j) {
          to[j * out.wide_step] += scale * row[j];
        }
      }
    }
  });
}

#if defined(__x86_64__)
namespace {

constexpr std::int64_t kStrip = 32;  // columns of the wide factor in a register
constexpr std::int64_t kRanks = 8;   // columns of the thin one; sums of both in 16 registers
constexpr std::int64_t kTile = kStrip * kRanks;
constexpr std::int64_t kTokensAtATime = 128;  // their wide rows stay in a core's cache

// The thin factor, two tokens in a word: [pairs, ranks], ranks and an odd token filled up by zeros.
struct Pairs {
  std::vector<std::uint32_t> words;
  std::int64_t ranks;

  Pairs(const TokenRows<c10::BFloat16>& thin, std::int64_t tokens)
      : words(static_cast<std::size_t>((tokens + 1) / 2 *
                                       ((thin.width + kRanks - 1) / kRanks * kRanks))),
        ranks((thin.width + kRanks - 1) / kRanks * kRanks) {
    for (std::int64_t token = 0; token < tokens; ++token) {
      for (std::int64_t rank = 0; rank < thin.width; ++rank) {
        words[static_cast<std::size_t>(token / 2 * ranks + rank)] |=
            std::uint32_t{thin.data[token * thin.row_step + rank].x} << (token % 2 * 16);
      }
    }
  }
  [[nodiscard]] const std::uint32_t* at(std::int64_t token, std::int64_t rank) const {
    return words.data() + token / 2 * ranks + rank;
  }
};

// sums [kRanks, kStrip] += what `tokens` give, from an even one on. Columns of a strip stand in the
// order in which pairs come out of registers: see column_of().
[[gnu::target("avx512f,avx512bw,avx512vl,avx512bf16")]] void add_tile(
    const c10::BFloat16* wide, std::int64_t step, std::int64_t columns, const std::uint32_t* thin,
    std::int64_t thin_step, std::int64_t tokens, float* sums) {
  const __mmask32 mask =
      columns >= kStrip ? ~__mmask32{0} : static_cast<__mmask32>((std::uint32_t{1} << columns) - 1);
  __m512 low[kRanks];
  __m512 high[kRanks];
#pragma GCC unroll 8
  for (int r = 0; r < kRanks; ++r) {
    low[r] = _mm512_loadu_ps(sums + r * kStrip);
    high[r] = _mm512_loadu_ps(sums + r * kStrip + 16);
  }
  for (std::int64_t token = 0; token < tokens; token += 2, wide += 2 * step, thin += thin_step) {
    const __m512i first = _mm512_maskz_loadu_epi16(mask, wide);
    const __m512i second =
        token + 1 < tokens ? _mm512_maskz_loadu_epi16(mask, wide + step) : _mm512_setzero_si512();
    const auto pairs_low = reinterpret_cast<__m512bh>(_mm512_unpacklo_epi16(first, second));
    const auto pairs_high = reinterpret_cast<__m512bh>(_mm512_unpackhi_epi16(first, second));
#pragma GCC unroll 8
    for (int r = 0; r < kRanks; ++r) {
      const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(thin[r])));
      low[r] = _mm512_dpbf16_ps(low[r], pairs_low, factor);
      high[r] = _mm512_dpbf16_ps(high[r], pairs_high, factor);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRanks; ++r) {
    _mm512_storeu_ps(sums + r * kStrip, low[r]);
    _mm512_storeu_ps(sums + r * kStrip + 16, high[r]);
  }
}

// Which column of a strip a sum is of: unpacking takes the lower and the upper half of each eight.
constexpr std::int64_t column_of(std::int64_t place) {
  return place % 16 / 4 * 8 + place % 4 + (place < 16 ? 0 : 4);
}

}  // namespace

void add_thin_gradient(const TokenRows<c10::BFloat16>& wide, const TokenRows<c10::BFloat16>& thin,
                       std::int64_t tokens, float scale, const ThinGradient& out) {
  const Pairs pairs(thin, tokens);
  const auto strips = (wide.width + kStrip - 1) / kStrip;
  const auto tiles = pairs.ranks / kRanks;  // of a strip
  at::parallel_for(0, strips, 4, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> sums(static_cast<std::size_t>((end - begin) * tiles * kTile));
    for (std::int64_t first = 0; first < tokens; first += kTokensAtATime) {
      const auto some = std::min(kTokensAtATime, tokens - first);
      for (auto strip = begin; strip < end; ++strip) {
        const auto column = strip * kStrip;
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
          add_tile(wide.data + first * wide.row_step + column, wide.row_step, wide.width - column,
                   pairs.at(first, tile * kRanks), pairs.ranks, some,
                   sums.data() + ((strip - begin) * tiles + tile) * kTile);
        }
      }
    }
    for (auto strip = begin; strip < end; ++strip) {
      for (std::int64_t rank = 0; rank < thin.width; ++rank) {
        const float* row = sums.data() + ((strip - begin) * tiles + rank / kRanks) * kTile +
                           rank % kRanks * kStrip;
        for (std::int64_t place = 0; place < kStrip; ++place) {
          const auto column = strip * kStrip + column_of(place);
          if (column < wide.width) {
            out.data[column * out.wide_step + rank * out.thin_step] += scale * row[place];
          }
        }
      }
    }
  });
}

#else

void add_thin_gradient(const TokenRows<c10::BFloat16>& /*wide*/,
                       const TokenRows<c10::BFloat16>& /*thin*/, std::int64_t /*tokens*/,
                       float /*scale*/, const ThinGradient& /*out*/) {
  LS_ASSERT(has_bf16_pairs());
}

#endif

}  // namespace lorascale::nn::cpu
