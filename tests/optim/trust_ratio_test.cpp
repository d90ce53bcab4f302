// LAMB and LARS against loops over tensors and elements in fp64, and what trust ratios mean: the
// length of an update, and the stall of a LoRA matrix that starts at zero (V26).
#include "base/error.hpp"
#include "optim/by_name.hpp"
#include "optim/support.hpp"
#include "support/tensors.hpp"

namespace lorascale::optim {
namespace {

using test::noise;

using Vector = std::vector<double>;

double length(const Vector& x) {
  double squares = 0;
  for (const double value : x) {
    squares += value * value;
  }
  return std::sqrt(squares);
}

Vector to_vector(const at::Tensor& x) {
  Vector values;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    values.push_back(x[i].item<double>());
  }
  return values;
}

// One tensor under LAMB (1904.00962, algorithm 2 with phi the identity) or LARS (1708.03888, the
// rate outside of the velocity).
struct ReferenceTensor {
  Vector w, m, v;
  int t = 0;

  explicit ReferenceTensor(Vector start) : w(std::move(start)), m(w.size()), v(w.size()) {}

  void lamb(const Vector& g, double lr, double decay, bool trusted, const Hyperparameters& h) {
    ++t;
    Vector u(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      m[i] = h.beta1 * m[i] + (1 - h.beta1) * g[i];
      v[i] = h.beta2 * v[i] + (1 - h.beta2) * g[i] * g[i];
      u[i] = m[i] / (1 - std::pow(h.beta1, t)) /
                 (std::sqrt(v[i] / (1 - std::pow(h.beta2, t))) + h.eps) +
             decay * w[i];
    }
    const bool known = trusted && length(w) > 0 && length(u) > 0;
    const double ratio = known ? length(w) / length(u) : 1;
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] -= lr * ratio * u[i];
    }
  }
  void lars(const Vector& g, double lr, double decay, double c, const Hyperparameters& h) {
    const bool known = c > 0 && length(w) > 0 && length(g) > 0;
    const double ratio = known ? c * length(w) / (length(g) + decay * length(w)) : 1;
    for (std::size_t i = 0; i < w.size(); ++i) {
      m[i] = h.beta1 * m[i] + ratio * (g[i] + decay * w[i]);
      w[i] -= lr * m[i];
    }
  }
};

// Tensors of two segments: the first decays and is trusted; the second has a rate of its own and no
// decay. One tensor begins at zero, one (of a single element) has no gradient in the first updates.
constexpr std::int64_t kSizes[] = {7, 1, 12, 5, 9};
constexpr std::int64_t kFirst = 20;  // elements of the first segment: 7 + 1 + 12
constexpr std::int64_t kSize = 34;

struct Case {
  const char* name;
  double decay, clip, trust_of_second;
};

void follow(const Case& c) {
  SCOPED_TRACE(std::string(c.name) + ", decay " + std::to_string(c.decay) + ", clip " +
               std::to_string(c.clip));
  const bool lamb = std::string(c.name) == "lamb";
  const double trust = lamb ? 1.0 : 0.02;
  auto parameters = noise({kSize}, 1);
  parameters.narrow(0, 20, 5).zero_();
  std::vector<ReferenceTensor> reference;
  std::int64_t offset = 0;
  for (const auto size : kSizes) {
    reference.emplace_back(to_vector(parameters.narrow(0, offset, size)));
    offset += size;
  }
  const auto optimizer = make_optimizer(c.name,
                                        {{0, kFirst, 1.0, true, trust, {7, 1, 12}},
                                         {kFirst, kSize, 4.0, false, c.trust_of_second, {5, 9}}},
                                        parameters);
  for (int step = 0; step < 15; ++step) {
    Hyperparameters hyper;
    hyper.lr = 2e-2 * (1 + step % 4);
    hyper.beta1 = 0.9 - 0.01 * step;
    hyper.beta2 = 0.99;
    hyper.eps = 1e-6;
    hyper.weight_decay = c.decay;
    auto gradient = noise({kSize}, static_cast<std::uint64_t>(100 + step), 5.0);
    if (step < 3) {
      gradient[7] = 0.0;
    }
    const double count = 3.0 + step;
    const auto facts = gradient_facts(gradient, scalar64(count), c.clip);
    Vector g = to_vector(gradient);
    const double norm = length(g) / count;
    const double factor = c.clip > 0 ? std::min(1.0, c.clip / (norm + 1e-6)) : 1.0;
    for (auto& value : g) {
      value *= factor / count;
    }
    optimizer->step(parameters, gradient, hyper, facts);
    offset = 0;
    for (std::size_t i = 0; i < reference.size(); ++i) {
      const bool first = offset < kFirst;
      const Vector part(g.begin() + offset, g.begin() + offset + kSizes[i]);
      const double lr = hyper.lr * (first ? 1.0 : 4.0);
      const double decay = first ? c.decay : 0.0;
      const double coefficient = first ? trust : c.trust_of_second;
      if (lamb) {
        reference[i].lamb(part, lr, decay, coefficient > 0, hyper);
      } else {
        reference[i].lars(part, lr, decay, coefficient, hyper);
      }
      offset += kSizes[i];
    }
  }
  offset = 0;
  for (const auto& tensor : reference) {
    for (std::size_t i = 0; i < tensor.w.size(); ++i, ++offset) {
      EXPECT_NEAR(parameters[offset].item<float>(), tensor.w[i], 5e-6 * (1 + std::abs(tensor.w[i])))
          << "element " << offset;
    }
  }
}

TEST(TrustRatioTest, LambFollowsTheLoops) {
  for (const double second : {0.0, 1.0}) {
    follow({"lamb", 0.0, 0.0, second});
    follow({"lamb", 0.1, 0.0, second});
    follow({"lamb", 0.1, 0.5, second});
  }
}

TEST(TrustRatioTest, LarsFollowsTheLoops) {
  for (const double second : {0.0, 0.02}) {
    follow({"lars", 0.0, 0.0, second});
    follow({"lars", 0.1, 0.0, second});
    follow({"lars", 0.1, 0.5, second});
  }
}

// An update moves every tensor by lr |w| (LAMB) or lr c |w| (LARS, no decay), however large its
// gradient is.
TEST(TrustRatioTest, LengthOfAnUpdateFollowsFromTheTensorAlone) {
  struct {
    const char* name;
    double trust, expected;
  } const cases[] = {{"lamb", 1.0, 0.01}, {"lars", 0.3, 0.003}};
  for (const auto& c : cases) {
    auto parameters = noise({50}, 1);
    const auto before = parameters.clone();
    auto gradient = noise({50}, 2);
    gradient.narrow(0, 20, 30).mul_(1e4);
    const auto optimizer =
        make_optimizer(c.name, {{0, 50, 1.0, true, c.trust, {20, 30}}}, parameters);
    Hyperparameters hyper;
    hyper.lr = 0.01;
    optimizer->step(parameters, gradient, hyper, gradient_facts(gradient, scalar64(1), 0));
    for (const auto& [begin, size] : {std::pair{0, 20}, std::pair{20, 30}}) {
      const auto part = [&](const at::Tensor& x) {
        return length(to_vector(x.narrow(0, begin, size)));
      };
      EXPECT_NEAR(part(parameters - before) / part(before), c.expected, 1e-5) << c.name;
    }
  }
}

// What the noise scale is measured in: Adam's metric, whose moments LAMB has.
TEST(TrustRatioTest, LambHasAdamsMetric) {
  auto a = noise({30}, 1), b = a.clone();
  const auto adam = make_optimizer("adamw", {{0, 30}}, a);
  const auto lamb = make_optimizer("lamb", {{0, 30, 1.0, true, 1.0, {30}}}, b);
  Hyperparameters hyper;
  for (std::uint64_t i = 0; i < 5; ++i) {
    auto gradient = noise({30}, 10 + i);
    const auto facts = gradient_facts(gradient, scalar64(2), 1.0);
    adam->step(a, gradient, hyper, facts);
    auto again = noise({30}, 10 + i);
    lamb->step(b, again, hyper, facts);
  }
  test::expect_close(lamb->metric(hyper), adam->metric(hyper), 1e-5);
}

constexpr double kTargetRms = 0.01;

// The quantiles (i + 1/2) / 200 of a normal distribution with the target's rms, by bisection.
at::Tensor normal_target() {
  auto target = at::empty({200}, at::kDouble);
  for (std::int64_t i = 0; i < 200; ++i) {
    double low = -10, high = 10;
    for (int round = 0; round < 60; ++round) {
      const double middle = 0.5 * (low + high);
      (0.5 * std::erfc(-middle / std::sqrt(2.0)) < (static_cast<double>(i) + 0.5) / 200 ? low
                                                                                        : high) =
          middle;
    }
    target[i] = kTargetRms * low;
  }
  return target.to(at::kFloat);
}

// Updates of LAMB from zero until 95 % of the target's square is explained. Betas of 0 make the
// direction the gradient's sign, which points at the target.
int updates_to_target(double lr, double trust) {
  const auto target = normal_target();
  auto b = at::zeros({200});
  const auto optimizer = make_optimizer("lamb", {{0, 200, 1.0, true, trust, {200}}}, b);
  Hyperparameters hyper;
  hyper.lr = lr;
  hyper.beta1 = hyper.beta2 = 0;
  hyper.eps = 1e-20;
  const double enough = std::sqrt(0.05) * target.norm().item<double>();
  for (int update = 1; update < 10000; ++update) {
    auto gradient = (b - target).sign_();
    optimizer->step(b, gradient, hyper, gradient_facts(gradient, scalar64(1), 0));
    if ((b - target).norm().item<double>() <= enough) {
      return update;
    }
  }
  return -1;
}

// V26, whose arithmetic in fp64 (tests/coordinator/trust_ratio_test.cpp) takes 3151 and 65 updates.
TEST(TrustRatioTest, V26LoraBStallsUnderTrustRatios) {
  EXPECT_NEAR(updates_to_target(1e-3, 1.0), 3151, 10);
  EXPECT_NEAR(updates_to_target(1e-2, 1.0), 65, 2);
}

TEST(TrustRatioTest, V26ExclusionRemovesTheStall) {
  EXPECT_LE(updates_to_target(1e-3, 0.0), 20);
  EXPECT_GT(updates_to_target(1e-3, 0.0), 5);
}

}  // namespace
}  // namespace lorascale::optim
