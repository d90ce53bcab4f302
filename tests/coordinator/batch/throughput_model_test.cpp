#include "coordinator/batch/throughput_model.hpp"

#include "batch_support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::noise_factor;

// Means of `repeats` measurements with `sd` of noise for many leaves, accumulations and ranks.
std::vector<Timing> measured(const ThroughputParameters& truth, double sd, std::uint64_t seed) {
  std::vector<Timing> timings;
  std::uint64_t draw = 0;
  for (const std::int64_t leaf : {1, 2, 4, 8, 16, 32}) {
    for (const std::int64_t leaves : {1, 2, 4}) {
      for (const int ranks : {1, 2, 4, 8, 16, 32}) {
        Timing timing{{leaf, leaves, ranks}, 0, 0, 0};
        for (int i = 0; i < 20; ++i) {
          const double one = leaf_seconds(truth, leaf) * noise_factor(seed, ++draw, sd);
          const double all = step_seconds(truth, timing.shape) * noise_factor(seed, ++draw, sd);
          timing.add(one, all);
        }
        timings.push_back(timing);
      }
    }
  }
  return timings;
}

double worst_error(const ThroughputParameters& found, const ThroughputParameters& truth) {
  return std::max({std::abs(found.per_leaf / truth.per_leaf - 1),
                   std::abs(found.per_sample / truth.per_sample - 1),
                   std::abs(found.per_update / truth.per_update - 1),
                   std::abs(found.per_rank / truth.per_rank - 1),
                   std::abs(found.overlap / truth.overlap - 1)});
}

TEST(ThroughputModel, TimesOfAnUpdate) {
  const ThroughputParameters model{0.1, 0.02, 0.3, 0.05, 2};
  EXPECT_DOUBLE_EQ(leaf_seconds(model, 10), 0.3);
  // Two leaves before the last, which hides the rest of equal length: sqrt(2) of it.
  EXPECT_NEAR(step_seconds(model, {10, 3, 2}), 0.6 + 0.3 * std::sqrt(2.0), 1e-14);
  EXPECT_NEAR(step_seconds(model, {10, 1, 10}), std::sqrt(0.09 + 0.49), 1e-14);
  const ThroughputParameters apart{0.1, 0.02, 0.3, 0.05, 1};
  EXPECT_NEAR(step_seconds(apart, {10, 1, 1}), 0.6, 1e-14);  // nothing hidden
}

// V22: with 2 % of noise on each of 20 measurements every parameter comes back within 5 %, for
// leaves that hide nothing, some and much.
TEST(ThroughputModel, V22ParametersComeBack) {
  const ThroughputParameters truths[] = {
      {0.05, 0.01, 0.2, 0.02, 1}, {0.05, 0.01, 0.1, 0.01, 1.7}, {0.2, 0.02, 0.3, 0.02, 3}};
  double worst = 0;
  for (const ThroughputParameters& truth : truths) {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      const ThroughputFit fit = fit_throughput(measured(truth, 0.02, seed));
      worst = std::max(worst, worst_error(fit.model, truth));
      EXPECT_LT(fit.log_rmse, 0.01);  // 0.02 / sqrt(20) per row
    }
    EXPECT_LT(worst_error(fit_throughput(measured(truth, 0, 1)).model, truth), 1e-4);
  }
  EXPECT_LT(worst, 0.05);
  RecordProperty("worst", std::to_string(worst));
}

// With one shape alone nothing can be told apart, and yet its own time and that of more leaves of
// the same kind are right.
TEST(ThroughputModel, OneShapePredictsMoreLeaves) {
  const ThroughputParameters truth{0.05, 0.01, 0.1, 0.01, 1.7};
  Timing timing{{4, 2, 8}, 0, 0, 0};
  timing.add(leaf_seconds(truth, 4), step_seconds(truth, timing.shape));
  const ThroughputFit fit = fit_throughput(std::vector{timing});
  for (const std::int64_t leaves : {1, 2, 3, 40}) {
    const UpdateShape shape{4, leaves, 8};
    EXPECT_NEAR(step_seconds(fit.model, shape) / step_seconds(truth, shape), 1, 1e-5);
  }
}

// The mean of logarithms over the last 64 updates or so: an old machine is forgotten.
TEST(ThroughputModel, TimingsForget) {
  Timing timing{{4, 2, 8}, 0, 0, 0};
  for (int i = 0; i < 10; ++i) {
    timing.add(1, i % 2 == 0 ? 2 : 8);
  }
  EXPECT_NEAR(timing.log_step, std::log(4), 1e-12);
  for (int i = 0; i < 1000; ++i) {
    timing.add(3, 5);
  }
  EXPECT_EQ(timing.updates, Timing::kMemory);
  EXPECT_NEAR(timing.log_step, std::log(5), 1e-5);
  EXPECT_EQ(timing_to_json(timing_from_json(timing_to_json(timing))).dump(),
            timing_to_json(timing).dump());
}

// From the gain of AdaScale: r B0 / B with r = (phi / B0 + 1) / (phi / B + 1).
TEST(ThroughputModel, EfficiencyIsGainOverScale) {
  for (const double phi : {0.1, 30.0, 1e4}) {
    for (const double batch : {16.0, 64.0, 4096.0}) {
      const double gain = (phi / 16 + 1) / (phi / batch + 1);
      EXPECT_NEAR(efficiency(phi, 16, batch) / (gain * 16 / batch), 1, 1e-12);
    }
  }
}

}  // namespace
}  // namespace lorascale::coordinator
