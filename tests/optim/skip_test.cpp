// A gradient that is not finite changes nothing: not a bit of parameters, moments or counters, and
// what follows is as if it had not been.
#include "optim/by_name.hpp"
#include "optim/support.hpp"
#include "optim/weight_average.hpp"
#include "support/tensors.hpp"

namespace lorascale::optim {
namespace {

using test::noise;
using test::same_bits;

class SkipTest : public testing::TestWithParam<const char*> {
 protected:
  static Hyperparameters hyper() {
    Hyperparameters h;
    h.lr = 0.01;
    h.weight_decay = 0.1;
    h.average = {0.9, 0.1};
    return h;
  }
  // By name; "averaged" is adamw with an average of its weights.
  static std::unique_ptr<Optimizer> make(std::vector<Segment> segments,
                                         const at::Tensor& parameters) {
    const std::string name = GetParam();
    if (name == "averaged") {
      return std::make_unique<WeightAverage>(
          make_optimizer("adamw", std::move(segments), parameters), parameters);
    }
    return make_optimizer(name, std::move(segments), parameters);
  }
  static Segment whole() { return {0, 21, 1.0, true, 0.5, {20, 1}}; }
  static at::Tensor start() {
    auto parameters = noise({21}, 1);
    parameters[4] = -0.0;  // has a sign to lose
    parameters[5] = 0.0;
    return parameters;
  }
  static void step(Optimizer& optimizer, at::Tensor& parameters, at::Tensor gradient) {
    const auto facts = gradient_facts(gradient, scalar64(4), 1.0);
    optimizer.step(parameters, gradient, hyper(), facts);
  }
  static std::vector<at::Tensor> copies(const Optimizer& optimizer, const at::Tensor& parameters) {
    std::vector<at::Tensor> all = {parameters.clone()};
    for (const auto& [name, tensor] : optimizer.state()) {
      all.push_back(tensor.clone());
    }
    return all;
  }
  static void expect_same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_TRUE(same_bits(a[i], b[i])) << "tensor " << i;
    }
  }
};

TEST_P(SkipTest, NotABitChanges) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    auto parameters = start();
    const auto optimizer =
        make({{0, 10, 1.0, true, 1.0, {3, 3, 4}}, {10, 21, 4.0, false, 1.0, {11}}}, parameters);
    step(*optimizer, parameters, noise({21}, 2));
    step(*optimizer, parameters, noise({21}, 3));
    parameters[4] = -0.0;
    for (const auto& [name, tensor] : optimizer->state()) {
      if (tensor.dim() == 1) {
        tensor[4] = name == "exp_avg_sq" ? 0.25 : -0.5;
        tensor[5] = -0.0;
      }
    }
    const auto before = copies(*optimizer, parameters);
    auto gradient = noise({21}, 4);
    gradient[13] = bad;
    const auto facts = gradient_facts(gradient, scalar64(4), 1.0);
    EXPECT_EQ(facts.skip.item<float>(), 1.0F);
    EXPECT_FALSE(std::isfinite(facts.norm.item<float>()));
    EXPECT_TRUE(std::isfinite(facts.divisor.item<float>()));
    optimizer->step(parameters, gradient, hyper(), facts);
    expect_same(copies(*optimizer, parameters), before);
  }
}

TEST_P(SkipTest, AsIfItHadNotBeen) {
  auto with = start(), without = start();
  const auto skipping = make({whole()}, with);
  const auto plain = make({whole()}, without);
  for (std::uint64_t i = 0; i < 6; ++i) {
    step(*skipping, with, noise({21}, 10 + i));
    step(*plain, without, noise({21}, 10 + i));
    step(*skipping, with, at::full({21}, std::nan(""), at::kFloat));
  }
  expect_same(copies(*skipping, with), copies(*plain, without));
}

// The first update of all may be the one that is skipped.
TEST_P(SkipTest, FromTheStart) {
  auto parameters = start();
  const auto optimizer = make({whole()}, parameters);
  const auto before = copies(*optimizer, parameters);
  step(*optimizer, parameters, at::full({21}, std::nan(""), at::kFloat));
  expect_same(copies(*optimizer, parameters), before);
}

INSTANTIATE_TEST_SUITE_P(Optimizers, SkipTest,
                         testing::Values("adamw", "sgd", "lamb", "lars", "averaged"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lorascale::optim
