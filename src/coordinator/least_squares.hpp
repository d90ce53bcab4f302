// Bounded nonlinear least squares for a handful of parameters: Levenberg-Marquardt with numerical
// derivatives, parameters at a bound held there while the cost pushes outwards. Built from + - * /
// and what `residuals` uses, so that equal data give equal bits on every machine.
#pragma once

#include <functional>
#include <span>
#include <vector>

namespace lorascale::coordinator {

struct Bounds {
  double low = 0;
  double high = 0;
};

// Fills `out`, of the same length each time, for `parameters`.
using Residuals = std::function<void(std::span<const double> parameters, std::span<double> out)>;

struct LeastSquaresFit {
  std::vector<double> parameters;
  double cost = 0;  // sum of squared residuals
};

// From `start`, which is moved into the bounds. Parameters are expected to be of the order of 1. A
// parameter that no residual depends on stays where it starts.
LeastSquaresFit minimise(const Residuals& residuals, std::size_t count, std::vector<double> start,
                         std::span<const Bounds> bounds);

}  // namespace lorascale::coordinator
