#include "coordinator/least_squares.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.hpp"

namespace lorascale::coordinator {
namespace {

using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;  // [row][column]

double squared_sum(const Vector& values) {
  double sum = 0;
  for (const double value : values) {
    sum += value * value;
  }
  return sum;
}

// Gaussian elimination with pivoting; a column without a pivot gets 0.
Vector solve(Matrix matrix, Vector right) {
  const std::size_t n = right.size();
  std::vector<std::size_t> pivot_of(n, n);
  std::vector<bool> used(n, false);
  for (std::size_t column = 0; column < n; ++column) {
    std::size_t pivot = n;
    for (std::size_t row = 0; row < n; ++row) {
      if (!used[row] && matrix[row][column] != 0 &&
          (pivot == n || std::abs(matrix[row][column]) > std::abs(matrix[pivot][column]))) {
        pivot = row;
      }
    }
    if (pivot == n) {
      continue;
    }
    used[pivot] = true;
    pivot_of[column] = pivot;
    for (std::size_t row = 0; row < n; ++row) {
      const double factor = matrix[row][column] / matrix[pivot][column];
      if (row == pivot || factor == 0) {
        continue;
      }
      for (std::size_t k = 0; k < n; ++k) {
        matrix[row][k] -= factor * matrix[pivot][k];
      }
      right[row] -= factor * right[pivot];
    }
  }
  Vector solution(n, 0);
  for (std::size_t column = 0; column < n; ++column) {
    if (pivot_of[column] < n) {
      solution[column] = right[pivot_of[column]] / matrix[pivot_of[column]][column];
    }
  }
  return solution;
}

// Derivatives of all residuals by parameter: [parameter][residual], central differences.
Matrix derivatives(const Residuals& residuals, std::size_t count, const Vector& at) {
  constexpr double kStep = 1e-5;
  Matrix jacobian(at.size(), Vector(count));
  Vector moved = at;
  Vector below(count);
  for (std::size_t i = 0; i < at.size(); ++i) {
    moved[i] = at[i] - kStep;
    residuals(moved, below);
    moved[i] = at[i] + kStep;
    residuals(moved, jacobian[i]);
    moved[i] = at[i];
    for (std::size_t j = 0; j < count; ++j) {
      jacobian[i][j] = (jacobian[i][j] - below[j]) / (2 * kStep);
    }
  }
  return jacobian;
}

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

// The step that minimises the linearised cost under `damping`.
Vector damped_step(const Matrix& jacobian, const Vector& now, const Vector& at,
                   std::span<const Bounds> bounds, double damping) {
  const std::size_t n = at.size();
  Matrix matrix(n, Vector(n, 0));
  Vector right(n, 0);
  for (std::size_t i = 0; i < n; ++i) {
    right[i] = -dot(jacobian[i], now);
  }
  const auto held = [&](std::size_t i) {
    return (at[i] <= bounds[i].low && right[i] < 0) || (at[i] >= bounds[i].high && right[i] > 0);
  };
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < n && !held(i); ++k) {
      matrix[i][k] = held(k) ? 0 : dot(jacobian[i], jacobian[k]) * (i == k ? 1 + damping : 1);
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    right[i] = held(i) ? 0 : right[i];
  }
  return solve(std::move(matrix), std::move(right));
}

}  // namespace

LeastSquaresFit minimise(const Residuals& residuals, std::size_t count, std::vector<double> start,
                         std::span<const Bounds> bounds) {
  LS_ASSERT(start.size() == bounds.size());
  const auto inside = [&](Vector point) {
    for (std::size_t i = 0; i < point.size(); ++i) {
      point[i] = std::clamp(point[i], bounds[i].low, bounds[i].high);
    }
    return point;
  };
  constexpr int kMaxSteps = 60;
  constexpr double kEnough = 1e-10;  // relative gain of a step
  constexpr double kStuck = 1e9;
  Vector at = inside(std::move(start));
  Vector now(count);
  residuals(at, now);
  double cost = squared_sum(now);
  double damping = 1e-3;
  Vector there(count);
  for (int step = 0; step < kMaxSteps && damping < kStuck; ++step) {
    const Matrix jacobian = derivatives(residuals, count, at);
    bool better = false;
    while (!better && damping < kStuck) {
      const Vector move = damped_step(jacobian, now, at, bounds, damping);
      Vector next = at;
      for (std::size_t i = 0; i < at.size(); ++i) {
        next[i] += move[i];
      }
      next = inside(std::move(next));
      residuals(next, there);
      const double next_cost = squared_sum(there);
      better = next_cost < cost;
      if (!better) {
        damping *= 4;
        continue;
      }
      const bool enough = cost - next_cost <= kEnough * cost;
      at = std::move(next);
      std::swap(now, there);
      cost = next_cost;
      damping = std::max(damping / 5, 1e-12);
      if (enough) {
        return {at, cost};
      }
    }
  }
  return {at, cost};
}

}  // namespace lorascale::coordinator
