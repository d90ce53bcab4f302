#include "simulation/noisy_quadratic.hpp"

#include <cmath>
#include <cstddef>

namespace lorascale::simulation {
namespace {

// sum_i weight_i value_i in four interleaved sums, which a processor forms at once.
double weighted_sum(std::span<const double> weight, std::span<const double> value) {
  double sums[4] = {};
  std::size_t i = 0;
  for (; i + 4 <= weight.size(); i += 4) {
    for (std::size_t lane = 0; lane < 4; ++lane) {
      sums[lane] += weight[i + lane] * value[i + lane];
    }
  }
  for (; i < weight.size(); ++i) {
    sums[0] += weight[i] * value[i];
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

constexpr double kDiverged = 1e9;  // nothing that gets here reaches a target any more

}  // namespace

Nqm harmonic_nqm(int dimensions) {
  Nqm model;
  for (int i = 1; i <= dimensions; ++i) {
    model.curvature.push_back(1.0 / i);
    model.noise.push_back(1.0 / i);
  }
  return model;
}

NqmRun::NqmRun(const Nqm& model)
    : model_(&model),
      position_(model.curvature.size(), 1.0),
      cross_(model.curvature.size(), 0.0),
      velocity_(model.curvature.size(), 0.0) {}

void NqmRun::step(double batch, double lr, double momentum) {
  const double* h = model_->curvature.data();
  const double* c = model_->noise.data();
  const std::size_t n = position_.size();
  if (momentum == 0) {
    for (std::size_t i = 0; i < n; ++i) {
      const double kept = 1 - lr * h[i];
      position_[i] = kept * kept * position_[i] + lr * lr * c[i] / batch;
    }
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    const double velocity = momentum * momentum * velocity_[i] + 2 * momentum * h[i] * cross_[i] +
                            h[i] * h[i] * position_[i] + c[i] / batch;
    const double with_old = momentum * cross_[i] + h[i] * position_[i];  // E theta v'
    velocity_[i] = velocity;
    cross_[i] = with_old - lr * velocity;
    position_[i] += lr * (lr * velocity - 2 * with_old);
  }
}

double NqmRun::loss() const {
  return 0.5 * weighted_sum(model_->curvature, position_);
}

double NqmRun::squared_gradient() const {
  double sum = 0;
  for (std::size_t i = 0; i < position_.size(); ++i) {
    sum += model_->curvature[i] * model_->curvature[i] * position_[i];
  }
  return sum;
}

double NqmRun::gradient_variance(double batch) const {
  double sum = 0;
  for (const double variance : model_->noise) {
    sum += variance;
  }
  return sum / batch;
}

std::optional<double> steps_to_target(const Nqm& model, double batch, double lr, double momentum,
                                      double target, double limit) {
  NqmRun run(model);
  double before = run.loss();
  for (int step = 0; step < limit; ++step) {
    run.step(batch, lr, momentum);
    const double now = run.loss();
    if (now <= target) {
      return step + std::log(before / target) / std::log(before / now);
    }
    if (!(now < kDiverged)) {
      return std::nullopt;
    }
    before = now;
  }
  return std::nullopt;
}

double loss_after(const Nqm& model, double batch, double lr, int updates) {
  NqmRun run(model);
  for (int step = 0; step < updates; ++step) {
    run.step(batch, lr);
  }
  return run.loss();
}

TunedPoint tune_rate(const Nqm& model, double batch, double momentum, double target, double limit,
                     std::span<const double> grid) {
  TunedPoint best{batch, 0, limit, true};
  for (std::size_t i = grid.size(); i-- > 0;) {
    // A rate that has not arrived when the best so far had need not be followed any further.
    const auto steps = steps_to_target(model, batch, grid[i], momentum, target, best.steps);
    if (steps && *steps < best.steps) {
      best = {batch, grid[i], *steps, i == 0 || i + 1 == grid.size()};
    }
  }
  return best;
}

std::vector<double> octave_grid(double from, double to, int per_octave) {
  std::vector<double> grid;
  const int count = static_cast<int>(std::floor(per_octave * std::log2(to / from) + 1e-9));
  for (int i = 0; i <= count; ++i) {
    grid.push_back(from * std::exp2(static_cast<double>(i) / per_octave));
  }
  return grid;
}

}  // namespace lorascale::simulation
