#include "workloads/diffusion/fit_measures.hpp"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

namespace lorascale::workloads::diffusion {
namespace {

Latents points(const std::vector<std::pair<double, double>>& places) {
  Latents latents;
  for (const auto& [x, y] : places) {
    latents.push_back(at::tensor({x, y}));
  }
  return latents;
}

TEST(FitMeasures, PicturesOfOnePromptGrowAlike) {
  // Sides 3, 4 and 5; then half as long, turned and moved; then a point.
  const auto base = points({{0, 0}, {3, 0}, {0, 4}});
  EXPECT_NEAR(*distance_ratio({base, points({{7, 7}, {7, 8.5}, {5, 7}})}), 0.5, 1e-12);
  EXPECT_EQ(distance_ratio({base, points({{1, 1}, {1, 1}, {1, 1}})}), 0.0);
  EXPECT_FALSE(distance_ratio({points({{1, 1}, {1, 1}}), base}).has_value());
}

TEST(FitMeasures, ChangesAreComparedAtEqualSeeds) {
  const Compared with{points({{3, 4}, {0, 5}}), points({{3, 6}, {4, 5}})};       // by 6 of 10
  const Compared without{points({{6, 8}, {0, 10}}), points({{6, 9}, {0, 11}})};  // by 2 of 20
  EXPECT_NEAR(*change_ratio(without, with), 0.1 / 0.6, 1e-12);
  EXPECT_NEAR(*change_ratio(with, with), 1, 1e-12);
  // What has not moved says nothing.
  EXPECT_FALSE(change_ratio(with, {with.base, with.base}).has_value());
}

}  // namespace
}  // namespace lorascale::workloads::diffusion
