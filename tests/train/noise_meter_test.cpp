#include "train/noise_meter.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "optim/by_name.hpp"
#include "support/tensors.hpp"

namespace lorascale::train {
namespace {

using lorascale::test::noise;

constexpr double kBeta2 = 0.9;
constexpr double kEps = 1e-3;

// Two groups, with one between them that is empty, under an Adam that has seen updates.
struct Measured {
  adapters::TrainableParameters parameters{
      {{{"lora_A"}, {{"a", {3, 4}}, {"b", {2}}}}, {{"none"}, {}}, {{"lora_B"}, {{"c", {9}}}}},
      at::kCPU};
  std::unique_ptr<optim::Optimizer> optimizer;
  NoiseMeter meter;
  optim::Hyperparameters hyper{1e-3, 0.9, kBeta2, kEps, 0, {}};
  at::Tensor second = at::zeros({23}, at::kDouble);  // Adam's v, by its definition
  int updates = 0;

  explicit Measured(const std::string& name = "adamw")
      : optimizer(optim::make_optimizer(name, {{0, 14}, {14, 23}}, parameters.master())),
        meter(parameters, *optimizer) {}
  // Element 20 never has a gradient.
  void update(int count) {
    for (; count > 0; --count) {
      at::Tensor gradient = noise({23}, static_cast<std::uint64_t>(++updates));
      gradient[20] = 0;
      second = kBeta2 * second + (1 - kBeta2) * gradient.to(at::kDouble).square();
      at::Tensor master = parameters.master();
      optimizer->step(master, gradient, hyper, {at::ones({}), at::zeros({}), at::ones({})});
    }
  }
};

double norm_square(const at::Tensor& values) {
  return values.to(at::kDouble).square().sum().item<double>();
}

TEST(NoiseMeter, SquaresAreThoseOfEachGroup) {
  Measured measured;
  measured.meter.begin(measured.hyper, 0);
  const at::Tensor gradient = noise({23}, 77);
  const at::Tensor squares = measured.meter.squares(gradient);
  ASSERT_EQ(measured.meter.columns(), 6);
  ASSERT_EQ(squares.scalar_type(), at::kDouble);
  const at::Tensor expected = at::tensor({norm_square(gradient.narrow(0, 0, 14)), 0.0,
                                          norm_square(gradient.narrow(0, 14, 9)), 0.0, 0.0, 0.0},
                                         at::kDouble);
  lorascale::test::expect_close(squares, expected, 1e-12);
}

// fp32 would lose the small group elements beside large ones, and overflow.
TEST(NoiseMeter, SquaresAreSummedInDouble) {
  Measured measured;
  measured.meter.begin(measured.hyper, 0);
  at::Tensor gradient = at::full({23}, 1.0F);
  gradient[0] = 1e25F;
  gradient[14] = 16777216.0F;
  const at::Tensor squares = measured.meter.squares(gradient);
  EXPECT_NEAR(squares[0].item<double>(), 1e50, 1e44);
  EXPECT_EQ(squares[2].item<double>(), 0x1p48 + 8);
}

TEST(NoiseMeter, PreconditionsInAdamsMetricFromBeforeTheUpdate) {
  Measured measured;
  measured.update(12);
  measured.meter.begin(measured.hyper, 12);
  const at::Tensor metric = (measured.second / (1 - std::pow(kBeta2, 12))).sqrt() + kEps;
  at::Tensor gradient = noise({23}, 77);
  gradient[20] = 5;  // its first ever: without a metric, it is left out
  at::Tensor scaled = gradient.to(at::kDouble) / metric;
  scaled[20] = 0;
  const at::Tensor squares = measured.meter.squares(gradient);
  lorascale::test::expect_close(
      squares.narrow(0, 3, 3),
      at::tensor({norm_square(scaled.narrow(0, 0, 14)), 0.0, norm_square(scaled.narrow(0, 14, 9))},
                 at::kDouble),
      1e-5);
  // Moments that move afterwards do not change the metric of this update.
  measured.update(1);
  EXPECT_TRUE(lorascale::test::same_bits(measured.meter.squares(gradient), squares));
}

TEST(NoiseMeter, HasNoMetricWithoutAHistory) {
  const auto preconditions = [](const Measured& measured) {
    const bool squares = measured.meter.squares(noise({23}, 1))[3].item<double>() != 0;
    const std::vector<double> row(6, 1.0);
    const bool facts = measured.meter.facts({row}, {1}, row)[0].preconditioned.has_value();
    EXPECT_EQ(squares, facts);
    return facts;
  };
  Measured adam;
  adam.update(NoiseMeter::kHistory);
  adam.meter.begin(adam.hyper, NoiseMeter::kHistory - 1);
  EXPECT_FALSE(preconditions(adam));
  adam.meter.begin(adam.hyper, NoiseMeter::kHistory);
  EXPECT_TRUE(preconditions(adam));
  adam.meter.forget_metric();
  EXPECT_FALSE(preconditions(adam));
  Measured sgd("sgd");
  sgd.meter.begin(sgd.hyper, 100);
  EXPECT_FALSE(preconditions(sgd));
}

// Leaves of 4, 0 and 2 targets whose sums have the squares 12, 99 and 10; |whole|^2 is 72.
TEST(NoiseMeter, FactsAreOfMeanGradientsAndLeavesWithTargets) {
  Measured measured;
  measured.update(NoiseMeter::kHistory);
  measured.meter.begin(measured.hyper, NoiseMeter::kHistory);
  const auto groups = measured.meter.facts(
      {{12, 0, 1, 120, 0, 10}, {99, 99, 99, 99, 99, 99}, {10, 0, 4, 100, 0, 40}}, {4, 0, 2},
      {72, 0, 36, 720, 0, 360});
  ASSERT_EQ(groups.size(), 2U) << "the empty group is left out";
  EXPECT_EQ(groups[0].group, "lora_A");
  EXPECT_EQ(groups[0].leaves, 2);
  EXPECT_EQ(groups[0].weight, 6);
  EXPECT_DOUBLE_EQ(groups[0].raw.weighted_leaf_square, 12.0 / 4 + 10.0 / 2);
  EXPECT_DOUBLE_EQ(groups[0].raw.mean_square, 72.0 / 36);
  EXPECT_EQ(groups[1].group, "lora_B");
  EXPECT_DOUBLE_EQ(groups[1].raw.weighted_leaf_square, 1.0 / 4 + 4.0 / 2);
  EXPECT_DOUBLE_EQ(groups[1].raw.mean_square, 1);
  ASSERT_TRUE(groups[0].preconditioned && groups[1].preconditioned);
  EXPECT_DOUBLE_EQ(groups[0].preconditioned->weighted_leaf_square, 120.0 / 4 + 100.0 / 2);
  EXPECT_DOUBLE_EQ(groups[1].preconditioned->mean_square, 10);
}

TEST(NoiseMeter, FactsWithoutAnyTargetAreZero) {
  const Measured measured;
  const auto groups = measured.meter.facts({{1, 0, 1, 0, 0, 0}}, {0}, {1, 0, 1, 0, 0, 0});
  EXPECT_EQ(groups[0].leaves, 0);
  EXPECT_EQ(groups[0].weight, 0);
  EXPECT_EQ(groups[0].raw.mean_square, 0);
}

}  // namespace
}  // namespace lorascale::train
