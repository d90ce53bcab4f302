// V9 to V11: rules and curves of batch scaling on the noisy quadratic model, whose expectations are
// exact (simulation/noisy_quadratic.hpp). The rates under test are those that the coordinator
// plans.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/rng.hpp"
#include "coordinator/batch/batch_fit.hpp"
#include "coordinator/rates/schedule.hpp"
#include "coordinator/step_planner.hpp"
#include "simulation/noisy_quadratic.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using simulation::Nqm;
using simulation::NqmRun;
using simulation::TunedPoint;

constexpr std::int64_t kReference = 4;  // B0
constexpr std::int64_t kBaseSteps = 8192;

const Nqm& model() {
  static const Nqm shared = simulation::harmonic_nqm();
  return shared;
}

Recipe nqm_recipe(ScaleRule rule, std::int64_t k, double lr) {
  Recipe recipe;
  recipe.samples_per_epoch = recipe.budget_samples = kReference * kBaseSteps;
  recipe.reference_batch = kReference;
  recipe.global_batch = kReference * k;
  recipe.lr = lr;
  recipe.rule = rule;
  recipe.schedule = ScheduleKind::kLinear;
  return recipe;
}

// The loss at the end of the budget, with the rates that the coordinator plans.
double loss_under(ScaleRule rule, std::int64_t k, double lr) {
  const Recipe recipe = nqm_recipe(rule, k, lr);
  NqmRun run(model());
  std::int64_t step = 0;
  for (std::int64_t seen = 0; seen < recipe.budget_samples; seen += recipe.global_batch) {
    const StepPlan plan = plan_step(recipe, first_batch(recipe), ++step, seen);
    run.step(static_cast<double>(plan.samples), plan.lr);
  }
  return run.loss();
}

struct AdaScaleRun {
  double loss = 0;
  int steps = 0;
};

// AdaScale (Johnson et al. 2020) with its gain from the known moments: r = (sigma^2 + mu^2) /
// (sigma^2 / S + mu^2), rate r lr(tau), tau += r until the base run's length.
AdaScaleRun adascale(double scale, double lr) {
  const Recipe recipe = nqm_recipe(ScaleRule::kNone, 1, lr);
  NqmRun run(model());
  AdaScaleRun result;
  const double variance = run.gradient_variance(kReference);
  for (double tau = 0; tau < kBaseSteps; ++result.steps) {
    const double squared = run.squared_gradient();
    const double gain = (variance + squared) / (variance / scale + squared);
    const auto position = static_cast<std::int64_t>(tau * kReference);
    run.step(kReference * scale, gain * lr * schedule_multiplier(recipe, position, 1));
    tau += gain;
  }
  result.loss = run.loss();
  return result;
}

// The recursion itself against trajectories with drawn noise.
TEST(Nqm, MomentsAreThoseOfTrajectories) {
  const Nqm small = simulation::harmonic_nqm(2);
  constexpr std::uint32_t kRuns = 20000;
  for (const double momentum : {0.0, 0.9}) {
    NqmRun exact(small);
    constexpr std::uint32_t kSteps = 6;
    constexpr double kBatch = 2;
    constexpr double kRate = 0.3;
    for (std::uint32_t t = 0; t < kSteps; ++t) {
      exact.step(kBatch, kRate, momentum);
    }
    double sum = 0;
    double squares = 0;
    for (std::uint32_t r = 0; r < kRuns; ++r) {
      double loss = 0;
      for (std::uint32_t i = 0; i < 2; ++i) {
        double theta = 1;
        double velocity = 0;
        for (std::uint32_t t = 0; t < kSteps; ++t) {
          const auto bits = philox4x32({r, i, t, 0}, philox_key(17));
          // The sum of four uniform numbers, shifted and scaled: mean 0, variance 1. Only the
          // first two moments enter.
          const double noise = (uniform24(bits[0]) + uniform24(bits[1]) + uniform24(bits[2]) +
                                uniform24(bits[3]) - 2.0) *
                               std::sqrt(3.0);
          const double h = small.curvature[i];
          velocity = momentum * velocity + h * theta + std::sqrt(small.noise[i] / kBatch) * noise;
          theta -= kRate * velocity;
        }
        loss += 0.5 * small.curvature[i] * theta * theta;
      }
      sum += loss;
      squares += loss * loss;
    }
    const double mean = sum / kRuns;
    const double error = std::sqrt((squares / kRuns - mean * mean) / kRuns);
    EXPECT_NEAR(exact.loss(), mean, 4 * error) << momentum;
    EXPECT_LT(error, 0.02 * mean);
  }
}

// V9: at equal samples the linear rule keeps the loss of the base batch, the others fall behind.
TEST(Nqm, V9LinearRuleKeepsTheLossAtEqualSamples) {
  struct Row {
    double lr, none, sqrt;
  };
  // Loss over base at k = 32; the last two columns to three digits.
  for (const Row& row : {Row{0.05, 5.43, 3.04}, Row{0.1, 9.74, 4.68}, Row{0.2, 21.6, 8.28}}) {
    const double base = loss_under(ScaleRule::kNone, 1, row.lr);
    EXPECT_NEAR(loss_under(ScaleRule::kNone, 32, row.lr) / base, row.none, 0.005 * row.none);
    EXPECT_NEAR(loss_under(ScaleRule::kSqrt, 32, row.lr) / base, row.sqrt, 0.005 * row.sqrt);
    for (const std::int64_t k : {2, 8, 32, 64}) {
      const double relative = loss_under(ScaleRule::kLinear, k, row.lr) / base;
      EXPECT_GE(relative, 0.98) << row.lr << " " << k;
      EXPECT_LE(relative, 1.0) << row.lr << " " << k;
    }
  }
}

// V9: where k eta h passes the limit of stability the linear rule diverges. AdaScale's gain stays
// below k while the gradient stands out of its noise, and takes more updates for it.
TEST(Nqm, V9AdaScaleConvergesWhereLinearDiverges) {
  constexpr double kRate = 0.2;
  const double base = loss_under(ScaleRule::kNone, 1, kRate);
  EXPECT_GT(loss_under(ScaleRule::kLinear, 128, kRate) / base, 1e100);
  const AdaScaleRun wide = adascale(128, kRate);
  EXPECT_NEAR(wide.loss / base, 0.845, 0.005);
  EXPECT_NEAR(wide.steps, 290, 2);  // 64 at the full gain
  for (const double scale : {2.0, 8.0, 32.0}) {
    const AdaScaleRun run = adascale(scale, kRate);
    EXPECT_LT(run.loss / base, 1) << scale;
    EXPECT_GT(run.steps, kBaseSteps / scale) << scale;
  }
  EXPECT_EQ(adascale(1, kRate).steps, kBaseSteps);  // a gain of 1 is the base run
  EXPECT_NEAR(adascale(1, kRate).loss / base, 1, 1e-12);
}

constexpr double kFirstLoss = 3.7427354;  // 1/2 sum 1/i, i = 1..1000
constexpr int kBatches = 9;               // 4^0..4^8

// Points of B = 4^0..4^8, each with its own best constant rate.
std::array<TunedPoint, kBatches> tuned(double fraction, double momentum) {
  const std::vector<double> grid = simulation::octave_grid(std::exp2(-7), 4, 8);
  std::array<TunedPoint, kBatches> points;
  double limit = 3000;
  for (int i = kBatches - 1; i >= 0; --i) {
    TunedPoint& point = points.at(static_cast<std::size_t>(i));
    point = simulation::tune_rate(model(), std::exp2(2 * i), momentum, fraction * kFirstLoss, limit,
                                  grid);
    EXPECT_FALSE(point.at_edge) << point.batch;
    limit = 4.1 * point.steps;  // no more samples than the next larger batch
  }
  return points;
}

const std::array<TunedPoint, kBatches>& tuned_sgd(double fraction) {
  static std::map<double, std::array<TunedPoint, kBatches>> known;
  const auto found = known.find(fraction);
  return found != known.end() ? found->second : known[fraction] = tuned(fraction, 0);
}

BatchFit fit_of(std::span<const TunedPoint> points) {
  std::vector<BatchPoint> measured;
  for (const TunedPoint& point : points) {
    measured.push_back({point.batch, point.steps});
  }
  return fit_batch_curve(measured);
}

double slope_of_steps(const TunedPoint& a, const TunedPoint& b) {
  return std::log(b.steps / a.steps) / std::log(b.batch / a.batch);
}
double slope_of_rate(const TunedPoint& a, const TunedPoint& b) {
  return std::log(b.lr / a.lr) / std::log(b.batch / a.batch);
}

// V10: updates to a tenth and to a fifth of the first loss lie on the hyperbola.
TEST(Nqm, V10StepsToTargetAreAHyperbola) {
  struct Row {
    double fraction, residual, critical_batch;
  };
  for (const Row& row : {Row{0.2, 0.05, 19.7}, Row{0.1, 0.075, 30.5}}) {
    const auto& points = tuned_sgd(row.fraction);
    const BatchFit fit = fit_of(points);
    EXPECT_LT(fit.max_log_residual, row.residual);
    EXPECT_NEAR(fit.critical_batch, row.critical_batch, 0.05 * row.critical_batch);
    // Perfect scaling far below the critical batch, none far above it.
    EXPECT_NEAR(slope_of_steps(points[0], points[1]), -1, 0.07) << row.fraction;
    EXPECT_NEAR(slope_of_steps(points[7], points[8]), 0, 0.01) << row.fraction;
  }
}

// V10: momentum moves the critical batch up (Zhang et al. 2019). At small batches it is plain SGD
// at lr / (1 - momentum).
TEST(Nqm, V10MomentumRaisesTheCriticalBatch) {
  const auto points = tuned(0.1, 0.9);
  const auto& plain = tuned_sgd(0.1);
  EXPECT_GT(fit_of(points).critical_batch, 4 * fit_of(plain).critical_batch);
  EXPECT_NEAR(slope_of_steps(points[0], points[1]), -1, 0.01);
  EXPECT_NEAR(points[0].steps / plain[0].steps, 1, 0.03);
  EXPECT_NEAR(points[0].lr / (1 - 0.9) / plain[0].lr, 1, 0.1);  // the grid's ratio is 1.09
}

// V11: the best rate grows almost linearly below the critical batch and not at all far above it.
TEST(Nqm, V11BestRateFollowsTheBatchUpToTheCriticalOne) {
  for (const double fraction : {0.1, 0.2}) {
    const auto& points = tuned_sgd(fraction);
    const double critical = fit_of(points).critical_batch;
    int below = 0;
    int above = 0;
    for (std::size_t i = 0; i + 1 < points.size(); ++i) {
      if (points[i + 1].batch <= critical / 4.5) {
        EXPECT_GT(slope_of_rate(points[i], points[i + 1]), 0.8) << points[i].batch;
        ++below;
      }
      if (points[i].batch > 3 * critical) {
        EXPECT_LT(slope_of_rate(points[i], points[i + 1]), 0.1) << points[i].batch;
        ++above;
      }
    }
    EXPECT_GE(below, 1);
    EXPECT_GE(above, 3);
  }
}

}  // namespace
}  // namespace lorascale::coordinator
