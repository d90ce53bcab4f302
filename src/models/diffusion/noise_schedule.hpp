// The noise of diffusion models (Ho et al. 2020): x_t = signal(t) x_0 + noise(t) e, e ~ N(0, 1),
// for t in 0 .. steps - 1, from almost no noise to almost nothing else; and how much the losses at
// different t count. Numbers are computed in fp64.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace lorascale::models::diffusion {

enum class BetaSchedule { kScaledLinear, kLinear };  // sqrt(beta), or beta, in equal steps
enum class Prediction {
  kEpsilon,   // the model tells the noise e
  kVelocity,  // signal(t) e - noise(t) x_0 (Salimans & Ho 2022)
};

struct NoiseScheduleSettings {
  std::int64_t steps = 1000;
  double beta_start = 0.00085;
  double beta_end = 0.012;
  BetaSchedule betas = BetaSchedule::kScaledLinear;
  Prediction prediction = Prediction::kEpsilon;
  // At the last step there is noise alone (Lin et al. 2024). For kVelocity: e says nothing of x_0
  // there.
  bool zero_terminal_snr = false;
};

struct LossWeighting {
  // Hang et al. 2023, > 0: min(SNR, gamma) / SNR, for velocities / (SNR + 1).
  std::optional<double> min_snr_gamma{};
  // With S = min(SNR, 1000): 1 / sqrt(S) (Yu et al. 2024), for velocities 1 / (S + 1).
  bool debiased = false;
  // S / (S + 1); of velocities.
  bool scale_v_like_noise = false;
};

class NoiseSchedule {
 public:
  explicit NoiseSchedule(const NoiseScheduleSettings& settings);

  [[nodiscard]] const NoiseScheduleSettings& settings() const { return settings_; }
  [[nodiscard]] std::int64_t steps() const { return settings_.steps; }
  // Product of 1 - beta up to t: the share of the variance that is x_0's.
  [[nodiscard]] double alpha_bar(std::int64_t t) const;
  [[nodiscard]] double signal(std::int64_t t) const;  // sqrt(alpha_bar)
  [[nodiscard]] double noise(std::int64_t t) const;   // sqrt(1 - alpha_bar)
  [[nodiscard]] double snr(std::int64_t t) const;     // alpha_bar / (1 - alpha_bar)
  [[nodiscard]] double sigma(std::int64_t t) const;   // noise / signal, perhaps infinite
  // What the mean squared error of a sample at t is multiplied by.
  [[nodiscard]] double loss_weight(std::int64_t t, const LossWeighting& weighting) const;

 private:
  NoiseScheduleSettings settings_;
  std::vector<double> alpha_bars_;  // [steps]
};

}  // namespace lorascale::models::diffusion
