// Initial weights: the right distributions, and the same bits for ever.
#include "models/initial_values.hpp"

#include <cmath>
#include <numbers>

#include "support/tensors.hpp"

namespace lorascale::models {
namespace {

using test::same_bits;

at::Tensor normal(std::int64_t count, std::uint64_t seed, const std::string& name,
                  double deviation = 1) {
  auto x = at::empty({count}, at::kFloat);
  fill_normal(x, deviation, seed, name);
  return x;
}

TEST(InitialValuesTest, NormalDistribution) {
  constexpr std::int64_t kCount = 400'000;
  const auto x = normal(kCount, 1, "conv1.weight", 2.0).to(at::kDouble) / 2;
  EXPECT_NEAR(x.mean().item<double>(), 0, 5e-3);
  EXPECT_NEAR(x.square().mean().item<double>(), 1, 1e-2);
  EXPECT_NEAR(x.pow(3).mean().item<double>(), 0, 3e-2);
  EXPECT_NEAR(x.pow(4).mean().item<double>(), 3, 6e-2);
  for (const double z : {-2.5, -1.0, -0.2, 0.0, 0.6, 1.7, 3.0}) {
    const double share = x.lt(z).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(share, 0.5 * std::erfc(-z / std::numbers::sqrt2), 3e-3) << z;
  }
  // Neighbours have nothing to do with each other.
  const auto a = x.narrow(0, 0, kCount - 1), b = x.narrow(0, 1, kCount - 1);
  EXPECT_NEAR((a * b).mean().item<double>(), 0, 8e-3);
  EXPECT_NEAR((a.square() * b.square()).mean().item<double>(), 1, 3e-2);
}

TEST(InitialValuesTest, UniformDistribution) {
  auto x = at::empty({400, 250}, at::kFloat);
  fill_uniform(x, 0.25, 1, "fc.weight");
  EXPECT_GE(x.min().item<double>(), -0.25);
  EXPECT_LT(x.max().item<double>(), 0.25);
  EXPECT_NEAR(x.mean().item<double>(), 0, 2e-3);
  EXPECT_NEAR(x.square().mean().item<double>(), 0.0625 / 3, 3e-4);
}

TEST(InitialValuesTest, SeedAndNameAloneDecide) {
  const auto x = normal(1001, 7, "a");
  EXPECT_TRUE(same_bits(normal(1001, 7, "a"), x));
  EXPECT_FALSE(normal(1001, 8, "a").equal(x));
  EXPECT_FALSE(normal(1001, 7, "b").equal(x));
  EXPECT_TRUE(same_bits(normal(10, 7, "a"), x.narrow(0, 0, 10)));  // nor the size
}

// Published numbers: a run that starts anew must start the same, whatever the machine.
TEST(InitialValuesTest, KnownBits) {
  const auto x = normal(3, 42, "conv1.weight", 0.1);
  EXPECT_EQ(x[0].item<float>(), -0x1.97dfbep-5F);
  EXPECT_EQ(x[1].item<float>(), 0x1.2cd412p-4F);
  EXPECT_EQ(x[2].item<float>(), 0x1.81ffbap-6F);
}

}  // namespace
}  // namespace lorascale::models
