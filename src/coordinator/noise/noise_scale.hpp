// The gradient noise scale of one group in one metric: an unbiased estimate for each update, its
// average in sample time, and how far the average can be trusted.
//
// Estimate, for leaves of any weights n_k with n = sum n_k, all of them used:
//     S = (sum n_k |g_k|^2 - n |gbar|^2) / (K - 1),   G2 = |gbar|^2 - S / n.
// With cov(g_k) = Sigma / n_k, E sum n_k |g_k|^2 = n |G|^2 + K tr Sigma and E n |gbar|^2 =
// n |G|^2 + tr Sigma, hence E S = tr Sigma and E G2 = |G|^2. Weights count targets; n = the
// samples of the update times targets per sample, so S is stored per sample and needs no rescaling
// when the batch changes. Where documents differ much in length, the targets of one are correlated
// and 1 / n_k is an approximation.
//
// Numerator and denominator are averaged separately: the mean of ratios is biased, and so is the
// ratio once either was clamped before it was averaged.
#pragma once

#include <cstdint>
#include <variant>

#include "coordinator/noise/gradient_noise.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

struct NoiseEstimate {
  double trace = 0;            // S, per sample
  double gradient_square = 0;  // G2
};
// Why an update says nothing; such an update changes no average.
enum class NoiseFault { kNotMeasured, kFewLeaves, kNoGradient, kNotFinite };
using NoiseMeasurement = std::variant<NoiseEstimate, NoiseFault>;

// Of an update of `samples` samples, cut into `leaves` leaves with weights that sum to `weight`.
NoiseMeasurement measure_noise(const SquareNorms& norms, std::int64_t leaves, double weight,
                               double samples);
// Of two groups as one vector of parameters. A group without gradient adds nothing to either sum.
NoiseMeasurement pooled(const NoiseMeasurement& one, const NoiseMeasurement& other);

// Exact variances of one estimate for Gaussian gradients and any n_k: S is independent of gbar and
// (K - 1) S is the trace of a Wishart matrix of K - 1 degrees of freedom.
struct NoiseVariance {
  double trace = 0;            // 2 tr(Sigma^2) / (K - 1)
  double gradient_square = 0;  // 4 G'Sigma G / n + 2 tr(Sigma^2) K / ((K - 1) n^2)
};
NoiseVariance theoretical_variance(double trace_of_squared_covariance,
                                   double covariance_along_gradient, std::int64_t leaves,
                                   double samples);

// The averages, and variances and covariance of them.
struct NoiseMoments {
  double trace = 0;
  double gradient_square = 0;
  double trace_variance = 0;
  double gradient_square_variance = 0;
  double covariance = 0;
  double updates = 0;  // (sum w)^2 / sum w^2
};

class NoiseTracker {
 public:
  static constexpr double kFewestUpdates = 10;  // fewer do not even tell their own spread
  static constexpr double kLargestRelativeSd = 0.25;

  // An estimate of s samples enters with weight 1 - theta, theta = exp(-s / horizon), and all
  // earlier weights fall by theta.
  void add(const NoiseMeasurement& measurement, double samples, double horizon);

  [[nodiscard]] bool empty() const { return weight_ == 0; }
  // The spread is that of the estimates themselves (reliability weights), so it needs no model of
  // Sigma, and a gradient that changes within the horizon counts as error too.
  [[nodiscard]] NoiseMoments moments() const;
  // Relative sd of the ratio by the delta method, covariance included.
  [[nodiscard]] NoiseReading reading() const;

  [[nodiscard]] Json save() const;
  void load(const Json& state);

 private:
  double weight_ = 0;
  double squared_weight_ = 0;
  double trace_ = 0;
  double gradient_square_ = 0;
  double trace_deviation_ = 0;  // weighted sums of squared deviations and of their product
  double gradient_square_deviation_ = 0;
  double codeviation_ = 0;
  NoiseFault fault_ = NoiseFault::kNotMeasured;  // of the latest update that said nothing
};

}  // namespace lorascale::coordinator
