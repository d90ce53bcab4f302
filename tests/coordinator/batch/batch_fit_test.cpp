#include "coordinator/batch/batch_fit.hpp"

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "simulation/normal.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using simulation::normal;
using testing::expect_error;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kStepsMin = 200;
constexpr double kCriticalBatch = 64;
constexpr double kNoise = 0.05;

// Runs of 2^0..2^11 samples an update that end at the target or at `limit(batch)` updates.
std::vector<BatchPoint> measured(std::uint32_t repeat, double noise,
                                 const std::function<double(double)>& limit) {
  std::vector<BatchPoint> points;
  for (std::uint32_t i = 0; i < 12; ++i) {
    const double batch = std::exp2(i);
    const double steps =
        kStepsMin * (1 + kCriticalBatch / batch) * std::exp(noise * normal(2024, repeat, i));
    points.push_back({batch, std::min(steps, limit(batch)), steps <= limit(batch)});
  }
  return points;
}

double no_limit(double) {
  return kInfinity;
}
// Runs of B = 1 are always cut, of B = 2 mostly, and of B = 2048 every second time.
double tight_limit(double batch) {
  return std::min(6500.0, 422000 / batch);
}

TEST(BatchFit, RecoversAnExactCurve) {
  const BatchFit fit = fit_batch_curve(measured(0, 0, no_limit));
  EXPECT_NEAR(fit.steps_min, kStepsMin, 1e-6 * kStepsMin);
  EXPECT_NEAR(fit.critical_batch, kCriticalBatch, 1e-6 * kCriticalBatch);
  EXPECT_NEAR(fit.samples_min, kStepsMin * kCriticalBatch, 1e-6 * kStepsMin * kCriticalBatch);
  EXPECT_LT(fit.max_log_residual, 1e-7);
  EXPECT_LT(fit.critical_batch_95.high / fit.critical_batch_95.low, 1 + 1e-6);
  EXPECT_EQ(fit.reached, 12);
  EXPECT_EQ(fit.censored, 0);
  EXPECT_NEAR(fit.steps_at(16), kStepsMin * 5, 1e-3);
}

// Written out from the definition, on a fine grid: the least cost and the extent of the region
// below the limit.
TEST(BatchFit, EqualsASearchByBruteForce) {
  const std::vector<BatchPoint> points = measured(3, kNoise, tight_limit);
  const BatchFit fit = fit_batch_curve(points);
  ASSERT_GE(fit.censored, 1);
  const auto cost = [&](double a, double u) {
    double sum = 0;
    for (const BatchPoint& point : points) {
      const double curve = a + std::log(1 + std::exp(u) / point.batch);
      const double z = (std::log(point.steps) - curve) / fit.noise;
      sum += point.reached ? z * z : -2 * std::log(0.5 * std::erfc(z / std::numbers::sqrt2));
    }
    return sum;
  };
  const double a0 = std::log(fit.steps_min);
  const double u0 = std::log(fit.critical_batch);
  const double least = cost(a0, u0);
  const double t = std::array{2.36462, 2.30600, 2.26216, 2.22814}.at(
      static_cast<std::size_t>(fit.reached - 2 - 7));
  constexpr double kStep = 5e-4;
  double low_a = a0, high_a = a0, low_u = u0, high_u = u0, low_e = a0 + u0, high_e = a0 + u0;
  for (double a = a0 - 0.15; a < a0 + 0.15; a += kStep) {
    for (double u = u0 - 0.25; u < u0 + 0.25; u += kStep) {
      const double here = cost(a, u);
      ASSERT_GE(here, least - 1e-9) << a << " " << u;
      if (here <= least + t * t) {
        low_a = std::min(low_a, a), high_a = std::max(high_a, a);
        low_u = std::min(low_u, u), high_u = std::max(high_u, u);
        low_e = std::min(low_e, a + u), high_e = std::max(high_e, a + u);
      }
    }
  }
  constexpr double kTolerance = 4 * kStep;
  EXPECT_NEAR(std::log(fit.steps_min_95.low), low_a, kTolerance);
  EXPECT_NEAR(std::log(fit.steps_min_95.high), high_a, kTolerance);
  EXPECT_NEAR(std::log(fit.critical_batch_95.low), low_u, kTolerance);
  EXPECT_NEAR(std::log(fit.critical_batch_95.high), high_u, kTolerance);
  EXPECT_NEAR(std::log(fit.samples_min_95.low), low_e, kTolerance);
  EXPECT_NEAR(std::log(fit.samples_min_95.high), high_e, kTolerance);
}

struct Coverage {
  double steps_min = 0, critical_batch = 0, samples_min = 0;  // fractions of the repeats
  double mean_noise = 0;
  double mean_log_samples = 0;  // of E_min
};

constexpr std::uint32_t kRepeats = 1000;

Coverage coverage(std::uint32_t repeats, const std::function<double(double)>& limit,
                  const std::function<void(std::vector<BatchPoint>&)>& change) {
  Coverage sum;
  for (std::uint32_t repeat = 0; repeat < repeats; ++repeat) {
    std::vector<BatchPoint> points = measured(repeat, kNoise, limit);
    change(points);
    const BatchFit fit = fit_batch_curve(points);
    sum.steps_min += fit.steps_min_95.contains(kStepsMin) ? 1 : 0;
    sum.critical_batch += fit.critical_batch_95.contains(kCriticalBatch) ? 1 : 0;
    sum.samples_min += fit.samples_min_95.contains(kStepsMin * kCriticalBatch) ? 1 : 0;
    sum.mean_noise += fit.noise;
    sum.mean_log_samples += std::log(fit.samples_min);
  }
  const double n = repeats;
  return {sum.steps_min / n, sum.critical_batch / n, sum.samples_min / n, sum.mean_noise / n,
          sum.mean_log_samples / n};
}

void expect_95(double fraction) {
  EXPECT_GE(fraction, 0.93);
  EXPECT_LE(fraction, 0.97);
}

// V23: the 95 % intervals contain the truth in 93 to 97 % of 1000 repeats.
TEST(BatchFit, V23CoverageWithAllRunsAtTheTarget) {
  const Coverage seen = coverage(kRepeats, no_limit, [](auto&) {});
  expect_95(seen.steps_min);
  expect_95(seen.critical_batch);
  expect_95(seen.samples_min);
  EXPECT_NEAR(seen.mean_noise, kNoise, 0.03 * kNoise);
}

TEST(BatchFit, V23CoverageWithCensoredRuns) {
  const Coverage seen = coverage(kRepeats, tight_limit, [](auto&) {});
  expect_95(seen.steps_min);
  expect_95(seen.critical_batch);
  expect_95(seen.samples_min);
  EXPECT_NEAR(seen.mean_noise, kNoise, 0.05 * kNoise);
}

// The control: a run that was cut off, taken for one that arrived, bends the curve by far more than
// the noise does, and most of all the samples that small batches need.
TEST(BatchFit, V23CensoredRunsAreNotRunsThatArrived) {
  const auto as_arrived = [](std::vector<BatchPoint>& points) {
    for (BatchPoint& point : points) {
      point.reached = true;
    }
  };
  const Coverage right = coverage(200, tight_limit, [](auto&) {});
  const Coverage wrong = coverage(200, tight_limit, as_arrived);
  EXPECT_NEAR(right.mean_log_samples, std::log(kStepsMin * kCriticalBatch), 0.005);
  EXPECT_LT(wrong.mean_log_samples, std::log(kStepsMin * kCriticalBatch) - 0.1);
  EXPECT_GT(wrong.mean_noise, 3 * kNoise);
}

TEST(BatchFit, CurvesWithoutABendHaveAnOpenEnd) {
  std::vector<BatchPoint> perfect;
  std::vector<BatchPoint> flat;
  for (std::uint32_t i = 0; i < 8; ++i) {
    const double batch = std::exp2(i);
    const double scatter = std::exp(kNoise * normal(2024, 5, i));
    perfect.push_back({batch, 1e5 / batch * scatter});
    flat.push_back({batch, 300 * scatter});
  }
  const BatchFit falling = fit_batch_curve(perfect);
  EXPECT_EQ(falling.critical_batch_95.high, kInfinity);
  EXPECT_GT(falling.critical_batch_95.low, 128);
  EXPECT_EQ(falling.steps_min_95.low, 0);
  EXPECT_TRUE(falling.samples_min_95.contains(1e5));
  EXPECT_THAT(describe(falling), HasSubstr("measure larger batches"));

  const BatchFit level = fit_batch_curve(flat);
  EXPECT_EQ(level.critical_batch_95.low, 0);
  EXPECT_LT(level.critical_batch_95.high, 1);
  EXPECT_TRUE(level.steps_min_95.contains(300));
  EXPECT_EQ(level.samples_min_95.low, 0);
  EXPECT_THAT(describe(level), HasSubstr("measure smaller batches"));
}

// A censored run that contradicts the curve pulls it up; one far below its limit changes nothing.
TEST(BatchFit, ACensoredRunCountsByWhatItSays) {
  std::vector<BatchPoint> points = measured(9, kNoise, no_limit);
  const BatchFit before = fit_batch_curve(points);
  points.push_back({4, 100, false});  // the curve says 3400
  const BatchFit idle = fit_batch_curve(points);
  EXPECT_NEAR(idle.critical_batch, before.critical_batch, 1e-5 * before.critical_batch);
  EXPECT_NEAR(idle.samples_min_95.high, before.samples_min_95.high,
              1e-5 * before.samples_min_95.high);
  points.back() = {4, 4000, false};
  EXPECT_GT(fit_batch_curve(points).samples_min, 1.01 * before.samples_min);
}

TEST(BatchFit, RefusesWhatCannotBeFitted) {
  std::vector<BatchPoint> points = {{4, 100}, {8, 60}, {16, 50, false}};
  expect_error(ExitCode::kBadInput, {"2 of 3", "easier target"}, [&] { fit_batch_curve(points); });
  points = {{4, 100}, {4, 60}, {4, 50}};
  expect_error(ExitCode::kBadInput, {"all at one batch"}, [&] { fit_batch_curve(points); });
  points = {{4, 100}, {8, 0}, {16, 50}};
  expect_error(ExitCode::kBadInput, {"batch 8 with 0 updates"}, [&] { fit_batch_curve(points); });
  points[1].steps = kInfinity;
  expect_error(ExitCode::kBadInput, {"batch 8 with inf updates"}, [&] { fit_batch_curve(points); });
}

TEST(BatchFit, SaysItInWords) {
  EXPECT_THAT(describe(fit_batch_curve(measured(1, kNoise, tight_limit))),
              ::testing::AllOf(HasSubstr("critical batch 6"), HasSubstr("(95 %: "),
                               HasSubstr("runs that reached the target")));
}

}  // namespace
}  // namespace lorascale::coordinator
