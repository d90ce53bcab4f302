#include "coordinator/rates/scaling.hpp"

#include <cmath>
#include <limits>

#include "coordinator/mode_names.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::expect_error;
using testing::small_recipe;

constexpr double kTight = 1e-12;
constexpr ScaleRule kRules[] = {ScaleRule::kNone, ScaleRule::kLinear, ScaleRule::kSqrt,
                                ScaleRule::kPower};
constexpr double kFactors[] = {0.0625, 0.3, 1, 1.7, 2, 7, 16};

double relative(double a, double b) {
  return std::abs(a - b) / std::max(std::abs(a), std::abs(b));
}

TEST(Scaling, MultipliersOfEachRule) {
  EXPECT_EQ(lr_multiplier(ScaleRule::kNone, 0, 9), 1);
  EXPECT_EQ(lr_multiplier(ScaleRule::kLinear, 0, 9), 9);
  EXPECT_EQ(lr_multiplier(ScaleRule::kSqrt, 0, 9), 3);
  EXPECT_NEAR(lr_multiplier(ScaleRule::kPower, 0.75, 16), 8, 1e-13);
  EXPECT_EQ(lr_multiplier(ScaleRule::kPower, 0.5, 7), std::sqrt(7.0));
  EXPECT_EQ(lr_multiplier(ScaleRule::kPower, 0, 7), 1);
  EXPECT_EQ(lr_multiplier(ScaleRule::kPower, 1, 7), 7);
}

// V14: scaling by k1 and then by k2 is scaling by k1 k2.
TEST(Scaling, V14Composition) {
  for (const double k1 : kFactors) {
    for (const double k2 : kFactors) {
      for (const ScaleRule rule : kRules) {
        const double f1 = lr_multiplier(rule, 0.7, k1);
        const double f2 = lr_multiplier(rule, 0.7, k2);
        const double f12 = lr_multiplier(rule, 0.7, k1 * k2);
        EXPECT_LT(relative(f1 * f2, f12), kTight);
        EXPECT_LT(relative(scaled_weight_decay(scaled_weight_decay(0.1, k1, f1), k2, f2),
                           scaled_weight_decay(0.1, k1 * k2, f12)),
                  kTight);
      }
      EXPECT_LT(relative(scaled_eps(scaled_eps(1e-8, k1), k2), scaled_eps(1e-8, k1 * k2)), kTight);
      const double rho = 0.9997;
      EXPECT_LT(relative(scaled_average(scaled_average(rho, k1), k2), scaled_average(rho, k1 * k2)),
                kTight);
      const double beta = 0.9995;
      EXPECT_LT(relative(scaled_beta(scaled_beta(beta, k1), k2), scaled_beta(beta, k1 * k2)),
                kTight);
    }
  }
}

// V14: what each companion is there to keep constant, in samples.
TEST(Scaling, V14InvariantsInSamples) {
  const double batch = 32;
  for (const double k : kFactors) {
    // Half-life of rho^k: updates until half is left, times samples of an update.
    const double rho = 0.999;
    const double half_life = batch * std::log(0.5) / std::log(rho);
    EXPECT_LT(relative(k * batch * std::log(0.5) / std::log(scaled_average(rho, k)), half_life),
              kTight);
    // Time constant of beta: the mean age of what is averaged, B / (1 - beta). 1 - beta' itself
    // carries the rounding of beta', 1e-16 of 1e-3.
    const double beta = 0.99;
    EXPECT_LT(relative(k * batch / (1 - scaled_beta(beta, k)), batch / (1 - beta)), 1e-12);
    // eps against sqrt(v): v falls as 1 / k where noise dominates.
    EXPECT_LT(relative(scaled_eps(1e-8, k) / std::sqrt(1 / k), 1e-8), kTight);
    for (const ScaleRule rule : kRules) {
      const double multiplier = lr_multiplier(rule, 0.7, k);
      const double decay = scaled_weight_decay(0.1, k, multiplier);
      EXPECT_LT(relative(decay * 2e-4 * multiplier / (k * batch), 0.1 * 2e-4 / batch), kTight);
    }
  }
  EXPECT_DOUBLE_EQ(scaled_weight_decay(0.1, 4, 2), 0.2);  // sqrt rule: lambda sqrt(k)
  EXPECT_EQ(scaled_weight_decay(0.1, 7, 7), 0.1);         // linear rule: unchanged
}

TEST(Scaling, KOfOneChangesNoBit) {
  for (const double beta : {0.0, 0.1, 0.3, 0.9, 0.95, 0.999}) {
    EXPECT_EQ(scaled_beta(beta, 1), beta);
    EXPECT_EQ(scaled_average(beta, 1), beta);
  }
  EXPECT_EQ(scaled_eps(1e-8, 1), 1e-8);
  for (const ScaleRule rule : kRules) {
    EXPECT_EQ(lr_multiplier(rule, 0.37, 1), 1);
  }
  EXPECT_EQ(scaled_weight_decay(0.1, 1, 1), 0.1);
}

// V14: k (1 - beta) >= 1 is refused, with the largest k that works.
TEST(Scaling, V14RefusesBetasWithoutMemory) {
  EXPECT_DOUBLE_EQ(scaled_beta(0.9, 9), 1 - 9 * (1 - 0.9));
  EXPECT_FALSE(beta_can_scale(0.9, 10));  // 10 (1 - 0.9) is 0.99999999999999978 in doubles
  EXPECT_TRUE(beta_can_scale(0.9, 9.999));
  EXPECT_FALSE(beta_can_scale(0.0, 1.5));
  expect_error(ExitCode::kBadConfig,
               {"scale.betas", "16 x 0.1", "k below 10", "scale.betas: false"},
               [] { scaled_beta(0.9, 16); });
}

TEST(Scaling, RatesFollowTheSwitchesAndTheActualSamples) {
  Recipe recipe = small_recipe();  // B0 = 16
  recipe.weight_decay = 0.01;
  const ScaledRates plain = scaled_rates(recipe, 64);
  EXPECT_EQ(plain, (ScaledRates{2, 0.9, 0.999, 1e-8, 0.01}));
  recipe.scale_betas = recipe.scale_eps = recipe.scale_weight_decay = true;
  const ScaledRates full = scaled_rates(recipe, 64);
  EXPECT_EQ(full.multiplier, 2);
  EXPECT_NEAR(full.beta1, 0.6, 1e-15);
  EXPECT_NEAR(full.beta2, 0.996, 1e-15);
  EXPECT_DOUBLE_EQ(full.eps, 5e-9);
  EXPECT_DOUBLE_EQ(full.weight_decay, 0.02);
  const ScaledRates tail = scaled_rates(recipe, 4);  // k = 1/4
  EXPECT_EQ(tail.multiplier, 0.5);
  EXPECT_NEAR(tail.beta1, 0.975, 1e-15);
  EXPECT_DOUBLE_EQ(tail.eps, 2e-8);
  EXPECT_DOUBLE_EQ(tail.weight_decay, 0.005);
}

TEST(Scaling, NamesAreThoseOfTheConfig) {
  EXPECT_EQ(name_of(ScaleRule::kNone), "none");
  EXPECT_EQ(name_of(ScaleRule::kLinear), "linear");
  EXPECT_EQ(name_of(ScaleRule::kSqrt), "sqrt");
  EXPECT_EQ(name_of(ScaleRule::kPower), "power");
}

}  // namespace
}  // namespace lorascale::coordinator
