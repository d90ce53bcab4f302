// V26: trust ratios (LAMB, LARS) on a LoRA matrix that starts at zero, as arithmetic. The ratio
// |w| / |u| falls back to 1 where w = 0, once; after that every update is at most lr |w| long, so
// |w| grows by at most (1 + lr) per update. The update is sign-LAMB's: |u| is 1 in every
// coordinate, which is Adam's where the gradient keeps its sign. With the ratio left out the same
// target takes as many updates as its distance says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "base/rng.hpp"

namespace {

constexpr double kTargetRms = 0.01;
constexpr std::size_t kSize = 200;

double rms(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) {
    sum += value * value;
  }
  return std::sqrt(sum / static_cast<double>(values.size()));
}

// The quantiles (i + 1/2) / kSize of a normal distribution with the target's rms, by bisection.
std::vector<double> normal_target() {
  std::vector<double> target;
  for (std::size_t i = 0; i < kSize; ++i) {
    const double part = (static_cast<double>(i) + 0.5) / kSize;
    double low = -10;
    double high = 10;
    for (int round = 0; round < 60; ++round) {
      const double middle = 0.5 * (low + high);
      (0.5 * std::erfc(-middle / std::sqrt(2.0)) < part ? low : high) = middle;
    }
    target.push_back(kTargetRms * low);
  }
  return target;
}

enum class Trust { kRatio, kExcluded };

// Updates of w <- w + lr ratio sign(target - w), from w = 0, until 95 % of the target's square is
// explained.
int updates_to(const std::vector<double>& target, double lr, Trust trust) {
  std::vector<double> w(target.size(), 0.0);
  const double whole = rms(target);
  for (int update = 1; update < 100000; ++update) {
    const double length = rms(w);
    const double ratio = trust == Trust::kRatio && length > 0 ? length : 1;
    std::vector<double> distance(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] += lr * ratio * (target[i] > w[i] ? 1 : -1);
      distance[i] = target[i] - w[i];
    }
    if (rms(distance) <= std::sqrt(0.05) * whole) {
      return update;
    }
  }
  return -1;
}

// The least number t with lr (1 + lr)^(t - 1) >= length: no target of that rms is reached earlier.
int least_updates(double lr, double length) {
  return 1 + static_cast<int>(std::ceil(std::log(length / lr) / std::log1p(lr) - 1e-9));
}

// Whatever the directions are, |w_t| <= lr (1 + lr)^(t - 1); with all of them equal it is attained.
TEST(TrustRatio, V26LengthGrowsByAtMostOnePlusTheRate) {
  for (const double lr : {1e-3, 1e-2, 0.1}) {
    std::vector<double> straight(kSize, 0.0);
    std::vector<double> wandering(kSize, 0.0);
    double bound = lr;
    for (std::uint64_t update = 0; update < 300; ++update) {
      const double straight_ratio = update == 0 ? 1 : rms(straight);
      const double wandering_ratio = update == 0 ? 1 : rms(wandering);
      for (std::size_t i = 0; i < kSize; ++i) {
        straight[i] += lr * straight_ratio;
        const bool up = (lorascale::mix64(1000 * update + i) & 1U) != 0;
        wandering[i] += lr * wandering_ratio * (up ? 1 : -1);
      }
      ASSERT_NEAR(rms(straight) / bound, 1, 1e-10) << lr << " " << update;
      ASSERT_LE(rms(wandering), bound * (1 + 1e-12)) << lr << " " << update;
      bound *= 1 + lr;
    }
  }
}

// The stall: about ln(rms / lr) / lr updates, and more for a target that is not all of one size,
// whose small entries stop growing first. The recalled 3127 and 65 are for a drawn target; the
// quantiles of the normal distribution take 3151 and 65.
TEST(TrustRatio, V26MatrixAtZeroStalls) {
  const std::vector<double> target = normal_target();
  ASSERT_NEAR(rms(target), kTargetRms, 0.01 * kTargetRms);
  EXPECT_EQ(least_updates(1e-3, kTargetRms), 2305);
  EXPECT_NEAR(updates_to(target, 1e-3, Trust::kRatio), 3151, 5);
  EXPECT_NEAR(updates_to(target, 1e-2, Trust::kRatio), 65, 1);
  // 95 % explained leaves at least a factor 1 - sqrt(0.05) = 0.776 of the length.
  EXPECT_GE(updates_to(target, 1e-3, Trust::kRatio), least_updates(1e-3, 0.77 * kTargetRms));
  EXPECT_NEAR(updates_to(std::vector<double>(kSize, kTargetRms), 1e-3, Trust::kRatio),
              least_updates(1e-3, kTargetRms * (1 - std::sqrt(0.05))), 1);
}

// Left out of the ratio, the farthest entries decide: 2 rms / lr updates or so.
TEST(TrustRatio, V26ExclusionRemovesTheStall) {
  const std::vector<double> target = normal_target();
  EXPECT_LE(updates_to(target, 1e-3, Trust::kExcluded), 20);
  EXPECT_GE(updates_to(target, 1e-3, Trust::kRatio),
            100 * updates_to(target, 1e-3, Trust::kExcluded));
}

}  // namespace
