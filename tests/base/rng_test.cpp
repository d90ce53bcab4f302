#include "base/rng.hpp"

#include <gtest/gtest.h>

namespace lorascale {
namespace {

// Known-answer vectors of the Random123 distribution (kat_vectors, philox4x32 10 rounds).
TEST(Philox, MatchesThePublishedVectors) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}));
  constexpr std::uint32_t kOnes = 0xffffffffU;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxBlock{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}));
  EXPECT_EQ(
      philox4x32({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, {0xa4093822U, 0x299f31d0U}),
      (PhiloxBlock{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}));
}

TEST(Philox, UniformsFillTheUnitInterval) {
  double sum = 0;
  constexpr int kBlocks = 25000;
  for (std::uint32_t i = 0; i < kBlocks; ++i) {
    for (const auto bits : philox4x32({i, 0, 0, 0}, philox_key(7))) {
      const float u = uniform24(bits);
      ASSERT_GE(u, 0.0F);
      ASSERT_LT(u, 1.0F);
      sum += u;
    }
  }
  // The mean of 1e5 uniforms has a standard error of 0.0009; five of them.
  EXPECT_NEAR(sum / (4.0 * kBlocks), 0.5, 0.0046);
}

// The first numbers of the published splitmix64 from the seed 0.
TEST(Mix64, IsSplitmix64) {
  EXPECT_EQ(mix64(0), 0xE220A8397B1DCDAFULL);
  EXPECT_EQ(mix64(0x9E3779B97F4A7C15ULL), 0x6E789E6AA1B965F4ULL);
}

// Half-open: the greatest is still below 1, which a draw of more than 24 bits rounds up to.
TEST(Uniform24, LiesBelowOne) {
  EXPECT_EQ(uniform24(0xFFFFFFFF), 1 - 0x1p-24F);
  EXPECT_EQ(uniform24(0x100), 0x1p-24F);
  EXPECT_EQ(uniform24(0xFF), 0);
}

}  // namespace
}  // namespace lorascale
