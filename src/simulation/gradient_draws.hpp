// Gradients to try the noise scale on: normal draws that are the same on every run, the norms of
// one update of real vectors, and norms whose estimate is known exactly.
#pragma once

#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "coordinator/noise/gradient_noise.hpp"

namespace lorascale::simulation {

// Standard normal by Box and Muller.
class Normal {
 public:
  explicit Normal(std::uint64_t seed) : key_(mix64(seed)) {}

  double operator()() {
    if (spare_) {
      spare_ = false;
      return second_;
    }
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    const double angle = 2 * std::numbers::pi * uniform();
    second_ = radius * std::sin(angle);
    spare_ = true;
    return radius * std::cos(angle);
  }

 private:
  double uniform() { return static_cast<double>(mix64(key_ ^ ++counter_) >> 11) * 0x1p-53; }

  std::uint64_t key_ = 0;
  std::uint64_t counter_ = 0;
  bool spare_ = false;
  double second_ = 0;
};

// A true gradient and independent Gaussian noise in each of its coordinates.
struct Population {
  std::vector<double> gradient;
  std::vector<double> variance;  // of one sample

  [[nodiscard]] double trace() const {
    double sum = 0;
    for (const double v : variance) {
      sum += v;
    }
    return sum;
  }
  [[nodiscard]] double trace_of_square() const {
    double sum = 0;
    for (const double v : variance) {
      sum += v * v;
    }
    return sum;
  }
  [[nodiscard]] double gradient_square() const {
    double sum = 0;
    for (const double g : gradient) {
      sum += g * g;
    }
    return sum;
  }
  [[nodiscard]] double along_gradient() const {
    double sum = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      sum += gradient[i] * gradient[i] * variance[i];
    }
    return sum;
  }
};

// `dimension` coordinates of unlike variance, tr Sigma = 1 and the given noise scale.
inline Population population_of(int dimension, double noise_scale) {
  Population population;
  double trace = 0;
  double square = 0;
  for (int i = 0; i < dimension; ++i) {
    population.variance.push_back(1.0 / (4 + i % 16));
    population.gradient.push_back(1 + 0.5 * (i % 5));
    trace += population.variance.back();
    square += population.gradient.back() * population.gradient.back();
  }
  for (int i = 0; i < dimension; ++i) {
    population.variance[static_cast<std::size_t>(i)] /= trace;
    population.gradient[static_cast<std::size_t>(i)] /= std::sqrt(square * noise_scale);
  }
  return population;
}

// The leaves' mean gradients, coordinate by coordinate; weights n_k are numbers of samples.
struct DrawnUpdate {
  coordinator::SquareNorms norms;
  double plain_leaf_square = 0;  // sum of |g_k|^2, not weighted
};

inline DrawnUpdate draw_update(Normal& normal, const Population& population,
                               const std::vector<double>& weights) {
  DrawnUpdate update;
  double total = 0;
  for (const double n : weights) {
    total += n;
  }
  for (std::size_t i = 0; i < population.gradient.size(); ++i) {
    double sum = 0;
    for (const double n : weights) {
      const double g = population.gradient[i] + std::sqrt(population.variance[i] / n) * normal();
      sum += n * g;
      update.norms.weighted_leaf_square += n * g * g;
      update.plain_leaf_square += g * g;
    }
    update.norms.mean_square += sum / total * (sum / total);
  }
  return update;
}

// Norms whose estimate is exactly this trace per sample and this |G|^2.
inline coordinator::SquareNorms exact_norms(double leaves, double samples, double trace,
                                            double gradient_square) {
  const double mean_square = gradient_square + trace / samples;
  return {(leaves - 1) * trace + samples * mean_square, mean_square};
}

inline coordinator::GroupNorms exact_group(const std::string& name, double samples, double trace,
                                           double gradient_square) {
  constexpr std::int64_t kLeaves = 4;
  return {name, kLeaves, samples, exact_norms(kLeaves, samples, trace, gradient_square), {}};
}

}  // namespace lorascale::simulation
