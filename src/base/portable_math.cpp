#include "base/portable_math.hpp"

#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.hpp"

namespace lorascale {
namespace {

// ln 2 in two parts: the first has 21 trailing zero bits, so that small integers times it are
// exact.
constexpr double kLn2High = 0x1.62e42fee00000p-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

}  // namespace

double cos_pi(double x) {
  LS_ASSERT(x >= 0 && x <= 1);
  if (x > 0.5) {
    return -cos_pi(1 - x);  // 1 - x is exact here
  }
  // Taylor series, nested; at most pi / 4 enters them, so nine terms leave less than 1e-17.
  constexpr int kTerms = 9;
  double sum = 1;
  if (x <= 0.25) {
    const double t = std::numbers::pi * x;
    for (int i = kTerms; i >= 1; --i) {
      sum = 1 - t * t / ((2 * i - 1) * (2 * i)) * sum;
    }
    return sum;
  }
  const double t = std::numbers::pi * (0.5 - x);
  for (int i = kTerms; i >= 1; --i) {
    sum = 1 - t * t / ((2 * i) * (2 * i + 1)) * sum;
  }
  return t * sum;
}

double natural_log(double x) {
  LS_ASSERT(x > 0 && std::isfinite(x));
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);
  if (mantissa < 1 / std::numbers::sqrt2) {
    mantissa *= 2;
    --exponent;
  }
  // ln m = 2 atanh s with |s| <= 0.172: twelve terms leave less than 1e-19.
  constexpr int kTerms = 12;
  const double s = (mantissa - 1) / (mantissa + 1);
  const double z = s * s;
  double sum = 0;
  for (int i = kTerms; i >= 0; --i) {
    sum = sum * z + 1.0 / (2 * i + 1);
  }
  return exponent * kLn2High + (exponent * kLn2Low + 2 * s * sum);
}

double exponential(double x) {
  if (std::isnan(x)) {
    return x;
  }
  constexpr double kOverflow = 709.78;
  constexpr double kUnderflow = -745.13;
  if (x > kOverflow) {
    return std::numeric_limits<double>::infinity();
  }
  if (x < kUnderflow) {
    return 0;
  }
  const double n = std::floor(x / std::numbers::ln2 + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  constexpr int kTerms = 15;
  double sum = 1;
  for (int i = kTerms; i >= 1; --i) {
    sum = 1 + r / i * sum;
  }
  return std::ldexp(sum, static_cast<int>(n));
}

double power(double x, double exponent) {
  LS_ASSERT(x > 0);
  if (exponent == 0 || x == 1) {
    return 1;
  }
  if (exponent == 1) {
    return x;
  }
  if (exponent == 0.5) {
    return std::sqrt(x);  // IEEE prescribes its last bit
  }
  return exponential(exponent * natural_log(x));
}

}  // namespace lorascale
