// What is random in training belongs to samples: the same in any leaf, of the right distribution.
#include "models/diffusion/draws.hpp"

#include <gtest/gtest.h>

#include <set>

#include "support/tensors.hpp"

namespace lorascale::models::diffusion {
namespace {

TEST(DrawsTest, ASampleDrawsTheSameInAnyLeaf) {
  const SampleKey key{3, 2};
  const auto all = draw_normal(key, {5, 9, 1}, Draw::kNoise, {4, 3, 3});
  EXPECT_TRUE(draw_normal(key, {9}, Draw::kNoise, {4, 3, 3})[0].equal(all[1]));
  EXPECT_FALSE(all[0].equal(all[1]));
  EXPECT_FALSE(draw_normal({3, 3}, {5}, Draw::kNoise, {4, 3, 3})[0].equal(all[0]));
  EXPECT_FALSE(draw_normal({4, 2}, {5}, Draw::kNoise, {4, 3, 3})[0].equal(all[0]));
  EXPECT_FALSE(draw_normal(key, {5}, Draw::kLatents, {4, 3, 3})[0].equal(all[0]));
  // A sampler that adds noise draws anew at each of its steps.
  for (const std::uint32_t round : {1U, 16U, 17U, 1000U}) {
    EXPECT_FALSE(draw_normal(key, {5}, Draw::kNoise, {4, 3, 3}, round)[0].equal(all[0])) << round;
  }
}

TEST(DrawsTest, NumbersAreNormal) {
  const auto x = draw_normal({1, 0}, {7}, Draw::kNoise, {200000}).to(at::kDouble).flatten();
  // Five standard errors of each moment.
  EXPECT_NEAR(x.mean().item<double>(), 0, 5 / std::sqrt(2e5));
  EXPECT_NEAR(x.pow(2).mean().item<double>(), 1, 5 * std::sqrt(2 / 2e5));
  EXPECT_NEAR(x.pow(3).mean().item<double>(), 0, 5 * std::sqrt(15 / 2e5));
  EXPECT_NEAR(x.pow(4).mean().item<double>(), 3, 5 * std::sqrt(96 / 2e5));
  const auto neighbours = (x.narrow(0, 0, 199999) * x.narrow(0, 1, 199999)).mean();
  EXPECT_NEAR(neighbours.item<double>(), 0, 5 / std::sqrt(2e5));
  EXPECT_TRUE(x.isfinite().all().item<bool>());
}

TEST(DrawsTest, TimesAreUniformAndStayInTheirPart) {
  std::set<std::int64_t> seen;
  std::int64_t sum = 0;
  for (std::int64_t sample = 0; sample < 20000; ++sample) {
    const auto t = draw_time({11, 0}, sample, 1000);
    ASSERT_TRUE(t >= 0 && t < 1000);
    seen.insert(t);
    sum += t;
    for (std::int64_t part = 0; part < 4; ++part) {
      const auto within = draw_time({11, 0}, sample, 1000, part, 4);
      ASSERT_TRUE(within >= 250 * part && within < 250 * (part + 1));
    }
  }
  EXPECT_EQ(seen.size(), 1000U);
  EXPECT_NEAR(static_cast<double>(sum) / 20000, 499.5, 5 * 288.7 / std::sqrt(20000));
}

}  // namespace
}  // namespace lorascale::models::diffusion
