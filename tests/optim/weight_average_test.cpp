// The incremental averages against sums over all weights there were, in fp64.
#include "optim/weight_average.hpp"

#include "optim/by_name.hpp"
#include "optim/support.hpp"
#include "support/tensors.hpp"

namespace lorascale::optim {
namespace {

using test::expect_close;
using test::noise;
using test::same_bits;

constexpr std::int64_t kSize = 23;

struct Training {
  at::Tensor parameters = noise({kSize}, 1);
  WeightAverage optimizer{make_optimizer("sgd", {{0, kSize}}, parameters), parameters};

  void step(std::uint64_t seed, AverageShare share, bool finite = true) {
    auto gradient = finite ? noise({kSize}, seed) : at::full({kSize}, std::nan(""), at::kFloat);
    Hyperparameters hyper;
    hyper.lr = 0.1;
    hyper.beta1 = 0.5;
    hyper.average = share;
    optimizer.step(parameters, gradient, hyper, gradient_facts(gradient, scalar64(1), 0));
  }
  [[nodiscard]] at::Tensor average() const { return state_of(optimizer, "average"); }
};

// sum_i (1 - rho_i) prod_{j > i} rho_j w_i over the sum of these factors: the start has no share.
TEST(WeightAverageTest, MovingAverageWithItsBiasCorrected) {
  Training run;
  auto sum = at::zeros({kSize}, at::kDouble);
  double mass = 0;
  for (std::uint64_t i = 0; i < 60; ++i) {
    const double rho = i % 7 == 6 ? 0.99 : 0.9;  // a short update weighs less
    run.step(10 + i, {rho, 1 - rho});
    sum = rho * sum + (1 - rho) * run.parameters.to(at::kDouble);
    mass = rho * mass + (1 - rho);
    expect_close(run.average(), sum / mass, 1e-6, "update " + std::to_string(i));
  }
}

TEST(WeightAverageTest, EqualMeanFromAPointOn) {
  Training run;
  auto sum = at::zeros({kSize}, at::kDouble);
  for (std::uint64_t i = 0; i < 40; ++i) {
    const bool takes_part = i >= 10;
    run.step(10 + i, takes_part ? AverageShare{1, 1} : AverageShare{});
    EXPECT_EQ(run.optimizer.begun(), takes_part);
    if (takes_part) {
      sum += run.parameters.to(at::kDouble);
      expect_close(run.average(), sum / static_cast<double>(i - 9), 1e-6);
    }
  }
}

TEST(WeightAverageTest, TheFirstUpdateIsTheAverageBitForBit) {
  for (const AverageShare share : {AverageShare{1, 1}, AverageShare{0.99999, 1 - 0.99999}}) {
    Training run;
    run.step(2, share, /*finite=*/false);
    EXPECT_FALSE(run.optimizer.begun());
    run.step(3, share);
    EXPECT_TRUE(same_bits(run.average(), run.parameters));
  }
}

TEST(WeightAverageTest, ChangesNothingOfTheTraining) {
  Training run;
  auto plain = noise({kSize}, 1);
  const auto optimizer = make_optimizer("sgd", {{0, kSize}}, plain);
  for (std::uint64_t i = 0; i < 5; ++i) {
    run.step(10 + i, {0.9, 0.1});
    auto gradient = noise({kSize}, 10 + i);
    Hyperparameters hyper;
    hyper.lr = 0.1;
    hyper.beta1 = 0.5;
    optimizer->step(plain, gradient, hyper, gradient_facts(gradient, scalar64(1), 0));
  }
  EXPECT_TRUE(same_bits(run.parameters, plain));
}

TEST(WeightAverageTest, ExchangeTwiceIsNothing) {
  Training run;
  run.step(2, {0.9, 0.1});
  run.step(3, {0.9, 0.1});
  run.parameters[3] = -0.0;
  const auto raw = run.parameters.clone(), average = run.average().clone();
  EXPECT_FALSE(raw.equal(average));
  auto scratch = at::empty({kSize});
  run.optimizer.exchange(run.parameters, scratch);
  EXPECT_TRUE(same_bits(run.parameters, average));
  EXPECT_TRUE(same_bits(run.average(), raw));
  run.optimizer.exchange(run.parameters, scratch);
  EXPECT_TRUE(same_bits(run.parameters, raw));
  EXPECT_TRUE(same_bits(run.average(), average));
}

}  // namespace
}  // namespace lorascale::optim
