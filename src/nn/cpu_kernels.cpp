// Compiled with -ffp-contract=fast and -fno-trapping-math (see CMakeLists.txt), which lets the
// loops vectorise.
#include "nn/cpu_kernels.hpp"

#include <math.h>

#include <algorithm>
#include <bit>
#include <limits>

// One binary runs on every x86-64 and uses the widest vectors there are. Sanitizers instrument the
// resolver before their run time is up, hence not there.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LS_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LS_VECTOR_CLONES
#endif

namespace lorascale::nn::cpu {
namespace {

// Sums keep sixteen partial sums in a fixed order: fast without leave to reorder, and the same on
// every machine.
constexpr std::int64_t kLanes = 16;

// The bits of x in bf16, rounded to nearest even; NaN stays NaN.
inline std::uint32_t bf16_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return is_nan ? (bits >> 16) | 0x40U : rounded;
}

// exp(x) within 3 ulp, in arithmetic that loops vectorise: 0 below -87.33, infinite above 88.37,
// NaN for NaN. x = n ln 2 + r with |r| <= ln 2 / 2, of which the series up to r^7 / 7! is exp(r) to
// 6e-9.
inline float exp_of(float x) {
  constexpr float kLowest = -87.33F, kHighest = 88.37F;
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;  // n times the first is exact
  constexpr float kRounds = 12582912.0F;  // 1.5 * 2^23: added, it leaves n in the lowest bits
  const float shifted = x * kLog2E + kRounds;
  const float n = shifted - kRounds;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float sum = 1.0F / 5040;
  sum = sum * r + 1.0F / 720;
  sum = sum * r + 1.0F / 120;
  sum = sum * r + 1.0F / 24;
  sum = sum * r + 1.0F / 6;
  sum = sum * r + 0.5F;
  sum = sum * r + 1.0F;
  sum = sum * r + 1.0F;
  const float power =
      std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) << 23) + 0x3F800000U);
  const float value = sum * power;
  return x < kLowest ? 0.0F : x > kHighest ? std::numeric_limits<float>::infinity() : value;
}

inline float lane_total(const float (&lanes)[kLanes]) {
  float total = 0;
  for (const float lane : lanes) {
    total += lane;
  }
  return total;
}

}  // namespace

LS_VECTOR_CLONES
void widen_row(const std::uint16_t* __restrict x, float* __restrict y, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) {
    y[j] = std::bit_cast<float>(static_cast<std::uint32_t>(x[j]) << 16);
  }
}

LS_VECTOR_CLONES
void round_row(const float* __restrict x, std::uint16_t* __restrict y, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) {
    y[j] = static_cast<std::uint16_t>(bf16_bits(x[j]));
  }
}

LS_VECTOR_CLONES
float rms_norm_rstd(const float* __restrict x, std::int64_t d, float eps) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      lanes[j] += x[i + j] * x[i + j];
    }
  }
  for (; i < d; ++i) {
    lanes[i % kLanes] += x[i] * x[i];
  }
  return 1.0F / sqrtf(lane_total(lanes) / static_cast<float>(d) + eps);
}

LS_VECTOR_CLONES
void rms_norm_apply_row(const float* __restrict x, const float* __restrict w, float rstd,
                        float* __restrict y, std::int64_t d) {
  for (std::int64_t j = 0; j < d; ++j) {
    y[j] = w[j] * (x[j] * rstd);
  }
}

LS_VECTOR_CLONES
void rms_norm_apply_bf16_row(const float* __restrict x, const float* __restrict w, float rstd,
                             float* __restrict y, std::int64_t d) {
  for (std::int64_t j = 0; j < d; ++j) {
    y[j] = w[j] * std::bit_cast<float>(bf16_bits(x[j] * rstd) << 16);
  }
}

LS_VECTOR_CLONES
void rms_norm_backward_row(const float* __restrict dy, const float* __restrict x,
                           const float* __restrict w, float rstd, float* __restrict dx,
                           float* __restrict dw, std::int64_t d) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      lanes[j] += dy[i + j] * w[i + j] * x[i + j];
    }
  }
  for (; i < d; ++i) {
    lanes[i % kLanes] += dy[i] * w[i] * x[i];
  }
  const float projection = lane_total(lanes) * rstd * rstd * rstd / static_cast<float>(d);
  for (std::int64_t j = 0; j < d; ++j) {
    dx[j] += w[j] * dy[j] * rstd - x[j] * projection;
  }
  if (dw != nullptr) {
    for (std::int64_t j = 0; j < d; ++j) {
      dw[j] += dy[j] * x[j] * rstd;
    }
  }
}

LS_VECTOR_CLONES
void rope_row(float* __restrict x, const float* __restrict cos, const float* __restrict sin,
              float sign, std::int64_t d) {
  const std::int64_t half = d / 2;
  for (std::int64_t j = 0; j < half; ++j) {
    const float first = x[j];
    const float second = x[half + j];
    x[j] = first * cos[j] - second * (sign * sin[j]);
    x[half + j] = second * cos[j] + first * (sign * sin[j]);
  }
}

LS_VECTOR_CLONES
void swiglu_row(const float* __restrict gate_up, float* __restrict y, std::int64_t d) {
  const float* up = gate_up + d;
  for (std::int64_t j = 0; j < d; ++j) {
    y[j] = gate_up[j] / (1.0F + exp_of(-gate_up[j])) * up[j];
  }
}

LS_VECTOR_CLONES
void swiglu_backward_row(const float* __restrict dy, float* __restrict gate_up, std::int64_t d) {
  float* up = gate_up + d;
  for (std::int64_t j = 0; j < d; ++j) {
    const float gate = gate_up[j];
    const float sigmoid = 1.0F / (1.0F + exp_of(-gate));
    const float silu = gate * sigmoid;
    gate_up[j] = dy[j] * up[j] * (sigmoid + silu * (1.0F - sigmoid));
    up[j] = dy[j] * silu;
  }
}

namespace {

LS_VECTOR_CLONES
float row_max(const float* x, std::int64_t n) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -std::numeric_limits<float>::infinity());
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
    }
  }
  float largest = *std::max_element(lanes, lanes + kLanes);
  for (; i < n; ++i) {
    largest = std::max(largest, x[i]);
  }
  return largest;
}

// Adds x to the partial sums; x begins at a multiple of kLanes of its row.
LS_VECTOR_CLONES
void add_to_lanes(const float* __restrict x, std::int64_t n, float (&lanes)[kLanes]) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      lanes[j] += x[i + j];
    }
  }
  for (; i < n; ++i) {
    lanes[i % kLanes] += x[i];
  }
}

// y = exp(scale x - shift), element by element; y may be x.
LS_VECTOR_CLONES
void row_exp(const float* x, float* y, float scale, float shift, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t j = 0; j < n; ++j) {
    y[j] = exp_of(scale * x[j] - shift);
  }
}

// Sum of exp(scale x - shift). The terms go to y, which may be x, or where y is null nowhere.
float row_exp_sum(const float* x, float* y, float scale, float shift, std::int64_t n) {
  constexpr std::int64_t kBlock = 32 * kLanes;  // stays in the first-level cache
  float unused[kBlock];
  float lanes[kLanes] = {};
  for (std::int64_t i = 0; i < n; i += kBlock) {
    const auto count = std::min(kBlock, n - i);
    float* terms = y != nullptr ? y + i : unused;
    row_exp(x + i, terms, scale, shift, count);
    add_to_lanes(terms, count, lanes);
  }
  return lane_total(lanes);
}

LS_VECTOR_CLONES
void row_shift(float* x, float amount, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) {
    x[j] += amount;
  }
}

// In blocks whose fp32 sums are added up in fp64: a vocabulary is too long for fp32 alone.
double row_mean(const float* x, std::int64_t n) {
  constexpr std::int64_t kBlock = 32 * kLanes;
  double sum = 0;
  for (std::int64_t i = 0; i < n; i += kBlock) {
    float lanes[kLanes] = {};
    add_to_lanes(x + i, std::min(kBlock, n - i), lanes);
    sum += double{lane_total(lanes)};
  }
  return sum / static_cast<double>(n);
}

// sum_c y[c] (logits[c] - shift)
double expected_logit(const float* logits, std::int64_t label, std::int64_t vocabulary, float shift,
                      double smoothing) {
  const double target = double{logits[label]} - double{shift};
  if (smoothing == 0) {
    return target;
  }
  return (1 - smoothing) * target + smoothing * (row_mean(logits, vocabulary) - double{shift});
}

}  // namespace

double cross_entropy_backward_row(float* logits, std::int64_t label, std::int64_t vocabulary,
                                  double smoothing) {
  const float shift = row_max(logits, vocabulary);
  const double expected = expected_logit(logits, label, vocabulary, shift, smoothing);
  const float total = row_exp_sum(logits, logits, 1, shift, vocabulary);
  scale_row(logits, 1.0F / total, vocabulary);
  if (smoothing > 0) {
    row_shift(logits, static_cast<float>(-smoothing / static_cast<double>(vocabulary)), vocabulary);
  }
  logits[label] -= static_cast<float>(1 - smoothing);
  return ::log(double{total}) - expected;
}

double cross_entropy_row(const float* logits, std::int64_t label, std::int64_t vocabulary,
                         double smoothing) {
  const float shift = row_max(logits, vocabulary);
  const float total = row_exp_sum(logits, nullptr, 1, shift, vocabulary);
  return ::log(double{total}) - expected_logit(logits, label, vocabulary, shift, smoothing);
}

LS_VECTOR_CLONES
void scale_row(float* x, float factor, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) {
    x[j] *= factor;
  }
}

LS_VECTOR_CLONES
float dot_row(const float* __restrict x, const float* __restrict y, std::int64_t n) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      lanes[j] += x[i + j] * y[i + j];
    }
  }
  for (; i < n; ++i) {
    lanes[i % kLanes] += x[i] * y[i];
  }
  return lane_total(lanes);
}

SoftmaxSum softmax_row(float* x, float scale, std::int64_t n) {
  const float shift = scale * row_max(x, n);
  const float total = row_exp_sum(x, x, scale, shift, n);
  return {shift + ::logf(total), 1.0F / total};
}

LS_VECTOR_CLONES
void softmax_backward_row(float* __restrict x, float* __restrict dy, float scale, float log_sum,
                          float mean, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) {
    x[j] = exp_of(scale * x[j] - log_sum);
    dy[j] = x[j] * (dy[j] - mean);
  }
}

}  // namespace lorascale::nn::cpu
