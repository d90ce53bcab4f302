#include "coordinator/noise/noise_scale.hpp"

#include <limits>

#include "simulation/gradient_draws.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using simulation::draw_update;
using simulation::exact_norms;
using simulation::Normal;
using simulation::Population;
using simulation::population_of;
using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Spread {
  double sum = 0;
  double squares = 0;
  int count = 0;
  void add(double value) {
    sum += value;
    squares += value * value;
    ++count;
  }
  [[nodiscard]] double mean() const { return sum / count; }
  [[nodiscard]] double sd() const { return std::sqrt((squares - sum * sum / count) / (count - 1)); }
};

const std::vector<double> kEqual(8, 16.0);
const std::vector<double> kUnequal = {1, 2, 3, 5, 8, 13, 21, 34};

double sum_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) {
    sum += value;
  }
  return sum;
}

// V1, V2: means within 4 standard errors of the truth and spreads within 5 % of the formulas, over
// 6000 updates of 64 coordinates, for equal and for unequal leaves.
TEST(NoiseScale, V1V2UnbiasedWithTheSpreadOfTheFormulas) {
  constexpr int kDraws = 6000;
  const Population truth = population_of(64, 512);
  for (const auto& weights : {kEqual, kUnequal}) {
    const auto leaves = static_cast<std::int64_t>(weights.size());
    const double samples = sum_of(weights);
    Normal normal(11);
    Spread trace;
    Spread square;
    for (int i = 0; i < kDraws; ++i) {
      const auto drawn = draw_update(normal, truth, weights);
      const auto estimate =
          std::get<NoiseEstimate>(measure_noise(drawn.norms, leaves, samples, samples));
      trace.add(estimate.trace);
      square.add(estimate.gradient_square);
    }
    const NoiseVariance theory =
        theoretical_variance(truth.trace_of_square(), truth.along_gradient(), leaves, samples);
    const double trace_sd = std::sqrt(theory.trace);
    const double square_sd = std::sqrt(theory.gradient_square);
    EXPECT_NEAR(trace.mean(), truth.trace(), 4 * trace_sd / std::sqrt(kDraws));
    EXPECT_NEAR(square.mean(), truth.gradient_square(), 4 * square_sd / std::sqrt(kDraws));
    EXPECT_NEAR(trace.sd() / trace_sd, 1, 0.05);
    EXPECT_NEAR(square.sd() / square_sd, 1, 0.05);
    std::printf("[ seen     ] V1 %zu leaves, n = %g: S %.4f, G2 %.4f of truth; V2 sd %.3f, %.3f\n",
                weights.size(), samples, trace.mean() / truth.trace(),
                square.mean() / truth.gradient_square(), trace.sd() / trace_sd,
                square.sd() / square_sd);
  }
}

// Negative control of V1: the textbook pair for equal leaves, fed with unequal ones, is off by
// (mean 1/n_k - 1/n) / (K/n - 1/n) = 3.45.
TEST(NoiseScale, V1TheFormulaOfEqualLeavesFailsOnUnequalOnes) {
  const Population truth = population_of(64, 512);
  const double samples = sum_of(kUnequal);
  const double leaf = samples / static_cast<double>(kUnequal.size());
  Normal normal(12);
  Spread trace;
  Spread square;
  for (int i = 0; i < 2000; ++i) {
    const auto drawn = draw_update(normal, truth, kUnequal);
    const double small = drawn.plain_leaf_square / static_cast<double>(kUnequal.size());
    const double large = drawn.norms.mean_square;
    trace.add((small - large) / (1 / leaf - 1 / samples));
    square.add((samples * large - leaf * small) / (samples - leaf));
  }
  EXPECT_NEAR(trace.mean() / truth.trace(), 3.45, 0.1);
  EXPECT_LT(square.mean(), 0);
  std::printf("[ seen     ] V1 control: S %.2f, G2 %.2f of truth\n", trace.mean() / truth.trace(),
              square.mean() / truth.gradient_square());
}

// Weights may count tokens: the estimate stays per sample.
TEST(NoiseScale, WeightsOfAnyUnitGiveValuesPerSample) {
  Normal normal(5);
  const Population truth = population_of(16, 30);
  const auto drawn = draw_update(normal, truth, kUnequal);
  const double samples = sum_of(kUnequal);
  const auto plain = std::get<NoiseEstimate>(measure_noise(drawn.norms, 8, samples, samples));
  SquareNorms tokens = drawn.norms;
  tokens.weighted_leaf_square *= 640;
  const auto by_token = std::get<NoiseEstimate>(measure_noise(tokens, 8, samples * 640, samples));
  EXPECT_NEAR(by_token.trace / plain.trace, 1, 1e-12);
  EXPECT_NEAR(by_token.gradient_square / plain.gradient_square, 1, 1e-9);
}

// V3: at a noise scale of ten batches one estimate of |G|^2 has a relative sd of 2. The ratio of
// averages is within 5 % (its own relative sd is 1.7 %); clamping before averaging inflates |G|^2
// by half, and the mean of ratios is meaningless.
TEST(NoiseScale, V3RatioOfAveragesAndNotTheOtherOrders) {
  const std::vector<double> weights(4, 32.0);
  const double samples = 128;
  const Population truth = population_of(64, 10 * samples);
  Normal normal(13);
  NoiseTracker tracker;
  NoiseTracker clamped;
  Spread ratios;
  for (int i = 0; i < 24000; ++i) {
    const auto drawn = draw_update(normal, truth, weights);
    auto estimate = std::get<NoiseEstimate>(measure_noise(drawn.norms, 4, samples, samples));
    tracker.add(estimate, samples, 16000 * samples);
    ratios.add(estimate.trace / estimate.gradient_square);
    estimate.gradient_square = std::max(0.0, estimate.gradient_square);
    clamped.add(estimate, samples, 16000 * samples);
  }
  const double expected = 10 * samples;
  EXPECT_NEAR(tracker.reading().b_simple / expected, 1, 0.05);
  EXPECT_GT(clamped.reading().gradient_square / truth.gradient_square(), 1.3);
  EXPECT_LT(clamped.reading().b_simple / expected, 0.8);
  EXPECT_GT(std::abs(ratios.mean() / expected - 1), 0.1);
  std::printf(
      "[ seen     ] V3 ratio of averages %.3f (sd %.3f), |G|^2 clamped first %.2f, mean of ratios "
      "%.2f of truth\n",
      tracker.reading().b_simple / expected, tracker.reading().relative_sd,
      clamped.reading().gradient_square / truth.gradient_square(), ratios.mean() / expected);
}

// The error bar that a reading states is the spread that repeated runs have, within 15 %.
TEST(NoiseScale, TheErrorBarIsTheSpreadOfRepeatedRuns) {
  constexpr int kRuns = 300;
  const std::vector<double> weights(4, 32.0);
  const double samples = 128;
  const Population truth = population_of(32, 2 * samples);
  Normal normal(14);
  Spread readings;
  double stated = 0;
  for (int run = 0; run < kRuns; ++run) {
    NoiseTracker tracker;
    for (int i = 0; i < 150; ++i) {
      const auto drawn = draw_update(normal, truth, weights);
      tracker.add(measure_noise(drawn.norms, 4, samples, samples), samples, 50 * samples);
    }
    const NoiseReading reading = tracker.reading();
    ASSERT_TRUE(reading.known) << reading.unknown_because;
    readings.add(reading.b_simple);
    stated += reading.relative_sd / kRuns;
  }
  EXPECT_NEAR(readings.mean() / (2 * samples), 1, 0.03);
  EXPECT_NEAR(stated / (readings.sd() / readings.mean()), 1, 0.15);
  std::printf("[ seen     ] error bar: stated %.4f, seen %.4f\n", stated,
              readings.sd() / readings.mean());
}

// Where trace and gradient rise and fall together their ratio is certain, and where one rises as
// the other falls it is less so than if they did not know of each other.
TEST(NoiseScale, TheErrorBarKnowsHowBothMoveTogether) {
  const auto of = [](double trace, double gradient_square) {
    NoiseTracker tracker;
    for (int i = 0; i < 40; ++i) {
      const double up = 0.1 * (i % 2 == 0 ? 1 : -1);
      tracker.add(NoiseEstimate{100 * (1 + trace * up), 2 * (1 + gradient_square * up)}, 10, 1000);
    }
    return tracker.reading().relative_sd;
  };
  EXPECT_NEAR(of(1, 1), 0, 1e-7);
  EXPECT_NEAR(of(1, -1) / of(1, 0), 2,
              2e-3);  // the newest of 40 weighs most, so the mean is not 100
}

// Averages, spread and effective number against the definition, weights written out, with updates
// of unlike size.
TEST(NoiseScale, AveragesInSampleTime) {
  const double horizon = 300;
  NoiseTracker tracker;
  Normal normal(15);
  std::vector<double> weights;
  std::vector<NoiseEstimate> estimates;
  for (int i = 0; i < 40; ++i) {
    const double samples = 16 + 8 * (i % 4);
    const NoiseEstimate estimate{2 + 0.2 * normal(), 0.01 + 0.004 * normal()};
    const double memory = std::exp(-samples / horizon);
    for (double& earlier : weights) {
      earlier *= memory;
    }
    weights.push_back(1 - memory);
    estimates.push_back(estimate);
    tracker.add(estimate, samples, horizon);
  }
  double sum = 0;
  double squares = 0;
  NoiseMoments expected;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    sum += weights[i];
    squares += weights[i] * weights[i];
    expected.trace += weights[i] * estimates[i].trace;
    expected.gradient_square += weights[i] * estimates[i].gradient_square;
  }
  expected.trace /= sum;
  expected.gradient_square /= sum;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double factor = weights[i] / (sum - squares / sum) * squares / (sum * sum);
    const double x = estimates[i].trace - expected.trace;
    const double y = estimates[i].gradient_square - expected.gradient_square;
    expected.trace_variance += factor * x * x;
    expected.covariance += factor * x * y;
    expected.gradient_square_variance += factor * y * y;
  }
  const NoiseMoments moments = tracker.moments();
  EXPECT_NEAR(moments.trace, expected.trace, 1e-12);
  EXPECT_NEAR(moments.gradient_square, expected.gradient_square, 1e-14);
  EXPECT_NEAR(moments.updates, sum * sum / squares, 1e-9);
  EXPECT_NEAR(moments.trace_variance / expected.trace_variance, 1, 1e-9);
  EXPECT_NEAR(moments.covariance / expected.covariance, 1, 1e-9);
  EXPECT_NEAR(moments.gradient_square_variance / expected.gradient_square_variance, 1, 1e-9);

  NoiseTracker loaded;
  loaded.load(Json::parse(tracker.save().dump()));
  EXPECT_EQ(loaded.save().dump(), tracker.save().dump());
  EXPECT_EQ(loaded.reading().relative_sd, tracker.reading().relative_sd);
}

// V4: what says nothing changes nothing and leaves the reason behind.
TEST(NoiseScale, V4UnusableUpdatesChangeNothing) {
  struct Unusable {
    NoiseMeasurement measurement;
    const char* reason;
  };
  const SquareNorms sound = exact_norms(4, 64, 2, 0.1);
  const Unusable kCases[] = {
      {measure_noise(sound, 1, 64, 64), "fewer than 2 leaves"},
      {measure_noise(sound, 0, 0, 64), "fewer than 2 leaves"},
      {measure_noise({kNan, 1}, 4, 64, 64), "not finite"},
      {measure_noise({1, kInfinity}, 4, 64, 64), "not finite"},
      {measure_noise({1e200, 1e200}, 4, 64, 64), "not finite"},
      {measure_noise(sound, 4, 0, 64), "not finite"},
      {measure_noise(sound, 4, kNan, 64), "not finite"},
      {measure_noise({0, 0}, 4, 64, 64), "gradient is 0"},
  };
  NoiseTracker filled;
  for (int i = 0; i < 20; ++i) {
    filled.add(measure_noise(exact_norms(4, 64, 2 + 0.01 * (i % 3), 0.1), 4, 64, 64), 64, 6400);
  }
  ASSERT_TRUE(filled.reading().known);
  for (const Unusable& unusable : kCases) {
    NoiseTracker empty;
    EXPECT_THAT(std::string(empty.reading().unknown_because), HasSubstr("nothing was measured"));
    empty.add(unusable.measurement, 64, 6400);
    EXPECT_TRUE(empty.empty());
    EXPECT_FALSE(empty.reading().known);
    EXPECT_THAT(std::string(empty.reading().unknown_because), HasSubstr(unusable.reason));
    NoiseTracker held = filled;
    held.add(unusable.measurement, 64, 6400);
    EXPECT_EQ(held.reading().b_simple, filled.reading().b_simple);
    EXPECT_EQ(held.moments().updates, filled.moments().updates);
    EXPECT_TRUE(held.reading().known);
  }
}

// V4, I10: few updates, a negative average and a wide error bar are no knowledge.
TEST(NoiseScale, V4SaysWhyItIsNotKnown) {
  const auto fed = [](int updates, double square, double ripple) {
    NoiseTracker tracker;
    for (int i = 0; i < updates; ++i) {
      tracker.add(NoiseEstimate{2, square + (i % 2 == 0 ? ripple : -ripple)}, 64, 640000);
    }
    return tracker.reading();
  };
  EXPECT_THAT(std::string(fed(9, 0.1, 0).unknown_because), HasSubstr("too few updates"));
  EXPECT_TRUE(fed(11, 0.1, 0).known);
  EXPECT_EQ(fed(11, 0.1, 0).unknown_because, "");
  const NoiseReading negative = fed(20, -0.1, 0);
  EXPECT_FALSE(negative.known);
  EXPECT_EQ(negative.b_simple, 0);
  EXPECT_LT(negative.gradient_square, 0);
  EXPECT_THAT(std::string(negative.unknown_because), HasSubstr("not above 0"));
  EXPECT_FALSE(fed(20, 0, 0).known);
  // Relative sd of the average of 20 values with a ripple of 1.2 times the mean: 0.275; of 1:
  // 0.229.
  EXPECT_THAT(std::string(fed(20, 0.1, 0.12).unknown_because), HasSubstr("relative sd"));
  EXPECT_NEAR(fed(20, 0.1, 0.12).relative_sd, 1.2 / std::sqrt(19), 1e-3);
  EXPECT_TRUE(fed(20, 0.1, 0.1).known);
}

}  // namespace
}  // namespace lorascale::coordinator
