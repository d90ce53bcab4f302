#include "optim/optimizer.hpp"

#include <algorithm>

#include "optim/by_name.hpp"
#include "optim/support.hpp"
#include "support/tensors.hpp"

namespace lorascale::optim {
namespace {

using test::expect_close;
using test::noise;

constexpr std::int64_t kSize = 37;

// Segments with rates and decays of their own. With LoRA+ the decay goes by the segment's rate,
// once.
std::vector<Segment> segments() {
  return {{0, 14, 1.0, true}, {14, 26, 16.0, false}, {26, kSize, 4.0, true}};
}

const Segment& segment_of(const std::vector<Segment>& all, std::int64_t element) {
  return *std::find_if(all.begin(), all.end(), [&](const auto& s) { return element < s.end; });
}

// Twelve updates with changing hyperparameters, counts and clipping against the scalar form.
template <typename Scalar>
void follow(const std::string& name, double decay, double clip) {
  auto parameters = noise({kSize}, 1);
  std::vector<Scalar> reference(kSize);
  for (std::int64_t i = 0; i < kSize; ++i) {
    reference[static_cast<std::size_t>(i)].p = parameters[i].item<double>();
  }
  const auto optimizer = make_optimizer(name, segments(), parameters);
  for (int step = 0; step < 12; ++step) {
    Hyperparameters hyper;
    hyper.lr = 1e-3 * (1 + step);
    hyper.beta1 = 0.9 - 0.01 * step;
    hyper.beta2 = 0.99;
    hyper.eps = 1e-6;
    hyper.weight_decay = decay;
    const double count = 3.0 + step;
    auto gradient = noise({kSize}, static_cast<std::uint64_t>(100 + step), 5.0);
    std::vector<double> mean;
    double squares = 0;
    for (std::int64_t i = 0; i < kSize; ++i) {
      mean.push_back(gradient[i].item<double>() / count);
      squares += mean.back() * mean.back();
    }
    const double norm = std::sqrt(squares);
    const double factor = clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0;
    const auto facts = gradient_facts(gradient, scalar64(count), clip);
    EXPECT_NEAR(facts.norm.item<float>() / norm, 1.0, 1e-6);
    optimizer->step(parameters, gradient, hyper, facts);
    for (std::int64_t i = 0; i < kSize; ++i) {
      const auto all = segments();
      const auto& segment = segment_of(all, i);
      reference[static_cast<std::size_t>(i)].step(factor * mean[static_cast<std::size_t>(i)],
                                                  hyper.lr * segment.lr_ratio,
                                                  segment.decays ? decay : 0.0, hyper);
    }
  }
  for (std::int64_t i = 0; i < kSize; ++i) {
    const double expected = reference[static_cast<std::size_t>(i)].p;
    EXPECT_NEAR(parameters[i].item<float>(), expected, 2e-6 * (1 + std::abs(expected)))
        << "element " << i;
  }
}

TEST(OptimizerTest, AdamWFollowsTheScalarForm) {
  follow<ScalarAdamW>("adamw", 0.0, 0.0);
  follow<ScalarAdamW>("adamw", 0.1, 0.0);
  follow<ScalarAdamW>("adamw", 0.1, 0.5);
  follow<ScalarAdamW>("adamw", 0.1, 1e6);
}

TEST(OptimizerTest, SgdFollowsTheScalarForm) {
  follow<ScalarSgd>("sgd", 0.0, 0.0);
  follow<ScalarSgd>("sgd", 0.1, 0.0);
  follow<ScalarSgd>("sgd", 0.1, 0.5);
}

// Without trust ratios they are what they are made of.
TEST(OptimizerTest, LambAndLarsWithoutTrustRatios) {
  follow<ScalarAdamW>("lamb", 0.0, 0.0);
  follow<ScalarAdamW>("lamb", 0.1, 0.5);
  follow<ScalarSgd>("lars", 0.1, 0.5);
}

// The first update of Adam is lr * sign(g), whatever the size of g.
TEST(OptimizerTest, FirstAdamWUpdateIsTheRate) {
  auto parameters = at::zeros({4});
  auto gradient = at::tensor({1e-3F, -2e-3F, 5.0F, -1e4F});
  const auto optimizer = make_optimizer("adamw", {{0, 4}}, parameters);
  Hyperparameters hyper;
  hyper.lr = 0.01;
  hyper.eps = 1e-12;
  optimizer->step(parameters, gradient, hyper, gradient_facts(gradient, scalar64(1), 0));
  expect_close(parameters, at::tensor({-0.01, 0.01, -0.01, 0.01}), 1e-6);
}

// Decay is decoupled: without a gradient the weights shrink by (1 - lr * decay) and no moment
// moves.
TEST(OptimizerTest, AdamWDecayIsDecoupled) {
  auto parameters = at::tensor({2.0F, -4.0F, 2.0F, -4.0F});
  auto gradient = at::zeros({4});
  const auto optimizer =
      make_optimizer("adamw", {{0, 2, 1.0, true}, {2, 4, 1.0, false}}, parameters);
  Hyperparameters hyper;
  hyper.lr = 0.1;
  hyper.weight_decay = 0.5;
  for (int i = 0; i < 3; ++i) {
    optimizer->step(parameters, gradient, hyper, gradient_facts(gradient, scalar64(1), 1.0));
  }
  const double shrunk = 0.95 * 0.95 * 0.95;
  expect_close(parameters, at::tensor({2 * shrunk, -4 * shrunk, 2.0, -4.0}), 1e-6);
  EXPECT_EQ(state_of(*optimizer, "exp_avg").abs().sum().item<float>(), 0.0F);
  EXPECT_EQ(state_of(*optimizer, "exp_avg_sq").abs().sum().item<float>(), 0.0F);
}

// What lies between segments is nobody's.
TEST(OptimizerTest, LeavesElementsOutsideSegmentsAlone) {
  for (const char* name : {"adamw", "sgd", "lamb", "lars"}) {
    auto parameters = noise({9}, 1);
    const auto before = parameters.clone();
    auto gradient = noise({9}, 2);
    const auto optimizer = make_optimizer(
        name, {{0, 3, 1.0, true, 1.0, {1, 2}}, {5, 8, 1.0, true, 1.0, {3}}}, parameters);
    Hyperparameters hyper;
    hyper.lr = 0.1;
    hyper.weight_decay = 0.1;
    optimizer->step(parameters, gradient, hyper, gradient_facts(gradient, scalar64(1), 0));
    const auto changed = parameters.ne(before);
    EXPECT_TRUE(changed.narrow(0, 0, 3).all().item<bool>()) << name;
    EXPECT_FALSE(changed.narrow(0, 3, 2).any().item<bool>()) << name;
    EXPECT_TRUE(changed.narrow(0, 5, 3).all().item<bool>()) << name;
    EXPECT_FALSE(changed[8].item<bool>()) << name;
  }
}

TEST(GradientFactsTest, NormAndDivisor) {
  const auto gradient = at::tensor({3.0F, -4.0F});
  const auto unclipped = gradient_facts(gradient, scalar64(10), 0.0);
  EXPECT_FLOAT_EQ(unclipped.norm.item<float>(), 0.5F);
  EXPECT_FLOAT_EQ(unclipped.divisor.item<float>(), 10.0F);
  EXPECT_EQ(unclipped.skip.item<float>(), 0.0F);
  EXPECT_FLOAT_EQ(gradient_facts(gradient, scalar64(10), 0.6).divisor.item<float>(), 10.0F);
  const auto clipped = gradient_facts(gradient, scalar64(10), 0.1);
  EXPECT_FLOAT_EQ(clipped.norm.item<float>(), 0.5F);  // before clipping
  EXPECT_NEAR((gradient / clipped.divisor).norm().item<float>(), 0.1, 1e-6);
  EXPECT_FLOAT_EQ(gradient_facts(at::zeros({5}), scalar64(1), 1.0).norm.item<float>(), 0.0F);
}

// The squares of such elements overflow fp32; their norm does not.
TEST(GradientFactsTest, SumsInFp64) {
  const auto facts = gradient_facts(at::full({4}, 1e30, at::kFloat), scalar64(1), 1.0);
  EXPECT_FLOAT_EQ(facts.norm.item<float>(), 2e30F);
  EXPECT_EQ(facts.skip.item<float>(), 0.0F);
  const auto small = gradient_facts(at::full({4}, 1e-30, at::kFloat), scalar64(1), 0.0);
  EXPECT_FLOAT_EQ(small.norm.item<float>(), 2e-30F);
}

}  // namespace
}  // namespace lorascale::optim
