#include "coordinator/rates/lr_finder.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "simulation/noisy_quadratic.hpp"
#include "simulation/normal.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using simulation::normal;
using simulation::Nqm;
using simulation::NqmRun;
using testing::expect_error;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Reports loss(update, rate of the update before) until the test ends.
LrRange run_test(const LrFinderSettings& settings,
                 const std::function<double(std::int64_t, double)>& loss) {
  LrFinder finder(settings);
  double before = 0;
  for (std::int64_t update = 0;; ++update) {
    const auto lr = finder.next_lr();
    if (!lr) {
      return finder.result();
    }
    finder.report(loss(update, before));
    before = *lr;
  }
}

TEST(LrFinder, RatesAreSpacedEvenlyInTheLogarithm) {
  const LrFinder finder({.from = 3e-6, .to = 0.7, .updates = 40});
  EXPECT_EQ(finder.rate(0), 3e-6);
  EXPECT_EQ(finder.rate(39), 0.7);
  for (std::int64_t i = 0; i < 40; ++i) {
    const double expected = 3e-6 * std::pow(0.7 / 3e-6, static_cast<double>(i) / 39);
    EXPECT_NEAR(finder.rate(i), expected, 1e-13 * expected);
  }
  std::int64_t updates = 0;
  run_test({.from = 3e-6, .to = 0.7, .updates = 40}, [&](std::int64_t, double) {
    ++updates;
    return 1.0;
  });
  EXPECT_EQ(updates, 40);
}

// Ten losses of 1, then losses of 20: the corrected average is written out.
TEST(LrFinder, EndsAtAMultipleOfTheBestAverage) {
  constexpr double kSmoothing = 0.95;
  LrFinder finder({.smoothing = kSmoothing});
  for (int i = 0; i < 10; ++i) {
    finder.report(1);
  }
  for (int j = 1;; ++j) {
    ASSERT_FALSE(finder.diverged());
    finder.report(20);
    const double kept = std::pow(kSmoothing, j);
    const double average = ((1 - std::pow(kSmoothing, 10)) * kept + 20 * (1 - kept)) /
                           (1 - std::pow(kSmoothing, 10 + j));
    ASSERT_EQ(finder.diverged(), average > 4) << j;
    if (finder.diverged()) {
      EXPECT_FALSE(finder.next_lr());
      EXPECT_GE(j, 2);
      break;
    }
  }
}

TEST(LrFinder, EndsAtALossThatIsNotFinite) {
  for (const double loss : {kInfinity, -kInfinity, std::nan("")}) {
    LrFinder finder({});
    finder.report(2);
    finder.report(loss);
    EXPECT_TRUE(finder.diverged());
    EXPECT_FALSE(finder.next_lr());
    EXPECT_EQ(finder.losses().size(), 1U);
    EXPECT_EQ(finder.result().verdict, LrVerdict::kNoDescent);
    EXPECT_THAT(finder.result().reason, HasSubstr("start from a lower rate"));
  }
}

double best_constant_rate(const Nqm& model, double batch, int updates) {
  double best = 0;
  double least = kInfinity;
  for (const double lr : simulation::octave_grid(std::exp2(-9), 2, 8)) {
    const double loss = simulation::loss_after(model, batch, lr, updates);
    if (loss < least) {
      least = loss;
      best = lr;
    }
  }
  return best;
}

// V24: on the noisy quadratic model, where no rate above 2 / h_1 = 2 is stable, the bracket holds
// the best constant rate of as many updates as the test makes, at every batch. It is less than half
// as wide as the range. Where curvatures are spread, as a network's are, the suggestion is within a
// factor of 3 of the best rate, and costs little where noise matters.
TEST(LrFinder, V24BracketHoldsTheBestConstantRate) {
  const Nqm harmonic = simulation::harmonic_nqm(300);
  Nqm even = harmonic;  // as much noise, evenly spread
  for (double& noise : even.noise) {
    noise = 6.28 / 300;
  }
  const Nqm single = simulation::harmonic_nqm(1);
  for (const Nqm* model : std::initializer_list<const Nqm*>{&harmonic, &even, &single}) {
    for (const int updates : {50, 100, 200}) {
      for (const double batch : {1.0, 4.0, 64.0, 65536.0}) {
        const double best = best_constant_rate(*model, batch, updates);
        NqmRun run(*model);
        const LrRange range =
            run_test({.from = 1e-6, .to = 30, .updates = updates}, [&](std::int64_t i, double lr) {
              if (i > 0) {
                run.step(batch, lr);
              }
              return run.loss();
            });
        const auto where = ::testing::Message() << updates << " updates of " << batch;
        EXPECT_EQ(range.verdict, LrVerdict::kBracket) << where;
        EXPECT_LE(range.low, best) << where;
        EXPECT_GE(range.high, best) << where;
        EXPECT_LT(range.low, range.suggestion);
        EXPECT_GT(range.high, range.suggestion);
        EXPECT_LT(range.suggestion, 2) << where;  // stable
        EXPECT_LT(std::log10(range.high / range.low), 2.9) << where;
        if (model != &single) {
          EXPECT_LT(std::abs(std::log(range.suggestion / best)), std::log(3)) << where;
        }
        if (model != &single && batch <= 4) {
          EXPECT_LT(simulation::loss_after(*model, batch, range.suggestion, updates) /
                        simulation::loss_after(*model, batch, best, updates),
                    1.3)
              << where;
        }
      }
    }
  }
}

// The losses of one trajectory of the model, each with the scatter of a batch's loss on top.
LrRange noisy_test(const Nqm& model, std::uint32_t run, double batch, double scatter) {
  const auto d = static_cast<std::uint32_t>(model.curvature.size());
  std::vector<double> theta(d);
  for (std::uint32_t i = 0; i < d; ++i) {
    theta[i] = normal(31, run, 1U << 20, i);
  }
  return run_test({.from = 1e-6, .to = 10, .updates = 100}, [&](std::int64_t step, double lr) {
    const auto update = static_cast<std::uint32_t>(step);
    double loss = 0;
    for (std::uint32_t i = 0; i < d; ++i) {
      if (step > 0) {
        theta[i] -= lr * (model.curvature[i] * theta[i] +
                          std::sqrt(model.noise[i] / batch) * normal(31, run, update, i));
      }
      loss += 0.5 * model.curvature[i] * theta[i] * theta[i];
    }
    return loss * (1 + scatter * normal(31, run, update, d));
  });
}

// V24 with drawn noise: in the gradients, and of 20 % in each loss.
TEST(LrFinder, V24BracketHoldsTheBestRateOfNoisyRuns) {
  const Nqm model = simulation::harmonic_nqm(50);
  for (const double batch : {4.0, 64.0}) {
    const double best = best_constant_rate(model, batch, 100);
    int found = 0;
    int held = 0;
    for (std::uint32_t run = 0; run < 60; ++run) {
      const LrRange range = noisy_test(model, run, batch, 0.2);
      found += range.verdict == LrVerdict::kBracket ? 1 : 0;
      held += range.low <= best && best <= range.high ? 1 : 0;
    }
    EXPECT_GE(found, 54) << batch;
    EXPECT_GE(held, found - 2) << batch;
  }
}

// A range without a descent is said to have none.
TEST(LrFinder, ReportsThatThereIsNoUsableDescent) {
  const LrRange flat = run_test({}, [](std::int64_t, double) { return 2.5; });
  EXPECT_EQ(flat.verdict, LrVerdict::kNoDescent);
  EXPECT_EQ(flat.suggestion, 0);
  EXPECT_THAT(flat.reason, HasSubstr("a higher last rate"));

  const LrRange rising =
      run_test({}, [](std::int64_t i, double) { return 1 + 0.001 * static_cast<double>(i * i); });
  EXPECT_EQ(rising.verdict, LrVerdict::kNoDescent);
  EXPECT_THAT(rising.reason, HasSubstr("a lower first rate"));

  for (const std::int64_t updates : {20, 50, 100, 400}) {
    int descents = 0;
    for (std::uint32_t run = 0; run < 500; ++run) {
      const LrRange range = run_test({.updates = updates}, [&](std::int64_t i, double) {
        return 3 + 0.3 * normal(31, run, static_cast<std::uint32_t>(i));
      });
      descents += range.verdict == LrVerdict::kNoDescent ? 0 : 1;
    }
    EXPECT_LE(descents, 10) << updates << " updates: scatter taken for a descent";
  }
}

TEST(LrFinder, SaysWhenTheLossStillFallsAtTheEnd) {
  const LrRange range = run_test({.from = 1e-6, .to = 1e-2},
                                 [](std::int64_t, double lr) { return 2 - std::sqrt(lr); });
  EXPECT_EQ(range.verdict, LrVerdict::kOpenAbove);
  EXPECT_THAT(range.reason, HasSubstr("higher last rate"));
  EXPECT_GT(range.high, 0.7e-2);
}

// A rate is judged by the loss that follows it: the last stable one is that before the wall.
TEST(LrFinder, TheUpperEndIsTheLastRateThatDidNoHarm) {
  const LrFinderSettings settings{.from = 1e-5, .to = 1};
  const LrFinder grid(settings);
  const LrRange range = run_test(settings, [&](std::int64_t i, double lr) {
    return lr >= grid.rate(70) ? kInfinity : 3 - 0.01 * static_cast<double>(i);
  });
  EXPECT_EQ(range.verdict, LrVerdict::kBracket);
  EXPECT_EQ(range.high, grid.rate(69));
}

// Falls around a rate of 1e-3 and rises beyond 3e-2, up to `ceiling`.
double valley(double lr, double ceiling) {
  return std::min(ceiling, 4 - 2 / (1 + std::sqrt(1e-3 / std::max(lr, 1e-12))) + 1e3 * lr * lr);
}

// A loss with a ceiling below four times the best never ends the test; the bracket is the same.
TEST(LrFinder, ASaturatedLossHasTheSameBracket) {
  const LrFinderSettings settings{.from = 1e-6, .to = 1};
  bool ended = false;
  const LrRange open = run_test(settings, [](std::int64_t, double lr) { return valley(lr, 1e9); });
  const LrRange capped = run_test(settings, [&](std::int64_t i, double lr) {
    ended = i + 1 == settings.updates;
    return valley(lr, 6);
  });
  EXPECT_TRUE(ended);
  EXPECT_EQ(open.low, capped.low);
  EXPECT_EQ(open.high, capped.high);
  EXPECT_EQ(capped.verdict, LrVerdict::kBracket);
}

// Beyond the turn a loss may end up anywhere, also below what the good rates reached.
TEST(LrFinder, WhatComesAfterTheTurnDoesNotCount) {
  const auto curve = [](double end) {
    return run_test({.from = 1e-6, .to = 1}, [end](std::int64_t update, double before) {
      const double scatter = 1e-3 * normal(7, 0, static_cast<std::uint32_t>(update));
      const double fall = before < 1e-2 ? std::min(1.0, before / 3e-3) : before < 0.1 ? 0.2 : end;
      return 5 - fall + scatter;
    });
  };
  const LrRange range = curve(1.5);
  EXPECT_EQ(range.verdict, LrVerdict::kBracket);
  EXPECT_NEAR(range.high, 1e-2, 2e-3);
  EXPECT_EQ(range.high, curve(0).high);
}

// The average that ends the test has no part in reading the curve, and units of the loss have none.
TEST(LrFinder, BracketDependsOnTheCurveAlone) {
  const auto loss = [](std::int64_t, double lr) { return valley(lr, 6); };
  const LrRange one = run_test({.from = 1e-6, .to = 1, .smoothing = 0.5}, loss);
  const LrRange other = run_test({.from = 1e-6, .to = 1, .smoothing = 0.98}, loss);
  const LrRange scaled =
      run_test({.from = 1e-6, .to = 1}, [](std::int64_t, double lr) { return 64 * valley(lr, 6); });
  for (const LrRange& range : {other, scaled}) {
    EXPECT_EQ(range.low, one.low);
    EXPECT_EQ(range.high, one.high);
    EXPECT_EQ(range.steepest, one.steepest);
  }
  EXPECT_NEAR(scaled.slope, 64 * one.slope, 1e-9 * std::abs(scaled.slope));
  EXPECT_EQ(one.reason, other.reason);
}

// Each rate with the loss after it; the smoothed one is a median of five, of fewer at the ends.
TEST(LrFinder, TheCurveIsOfTheLossAfterEachRate) {
  LrFinder finder({.from = 1e-4, .to = 1, .updates = 30});
  EXPECT_TRUE(finder.curve().empty());
  const std::vector<double> losses = {9, 4, 7, 3, 8, 2, 6};
  for (const double loss : losses) {
    finder.report(loss);
  }
  const auto curve = finder.curve();
  const std::vector<double> medians = {4, 4, 4, 6, 6, 6};  // of 4, 4 7 3, 4 7 3 8 2, ...
  ASSERT_EQ(curve.size(), losses.size() - 1);
  for (std::size_t i = 0; i < curve.size(); ++i) {
    EXPECT_EQ(curve[i].lr, finder.rate(static_cast<std::int64_t>(i)));
    EXPECT_EQ(curve[i].loss, losses[i + 1]);
    EXPECT_EQ(curve[i].smoothed, medians[i]) << i;
  }
}

// dloss/dlog(lr) of a loss that is linear in log(lr) is its coefficient.
TEST(LrFinder, SlopeIsPerFactorE) {
  const LrRange range = run_test({.from = 1e-6, .to = 1e-2}, [](std::int64_t, double lr) {
    return lr == 0 ? 4.0 : 1 - 0.2 * std::log(lr);
  });
  EXPECT_NEAR(range.slope, -0.2, 1e-9);
}

TEST(LrFinder, RefusesSettingsThatMakeNoTest) {
  const auto refuses = [](const LrFinderSettings& settings, const char* words) {
    expect_error(ExitCode::kBadConfig, {words}, [&] { LrFinder finder(settings); });
  };
  refuses({.from = 0}, "from 0 to 1");
  refuses({.from = 1, .to = 1}, "must rise");
  refuses({.to = kInfinity}, "must rise");
  refuses({.updates = 19}, "at least 20");
  refuses({.smoothing = 1}, "below 1");
  refuses({.divergence = 1}, "above 1");
}

}  // namespace
}  // namespace lorascale::coordinator
