// Against the values that Stable Diffusion's own code and sd-scripts give, and closed forms.
#include "models/diffusion/noise_schedule.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lorascale::models::diffusion {
namespace {

NoiseSchedule velocity(bool zero_terminal_snr = false) {
  return NoiseSchedule(
      {.prediction = Prediction::kVelocity, .zero_terminal_snr = zero_terminal_snr});
}

TEST(NoiseScheduleTest, IsThatOfStableDiffusion) {
  const NoiseSchedule schedule({});
  EXPECT_NEAR(schedule.alpha_bar(0), 0.99914998, 5e-8);
  EXPECT_NEAR(schedule.alpha_bar(500), 0.27633250, 5e-7);
  EXPECT_NEAR(schedule.alpha_bar(999), 0.00466010, 5e-8);
  EXPECT_NEAR(schedule.sigma(0), 0.02916753, 1e-6);
  EXPECT_NEAR(schedule.sigma(500), 1.61827958, 2e-6);
  EXPECT_NEAR(schedule.sigma(999), 14.6146450, 5e-5);
  EXPECT_NEAR(schedule.snr(0), 1175.44, 0.05);
  EXPECT_NEAR(schedule.snr(250), 2.065531, 5e-6);
  EXPECT_NEAR(schedule.snr(999), 0.00468191, 1e-7);
  for (std::int64_t t = 0; t < schedule.steps(); ++t) {
    ASSERT_NEAR(std::pow(schedule.signal(t), 2) + std::pow(schedule.noise(t), 2), 1, 1e-12);
    ASSERT_TRUE(t == 0 || schedule.alpha_bar(t) < schedule.alpha_bar(t - 1));
  }
}

TEST(NoiseScheduleTest, BetasMayBeLinear) {
  const NoiseSchedule schedule(
      {.steps = 3, .beta_start = 0.1, .beta_end = 0.3, .betas = BetaSchedule::kLinear});
  EXPECT_NEAR(schedule.alpha_bar(0), 0.9, 1e-15);
  EXPECT_NEAR(schedule.alpha_bar(1), 0.9 * 0.8, 1e-15);
  EXPECT_NEAR(schedule.alpha_bar(2), 0.9 * 0.8 * 0.7, 1e-15);
}

TEST(NoiseScheduleTest, MayEndWithoutSignal) {
  const auto schedule = velocity(true);
  EXPECT_NEAR(schedule.alpha_bar(0), NoiseSchedule({}).alpha_bar(0), 1e-12);
  EXPECT_NEAR(schedule.alpha_bar(500), 0.24101864, 1e-6);
  EXPECT_EQ(schedule.alpha_bar(999), 0);
  EXPECT_EQ(schedule.snr(999), 0);
  EXPECT_EQ(schedule.sigma(999), std::numeric_limits<double>::infinity());
}

TEST(NoiseScheduleTest, MinSnrWeightsDependOnWhatIsPredicted) {
  const LossWeighting weighting{.min_snr_gamma = 5};
  const NoiseSchedule epsilon({});
  EXPECT_NEAR(epsilon.loss_weight(0, weighting), 0.00425373, 2e-7);
  EXPECT_EQ(epsilon.loss_weight(250, weighting), 1);
  // Not min(SNR + 1, gamma) / (SNR + 1), which is 1 here.
  EXPECT_NEAR(velocity().loss_weight(500, weighting), 0.27633, 1e-5);
  EXPECT_EQ(velocity(true).loss_weight(999, weighting), 0);
}

TEST(NoiseScheduleTest, OtherWeights) {
  const NoiseSchedule epsilon({});
  EXPECT_EQ(epsilon.loss_weight(500, {}), 1);
  EXPECT_NEAR(epsilon.loss_weight(0, {.debiased = true}), 1 / std::sqrt(1000.0), 1e-12);
  EXPECT_NEAR(epsilon.loss_weight(500, {.debiased = true}), 1 / std::sqrt(epsilon.snr(500)), 1e-12);
  const auto v = velocity();
  EXPECT_NEAR(v.loss_weight(500, {.debiased = true}), 1 / (v.snr(500) + 1), 1e-12);
  EXPECT_NEAR(v.loss_weight(0, {.scale_v_like_noise = true}), 1000.0 / 1001, 1e-12);
  EXPECT_NEAR(v.loss_weight(500, {.min_snr_gamma = 1, .scale_v_like_noise = true}),
              v.snr(500) / (v.snr(500) + 1) * v.snr(500) / (v.snr(500) + 1), 1e-12);
}

}  // namespace
}  // namespace lorascale::models::diffusion
