// V12 and V13: the sqrt rule of Adam and the surge of its best rate, on sign descent.
#include "simulation/sign_descent.hpp"

#include <algorithm>

#include "base/rng.hpp"
#include "coordinator/rates/scaling.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using simulation::expected_fall;
using simulation::expected_sign;
using simulation::OneStepQuadratic;

double uniform(std::uint64_t i) {
  return static_cast<double>(mix64(i) >> 11) * 0x1p-53;
}

// E sign(g) = P(g > 0) - P(g < 0) by Simpson's rule over the density, without erf.
double expected_sign_by_integration(double mean, double deviation, double batch) {
  const double spread = deviation / std::sqrt(batch);
  constexpr int kIntervals = 2000;
  const double from = -mean / spread;  // where g = 0, in standard deviations
  const double width = (12 - from) / kIntervals;
  double above = 0;
  for (int i = 0; i <= kIntervals; ++i) {
    const double z = from + i * width;
    const double weight = i == 0 || i == kIntervals ? 1 : (i % 2 == 1 ? 4 : 2);
    above += weight * std::exp(-z * z / 2);
  }
  above *= width / 3 / std::sqrt(2 * std::numbers::pi);
  return 2 * above - 1;
}

TEST(SignDescent, ExpectedSignIsTheIntegral) {
  for (const double mean : {0.001, 0.1, 0.7, 2.0}) {
    for (const double batch : {1.0, 4.0, 60.0}) {
      EXPECT_NEAR(expected_sign(mean, 1.3, batch), expected_sign_by_integration(mean, 1.3, batch),
                  1e-9)
          << mean << " " << batch;
    }
  }
}

// What a run sees per sample: how far a coordinate moves on average, and how much it spreads.
struct PerSample {
  double drift = 0;
  double diffusion = 0;
};
PerSample per_sample(double snr_of_one, double batch, double lr) {
  const double sign = expected_sign(snr_of_one, 1, batch);
  return {lr * sign / batch, lr * lr * (1 - sign * sign) / batch};
}

// V12: lr ~ sqrt(B) keeps drift and diffusion per sample while the noise of the batch's gradient
// dominates its mean; SNR = mu sqrt(B) / sigma. The other rules do not.
TEST(SignDescent, V12SqrtRuleKeepsDriftAndDiffusion) {
  constexpr double kSnrOfOne = 0.01;
  const PerSample base = per_sample(kSnrOfOne, 1, 1e-3);
  for (double k = 2; kSnrOfOne * std::sqrt(k) <= 0.16; k *= 2) {
    const double sqrt_lr = 1e-3 * lr_multiplier(ScaleRule::kSqrt, 0, k);
    const PerSample scaled = per_sample(kSnrOfOne, k, sqrt_lr);
    EXPECT_NEAR(scaled.drift / base.drift, 1, 0.0043) << k;
    EXPECT_NEAR(scaled.diffusion / base.diffusion, 1, 0.0162) << k;
    // Linear overshoots by sqrt(k) and k, none falls short by as much.
    const PerSample linear =
        per_sample(kSnrOfOne, k, 1e-3 * lr_multiplier(ScaleRule::kLinear, 0, k));
    EXPECT_NEAR(linear.drift / base.drift, std::sqrt(k), 0.005 * std::sqrt(k)) << k;
    EXPECT_NEAR(linear.diffusion / base.diffusion, k, 0.02 * k) << k;
    const PerSample none = per_sample(kSnrOfOne, k, 1e-3 * lr_multiplier(ScaleRule::kNone, 0, k));
    EXPECT_NEAR(none.drift / base.drift, 1 / std::sqrt(k), 0.005) << k;
    EXPECT_NEAR(none.diffusion / base.diffusion, 1 / k, 0.02 / k) << k;
  }
}

// The limit of the rule: at an SNR of 1.28 of the batch, drift is 22 % and diffusion 64 % low.
TEST(SignDescent, V12SqrtRuleEndsWhereTheMeanTakesOver) {
  constexpr double kSnrOfOne = 0.01;
  const double k = 128 * 128;
  const PerSample base = per_sample(kSnrOfOne, 1, 1e-3);
  const PerSample scaled = per_sample(kSnrOfOne, k, 1e-3 * lr_multiplier(ScaleRule::kSqrt, 0, k));
  EXPECT_NEAR(scaled.drift / base.drift, 0.78, 0.01);
  EXPECT_NEAR(scaled.diffusion / base.diffusion, 0.36, 0.01);
}

// The closed form of the expected loss against the sum over all 2^d outcomes of the signs.
TEST(SignDescent, ExpectedFallIsTheSumOverAllSigns) {
  constexpr std::size_t kD = 8;
  OneStepQuadratic model = simulation::uniform_quadratic(kD, 1, 1, 0);
  for (std::size_t i = 0; i < kD; ++i) {
    model.gradient[i] = uniform(i) - 0.5;
    model.deviation[i] = 0.5 + uniform(100 + i);
    for (std::size_t j = 0; j <= i; ++j) {
      model.hessian[i][j] = model.hessian[j][i] = uniform(1000 + 10 * i + j) + (i == j ? 2 : 0);
    }
  }
  const double batch = 3;
  const double lr = 0.07;
  double fall = 0;
  for (unsigned outcome = 0; outcome < 1U << kD; ++outcome) {
    double probability = 1;
    std::array<double, kD> sign{};
    for (std::size_t i = 0; i < kD; ++i) {
      sign[i] = (outcome >> i & 1U) != 0 ? 1 : -1;
      const double mean =
          expected_sign_by_integration(model.gradient[i], model.deviation[i], batch);
      probability *= (1 + sign[i] * mean) / 2;
    }
    double change = 0;
    for (std::size_t i = 0; i < kD; ++i) {
      change -= lr * model.gradient[i] * sign[i];
      for (std::size_t j = 0; j < kD; ++j) {
        change += lr * lr / 2 * model.hessian[i][j] * sign[i] * sign[j];
      }
    }
    fall -= probability * change;
  }
  const simulation::ExpectedFall exact = expected_fall(model, batch);
  EXPECT_NEAR(lr * exact.slope - lr * lr / 2 * exact.bend, fall, 1e-9);
  const double best = exact.best_rate();
  const auto at = [&](double rate) { return rate * exact.slope - rate * rate / 2 * exact.bend; };
  EXPECT_GT(at(best), at(best * 0.99));
  EXPECT_GT(at(best), at(best * 1.01));
}

constexpr std::size_t kDimensions = 100;
constexpr double kDeviation = 100;  // of a gradient of 1: Bn' = 15708

// The batch of 2^0..2^24 with the largest best rate.
double peak_batch(double rho) {
  const OneStepQuadratic model = simulation::uniform_quadratic(kDimensions, 1, kDeviation, rho);
  double best = 0;
  double peak = 0;
  for (int octave = 0; octave <= 24; ++octave) {
    const double batch = std::exp2(octave);
    const double rate = expected_fall(model, batch).best_rate();
    if (rate > best) {
      best = rate;
      peak = batch;
    }
  }
  return peak;
}

// V13: where curvature couples the coordinates, the best rate of sign descent peaks at
// Bn' sum H_ii / sum_{i != j} H_ij and falls beyond it.
TEST(SignDescent, V13SurgePeaksWhereCurvatureIsCoupled) {
  const double noise_batch = simulation::sign_noise_batch(1, kDeviation);
  for (const auto& [rho, seen] : {std::pair(0.05, 4096.0), std::pair(0.5, 256.0)}) {
    const double expected = noise_batch / ((kDimensions - 1) * rho);
    EXPECT_EQ(peak_batch(rho), seen);
    EXPECT_LE(std::abs(std::log2(seen / expected)), 1);
  }
}

// V13: without coupling there is no surge, only saturation, so the peak is a cap and no law.
TEST(SignDescent, V13NoSurgeWithoutCoupling) {
  const OneStepQuadratic model = simulation::uniform_quadratic(kDimensions, 1, kDeviation, 0);
  double before = 0;
  for (int octave = 0; octave <= 16; ++octave) {
    const double rate = expected_fall(model, std::exp2(octave)).best_rate();
    EXPECT_GT(rate, before) << octave;
    before = rate;
  }
  EXPECT_NEAR(expected_fall(model, std::exp2(24)).best_rate() / before, 1, 0.02);
}

// V13: the published form eta_max / ((sqrt(Bn / B) + sqrt(B / Bn)) / 2) with Bn the peak's batch.
TEST(SignDescent, V13PublishedFormHoldsBelowTheNoiseBatch) {
  const double noise_batch = simulation::sign_noise_batch(1, kDeviation);
  for (const double rho : {0.05, 0.5}) {
    const OneStepQuadratic model = simulation::uniform_quadratic(kDimensions, 1, kDeviation, rho);
    const double coupling = (kDimensions - 1) * rho;
    const double peak = noise_batch / coupling;
    const double highest = 1 / (2 * std::sqrt(coupling));
    const auto error = [&](double batch) {
      const double formula = highest / (0.5 * (std::sqrt(peak / batch) + std::sqrt(batch / peak)));
      return std::abs(formula / expected_fall(model, batch).best_rate() - 1);
    };
    EXPECT_LT(error(noise_batch / 1024), 0.001) << rho;
    EXPECT_LT(error(noise_batch / 16), 0.01) << rho;
    EXPECT_LT(error(noise_batch / 4), 0.055) << rho;
    EXPECT_GT(error(noise_batch), 0.12) << rho;
    EXPECT_LT(error(noise_batch), 0.22) << rho;
  }
}

}  // namespace
}  // namespace lorascale::coordinator
