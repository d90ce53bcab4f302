#include "base/portable_math.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

namespace lorascale {
namespace {

constexpr double kRelative = 4e-15;

TEST(PortableMath, CosineAgreesWithTheLibrary) {
  double before = 2;
  for (int i = 0; i <= 100000; ++i) {
    const double x = i / 100000.0;
    const double y = cos_pi(x);
    ASSERT_NEAR(y, std::cos(std::numbers::pi * x), 4e-16) << x;
    ASSERT_LT(y, before) << "falls from 1 to -1, also where the series change: " << x;
    before = y;
  }
  EXPECT_EQ(cos_pi(0), 1);
  EXPECT_EQ(cos_pi(0.5), 0);
  EXPECT_EQ(cos_pi(1), -1);
}

TEST(PortableMath, LogarithmAndExponentialAgreeWithTheLibrary) {
  for (double x = 1e-300; x < 1e300; x *= 1.37) {
    ASSERT_NEAR(natural_log(x), std::log(x), kRelative * std::abs(std::log(x))) << x;
  }
  for (double x = 0.5; x < 2; x += 1e-4) {
    ASSERT_NEAR(natural_log(x), std::log(x), 2e-16 + kRelative * std::abs(std::log(x))) << x;
  }
  for (double x = -700; x < 700; x += 0.173) {
    ASSERT_NEAR(exponential(x), std::exp(x), kRelative * std::exp(x)) << x;
  }
  EXPECT_EQ(natural_log(1), 0);
  EXPECT_EQ(exponential(0), 1);
  EXPECT_EQ(exponential(-1e4), 0);
  EXPECT_EQ(exponential(1e4), std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(exponential(std::numeric_limits<double>::quiet_NaN())));
}

TEST(PortableMath, PowerAgreesWithTheLibrary) {
  for (double x = 1e-6; x < 1e6; x *= 1.31) {
    for (const double y : {-1.5, 0.1, 0.25, 0.7, 0.99, 3.0}) {
      ASSERT_NEAR(power(x, y), std::pow(x, y), 2e-14 * std::pow(x, y)) << x << " " << y;
    }
    ASSERT_EQ(power(x, 0), 1);
    ASSERT_EQ(power(x, 1), x);
    ASSERT_EQ(power(x, 0.5), std::sqrt(x));
    ASSERT_EQ(power(1, x), 1);
  }
}

}  // namespace
}  // namespace lorascale
