// A gradient that is not finite changes nothing: not a bit of parameters, moments or counters, and
// what follows is as if it had not been.
#include "optim/support.hpp"
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
    return h;
  }
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
    const auto optimizer = make_optimizer(GetParam(), {{0, 10}, {10, 21, 4.0, false}}, parameters);
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
  const std::vector<Segment> segments = {{0, 21}};
  const auto skipping = make_optimizer(GetParam(), segments, with);
  const auto plain = make_optimizer(GetParam(), segments, without);
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
  const auto optimizer = make_optimizer(GetParam(), {{0, 21}}, parameters);
  const auto before = copies(*optimizer, parameters);
  step(*optimizer, parameters, at::full({21}, std::nan(""), at::kFloat));
  expect_same(copies(*optimizer, parameters), before);
}

INSTANTIATE_TEST_SUITE_P(Optimizers, SkipTest, testing::Values("adamw", "sgd"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lorascale::optim
