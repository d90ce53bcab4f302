// Sign descent, what Adam does where gradient noise dominates: theta_i <- theta_i - lr sign(g_i)
// with g_i ~ N(G_i, sigma_i^2 / B), coordinates independent. Closed forms for the expected sign and
// for the best rate of one update on a quadratic (re-derivation of Li et al. 2024, "Surge
// phenomenon"; checked against enumeration in sign_descent_test.cpp).
#pragma once

#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

namespace lorascale::simulation {

// E sign(g) for g ~ N(mean, deviation^2 / batch).
inline double expected_sign(double mean, double deviation, double batch) {
  return std::erf(mean * std::sqrt(batch / 2) / deviation);
}

struct OneStepQuadratic {
  std::vector<double> gradient;              // G_i
  std::vector<double> deviation;             // sigma_i of one sample
  std::vector<std::vector<double>> hessian;  // H_ij
};

// d coordinates of equal gradient and deviation, H_ii = 1 and H_ij = rho.
inline OneStepQuadratic uniform_quadratic(std::size_t d, double gradient, double deviation,
                                          double rho) {
  OneStepQuadratic model{std::vector<double>(d, gradient), std::vector<double>(d, deviation),
                         std::vector<std::vector<double>>(d, std::vector<double>(d, rho))};
  for (std::size_t i = 0; i < d; ++i) {
    model.hessian[i][i] = 1;
  }
  return model;
}

// The expected loss falls by lr slope - lr^2 / 2 bend.
struct ExpectedFall {
  double slope = 0;  // sum_i G_i s_i
  double bend = 0;   // sum_i H_ii + sum_{i != j} H_ij s_i s_j
  [[nodiscard]] double best_rate() const { return slope / bend; }
};

inline ExpectedFall expected_fall(const OneStepQuadratic& model, double batch) {
  const std::size_t d = model.gradient.size();
  std::vector<double> sign(d);
  for (std::size_t i = 0; i < d; ++i) {
    sign[i] = expected_sign(model.gradient[i], model.deviation[i], batch);
  }
  ExpectedFall fall;
  for (std::size_t i = 0; i < d; ++i) {
    fall.slope += model.gradient[i] * sign[i];
    for (std::size_t j = 0; j < d; ++j) {
      fall.bend += model.hessian[i][j] * (i == j ? 1 : sign[i] * sign[j]);
    }
  }
  return fall;
}

// Where noise and mean of a coordinate's sign balance: (pi / 2) sigma^2 / mu^2.
inline double sign_noise_batch(double gradient, double deviation) {
  return std::numbers::pi / 2 * (deviation / gradient) * (deviation / gradient);
}

}  // namespace lorascale::simulation
