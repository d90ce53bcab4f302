#include "coordinator/batch/batch_fit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The quantile 0.975 of Student's t: exact values, then Abramowitz and Stegun 26.7.5, whose error
// is below 1e-3 from five degrees of freedom on.
double student_t_975(int freedom) {
  constexpr std::array kSmall = {12.7062, 4.30265, 3.18245, 2.77645};
  if (freedom <= static_cast<int>(kSmall.size())) {
    return kSmall.at(static_cast<std::size_t>(freedom - 1));
  }
  constexpr double z = 1.959964;
  const double z3 = z * z * z;
  const double z5 = z3 * z * z;
  const double z7 = z5 * z * z;
  const double n = freedom;
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * n * n * n);
}

// log Phi(x) and its derivative phi(x) / Phi(x), also far out on the left.
struct LogNormal {
  double value = 0;
  double slope = 0;
};
LogNormal log_normal(double x) {
  constexpr double kRootTwoPi = 2.5066282746310002;
  if (x < -30) {
    return {-x * x / 2 - std::log(-x * kRootTwoPi), -x - 1 / x};
  }
  const double below = 0.5 * std::erfc(-x / std::numbers::sqrt2);
  return {std::log(below), std::exp(-x * x / 2) / kRootTwoPi / below};
}

// The place of the least value of `f` between `low` and `high`, by golden section.
template <class Function>
double golden_section(double low, double high, const Function& f) {
  constexpr double kRatio = 1 / std::numbers::phi;
  double left = high - kRatio * (high - low);
  double right = low + kRatio * (high - low);
  double at_left = f(left);
  double at_right = f(right);
  constexpr int kIterations = 45;  // leaves 4e-10 of the width
  for (int i = 0; i < kIterations; ++i) {
    if (at_left <= at_right) {
      high = std::exchange(right, left);
      at_right = at_left;
      left = high - kRatio * (high - low);
      at_left = f(left);
    } else {
      low = std::exchange(left, right);
      at_left = at_right;
      right = low + kRatio * (high - low);
      at_right = f(right);
    }
  }
  return at_left <= at_right ? left : right;
}

// The place of the least value: of `count` + 1 grid points, then between the neighbours of the
// best.
template <class Function>
double minimise(double low, double high, int count, const Function& f) {
  const double width = (high - low) / count;
  int best = 0;
  double least = kInfinity;
  for (int i = 0; i <= count; ++i) {
    const double value = f(low + i * width);
    if (value < least) {
      least = value;
      best = i;
    }
  }
  const double place = golden_section(low + std::max(best - 1, 0) * width,
                                      low + std::min(best + 1, count) * width, f);
  const double edge = best == 0 ? low : high;
  return (best == 0 || best == count) && f(edge) <= f(place) ? edge : place;
}

// The curve at one log B_crit = u. log S = a + log(1 + e^u / B) is then a location problem in
// a = log S_min: the cost is convex in a, and the points that reached the target enter by three
// numbers.
struct Slice {
  double count = 0;              // points that reached the target
  double centre = 0;             // mean of log S - log(1 + e^u / B)
  double squares = 0;            // of the deviations from it
  std::vector<double> censored;  // log(1 + e^u / B) - log(updates made)

  // -2 log likelihood, up to a constant, and its first two derivatives in a.
  struct Cost {
    double value = 0, first = 0, second = 0;
  };
  [[nodiscard]] Cost cost(double a, double noise) const {
    const double scale = 1 / (noise * noise);
    const double off = a - centre;
    Cost sum{(squares + count * off * off) * scale, 2 * count * off * scale, 2 * count * scale};
    for (const double margin : censored) {
      const double x = (a + margin) / noise;
      const LogNormal probability = log_normal(x);
      sum.value -= 2 * probability.value;
      sum.first -= 2 * probability.slope / noise;
      sum.second += 2 * probability.slope * (probability.slope + x) * scale;
    }
    return sum;
  }

  // The a of the least cost. Newton's method rises to it from the left without overshooting: the
  // derivative is increasing and concave.
  [[nodiscard]] double best(double noise) const {
    double a = centre;
    for (int i = 0; i < kNewton && !censored.empty(); ++i) {
      const Cost now = cost(a, noise);
      const double next = a - now.first / now.second;
      if (!(next - a > 1e-14)) {
        break;
      }
      a = next;
    }
    return a;
  }

  // The end of {a : cost <= limit} on the side of `sign`. The cost is at least its first part, so
  // that part's end lies outside, and Newton's method comes in from there.
  [[nodiscard]] double end(double sign, double limit, double noise) const {
    double a = centre +
               sign * noise * std::sqrt(std::max(0.0, (limit - squares / (noise * noise)) / count));
    for (int i = 0; i < kNewton && !censored.empty(); ++i) {
      const Cost now = cost(a, noise);
      if (!(now.value > limit) || sign * now.first <= 0) {
        break;
      }
      a -= (now.value - limit) / now.first;
    }
    return a;
  }

  static constexpr int kNewton = 50;
};

class CurveFit {
 public:
  explicit CurveFit(std::span<const BatchPoint> points) : points_(points) {
    double smallest = kInfinity;
    double largest = 0;
    for (const BatchPoint& point : points_) {
      smallest = std::min(smallest, point.batch);
      largest = std::max(largest, point.batch);
      reached_ += point.reached ? 1 : 0;
      log_steps_.push_back(std::log(point.steps));
    }
    // Beyond these the curve is within 1e-4 of one of its asymptotes at every point.
    low_ = std::log(smallest * 1e-4);
    high_ = std::log(largest * 1e4);
  }

  BatchFit run() {
    double u = minimise(low_, high_, kGrid, [&](double at) { return profile(at); });
    for (int i = 0; i < kRounds; ++i) {
      const double before = noise_;
      noise_ = noise_at(u);
      const double width = 2 * (high_ - low_) / kGrid;
      u = minimise(std::max(low_, u - width), std::min(high_, u + width), 4,
                   [&](double at) { return profile(at); });
      if (std::abs(noise_ - before) <= 1e-7 * noise_) {
        break;
      }
    }
    BatchFit fit = estimates(u);
    intervals(u, fit);
    return fit;
  }

 private:
  static constexpr int kGrid = 96;
  static constexpr int kRounds = 50;
  static constexpr double kLeastNoise = 1e-9;  // keeps exact data from dividing by zero

  [[nodiscard]] Slice slice(double u) const {
    const double critical = std::exp(u);
    Slice result;
    result.count = reached_;
    std::vector<double> places;  // log S - log(1 + e^u / B) of the points that reached the target
    for (std::size_t i = 0; i < points_.size(); ++i) {
      const double place = log_steps_[i] - std::log1p(critical / points_[i].batch);
      if (points_[i].reached) {
        places.push_back(place);
        result.centre += place / reached_;
      } else {
        result.censored.push_back(-place);
      }
    }
    for (const double place : places) {
      result.squares += (place - result.centre) * (place - result.centre);
    }
    return result;
  }

  [[nodiscard]] double profile(double u) const {
    const Slice at = slice(u);
    return at.cost(at.best(noise_), noise_).value;
  }

  // The fixed point of the EM update of sigma, with two degrees of freedom taken off: a censored
  // run far above its limit says nothing about the noise, one near it does; the lower bound keeps
  // one that contradicts the curve from throwing the iteration out.
  [[nodiscard]] double noise_at(double u) const {
    const Slice at = slice(u);
    const double a = at.best(noise_);
    double freedom = at.count - 2;
    for (const double margin : at.censored) {
      const double x = (a + margin) / noise_;
      freedom += x * log_normal(x).slope;
    }
    const double off = a - at.centre;
    const double squares = at.squares + at.count * off * off;
    return std::max(kLeastNoise, std::sqrt(squares / std::max(freedom, 0.5 * (at.count - 2))));
  }

  [[nodiscard]] BatchFit estimates(double u) const {
    BatchFit fit;
    const double a = slice(u).best(noise_);
    fit.steps_min = u >= high_ ? 0 : std::exp(a);
    fit.samples_min = u <= low_ ? 0 : std::exp(a + u);
    fit.critical_batch = u >= high_ ? kInfinity : (u <= low_ ? 0 : std::exp(u));
    fit.noise = noise_;
    fit.reached = reached_;
    fit.censored = static_cast<int>(points_.size()) - reached_;
    for (const BatchPoint& point : points_) {
      if (point.reached) {
        const double residual = std::log(point.steps / fit.steps_at(point.batch));
        fit.rms_log_residual += residual * residual / reached_;
        fit.max_log_residual = std::max(fit.max_log_residual, std::abs(residual));
      }
    }
    fit.rms_log_residual = std::sqrt(fit.rms_log_residual);
    return fit;
  }

  // Where the profile crosses `limit` between u and the end `edge` of the range; the edge itself
  // where it does not.
  [[nodiscard]] double crossing(double u, double edge, double limit) const {
    const double width = (edge > u ? 1 : -1) * (high_ - low_) / kGrid;
    double inside = u;
    double outside = u + width;
    while ((edge - outside) * width > 0 && profile(outside) <= limit) {
      inside = std::exchange(outside, outside + width);
    }
    if ((edge - outside) * width <= 0) {
      outside = edge;
      if (profile(edge) <= limit) {
        return edge;
      }
    }
    for (int i = 0; i < 40; ++i) {
      const double middle = 0.5 * (inside + outside);
      (profile(middle) <= limit ? inside : outside) = middle;
    }
    return inside;
  }

  // Every interval is the shadow of one region: all (a, u) with a cost below the limit.
  void intervals(double u, BatchFit& fit) const {
    const double t = student_t_975(reached_ - 2);
    const double limit = profile(u) + t * t;
    const double left = crossing(u, low_, limit);
    const double right = crossing(u, high_, limit);
    // The farthest a + weight u on the side of `sign`.
    const auto farthest = [&](double sign, double weight) {
      const auto cost = [&](double at) {
        return -sign * (slice(at).end(sign, limit, noise_) + weight * at);
      };
      return -sign * cost(minimise(left, right, 32, cost));
    };
    const bool open_left = left <= low_;
    const bool open_right = right >= high_;
    fit.critical_batch_95 = {open_left ? 0 : std::exp(left),
                             open_right ? kInfinity : std::exp(right)};
    fit.steps_min_95 = {open_right ? 0 : std::exp(farthest(-1, 0)), std::exp(farthest(1, 0))};
    fit.samples_min_95 = {open_left ? 0 : std::exp(farthest(-1, 1)), std::exp(farthest(1, 1))};
  }

  std::span<const BatchPoint> points_;
  std::vector<double> log_steps_;
  int reached_ = 0;
  double low_ = 0, high_ = 0;  // of log B_crit
  double noise_ = 0.1;         // where the iteration starts
};

void check(std::span<const BatchPoint> points) {
  int reached = 0;
  bool two_batches = false;
  const BatchPoint* first = nullptr;
  for (const BatchPoint& point : points) {
    if (!(point.batch > 0 && point.steps > 0 && std::isfinite(point.batch) &&
          std::isfinite(point.steps))) {
      throw_bad_input(fmt::format(
          "the batch curve cannot use batch {} with {} updates; both must be positive numbers",
          to_text(point.batch), to_text(point.steps)));
    }
    if (point.reached) {
      first = first == nullptr ? &point : first;
      two_batches = two_batches || point.batch != first->batch;
      ++reached;
    }
  }
  if (reached < 3 || !two_batches) {
    throw_bad_input(fmt::format(
        "the batch curve needs three runs at two or more batches that reached the target, and has "
        "{} of {}{}; choose an easier target, a larger budget or more batches",
        reached, points.size(), reached < 3 ? "" : ", all at one batch"));
  }
}

std::string interval_text(const Interval& interval) {
  return fmt::format("(95 %: {} to {})", to_text(interval.low),
                     std::isinf(interval.high) ? "no limit" : to_text(interval.high));
}

}  // namespace

BatchFit fit_batch_curve(std::span<const BatchPoint> points) {
  check(points);
  return CurveFit(points).run();
}

std::string describe(const BatchFit& fit) {
  std::string text = fmt::format(
      "critical batch {} {}, at least {} updates {} and {} samples {}, from {} runs that reached "
      "the target and {} that did not; scatter about the curve {} %",
      std::isinf(fit.critical_batch) ? "out of sight" : to_text(fit.critical_batch),
      interval_text(fit.critical_batch_95), to_text(fit.steps_min), interval_text(fit.steps_min_95),
      to_text(fit.samples_min), interval_text(fit.samples_min_95), fit.reached, fit.censored,
      to_text(100 * fit.noise));
  if (std::isinf(fit.critical_batch_95.high)) {
    text += "; updates still fall in proportion to the batch: measure larger batches";
  }
  if (fit.critical_batch_95.low == 0) {
    text += "; updates hardly fall with the batch: measure smaller batches";
  }
  return text;
}

}  // namespace lorascale::coordinator
