// The noisy quadratic model (Zhang et al. 2019): loss 1/2 sum_i h_i theta_i^2, where a batch of B
// samples has the gradient h_i theta_i + noise of variance c_i / B. SGD is linear, so the second
// moments of (theta, velocity) follow an exact recursion: expectations without random numbers,
// independent of the coordinator. All coordinates start at E theta^2 = 1.
#pragma once

#include <optional>
#include <span>
#include <vector>

namespace lorascale::simulation {

struct Nqm {
  std::vector<double> curvature;  // h_i; the largest rate at which plain SGD is stable: 2 / max h_i
  std::vector<double> noise;      // c_i, the variance of one sample's gradient
};

// h_i = c_i = 1 / i for i = 1..dimensions.
Nqm harmonic_nqm(int dimensions = 1000);

class NqmRun {
 public:
  explicit NqmRun(const Nqm& model);

  // theta <- theta - lr v with v <- momentum v + gradient of `batch` samples.
  void step(double batch, double lr, double momentum = 0);
  [[nodiscard]] double loss() const;                           // expected
  [[nodiscard]] double squared_gradient() const;               // mu^2 = E |G|^2
  [[nodiscard]] double gradient_variance(double batch) const;  // sigma^2 = tr Sigma / batch

 private:
  const Nqm* model_;
  std::vector<double> position_;  // E theta_i^2
  std::vector<double> cross_;     // E theta_i v_i
  std::vector<double> velocity_;  // E v_i^2
};

// Updates at a constant rate until the loss is `target`, interpolated in log loss between the
// updates around it; nothing where `limit` updates do not reach it.
std::optional<double> steps_to_target(const Nqm& model, double batch, double lr, double momentum,
                                      double target, double limit);

// The expected loss after `updates` updates at a constant rate.
double loss_after(const Nqm& model, double batch, double lr, int updates);

struct TunedPoint {
  double batch = 0;
  double lr = 0;
  double steps = 0;
  bool at_edge = false;  // of the grid: the best rate may lie outside
};
// The rate of `grid` that reaches the target in the fewest updates, at most `limit`. Where none
// does: at_edge, lr 0 and steps = limit.
TunedPoint tune_rate(const Nqm& model, double batch, double momentum, double target, double limit,
                     std::span<const double> grid);

// from, from * 2^(1/per_octave), ... up to `to`.
std::vector<double> octave_grid(double from, double to, int per_octave);

}  // namespace lorascale::simulation
