#include "coordinator/least_squares.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace lorascale::coordinator {
namespace {

constexpr Bounds kWide{-100, 100};

// Against the normal equations of a straight line, solved by hand.
TEST(LeastSquares, LineThroughPoints) {
  const double x[] = {0, 1, 2, 3};
  const double y[] = {1, 2.5, 2.5, 5};
  const Residuals residuals = [&](std::span<const double> p, std::span<double> out) {
    for (std::size_t i = 0; i < 4; ++i) {
      out[i] = p[0] + p[1] * x[i] - y[i];
    }
  };
  const std::vector<Bounds> bounds(2, kWide);
  const auto fit = minimise(residuals, 4, {50, -50}, bounds);
  EXPECT_NEAR(fit.parameters[0], 0.95, 1e-8);
  EXPECT_NEAR(fit.parameters[1], 1.2, 1e-8);
  EXPECT_NEAR(fit.cost, 0.05 * 0.05 + 0.35 * 0.35 + 0.85 * 0.85 + 0.45 * 0.45, 1e-8);
}

TEST(LeastSquares, RosenbrocksValley) {
  const Residuals residuals = [](std::span<const double> p, std::span<double> out) {
    out[0] = 10 * (p[1] - p[0] * p[0]);
    out[1] = 1 - p[0];
  };
  const std::vector<Bounds> bounds(2, kWide);
  const auto fit = minimise(residuals, 2, {-1.2, 1}, bounds);
  EXPECT_NEAR(fit.parameters[0], 1, 1e-6);
  EXPECT_NEAR(fit.parameters[1], 1, 1e-6);
}

// The free minimum (3, 1) is outside; on the edge p0 = 2 the best p1 is 1 + 0.5 (3 - 2) = 1.5.
TEST(LeastSquares, StaysWithinBounds) {
  const Residuals residuals = [](std::span<const double> p, std::span<double> out) {
    out[0] = p[0] - 3;
    out[1] = 2 * ((p[1] - 1) + 0.5 * (p[0] - 3));
  };
  const std::vector<Bounds> bounds = {{0, 2}, {-5, 5}};
  const auto fit = minimise(residuals, 2, {-9, 4}, bounds);
  EXPECT_EQ(fit.parameters[0], 2);
  EXPECT_NEAR(fit.parameters[1], 1.5, 1e-8);
}

TEST(LeastSquares, WhatNothingDependsOnStays) {
  const Residuals residuals = [](std::span<const double> p, std::span<double> out) {
    out[0] = p[0] - 3;
  };
  const std::vector<Bounds> bounds(3, kWide);
  const auto fit = minimise(residuals, 1, {0, 7, -7}, bounds);
  EXPECT_NEAR(fit.parameters[0], 3, 1e-8);
  EXPECT_EQ(fit.parameters[1], 7);
  EXPECT_EQ(fit.parameters[2], -7);
}

}  // namespace
}  // namespace lorascale::coordinator
