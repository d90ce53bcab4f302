#include "coordinator/cadence.hpp"

#include <cmath>
#include <vector>

#include "base/rng.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::expect_error;

constexpr UnitContext kContext{1000, 64, 128.0, 20000};

Cadence every(const char* text) {
  return {parse_amount(text, Unit::kSamples), kContext};
}

Progress samples(std::int64_t count) {
  return {0, count, 0};
}
Progress steps(std::int64_t count) {
  return {count, 0, 0};
}
Progress minutes(double count) {
  return {0, 0, count};
}

TEST(Cadence, ZeroAndTheDefaultAreNever) {
  for (const Cadence& cadence :
       {Cadence(), every("0"), every("0 steps"), every("0 min"), every("0%")}) {
    EXPECT_FALSE(cadence.due({0, 0, 0}, {1000000, 1000000, 1e6}));
  }
}

TEST(Cadence, FiresWhenABoundaryIsCrossed) {
  const Cadence cadence = every("100 samples");
  EXPECT_FALSE(cadence.due(samples(0), samples(99)));
  EXPECT_TRUE(cadence.due(samples(0), samples(100)));
  EXPECT_TRUE(cadence.due(samples(99), samples(101)));  // a modulus would miss this one
  EXPECT_FALSE(cadence.due(samples(100), samples(199)));
  EXPECT_TRUE(cadence.due(samples(100), samples(350)));  // several at once fire once
  EXPECT_FALSE(cadence.due(samples(100), samples(100)));
  EXPECT_FALSE(cadence.due(samples(200), samples(100)));
}

TEST(Cadence, EachUnitUsesItsClock) {
  EXPECT_TRUE(every("500 steps").due(steps(499), steps(500)));
  EXPECT_FALSE(every("500 steps").due({0, 499, 499}, {499, 10000, 10000}));
  EXPECT_TRUE(every("2K samples").due(samples(1999), samples(2000)));
  EXPECT_TRUE(every("1 epoch").due(samples(960), samples(1000)));
  EXPECT_FALSE(every("1 epoch").due(samples(900), samples(999)));
  EXPECT_TRUE(every("12800 tokens").due(samples(99), samples(100)));  // 128 tokens a sample
  EXPECT_FALSE(every("12800 tokens").due(samples(98), samples(99)));
  EXPECT_TRUE(every("10%").due(samples(1999), samples(2000)));  // of 20000
  EXPECT_TRUE(every("10 min").due(minutes(9.99), minutes(10)));
  EXPECT_FALSE(every("10 min").due(minutes(10), minutes(19.9)));
  EXPECT_TRUE(every("30 s").due(minutes(0.4), minutes(0.6)));
}

// Boundaries are round(j x interval): fractions of an epoch end where epochs end, however many
// there were.
TEST(Cadence, FractionsDoNotDrift) {
  const UnitContext context{1007, 64, 0, 0};
  const Cadence cadence({0.1, Unit::kEpochs}, context);
  std::vector<std::int64_t> fired;
  for (std::int64_t n = 1; n <= 1007 * 50; ++n) {
    if (cadence.due(samples(n - 1), samples(n))) {
      fired.push_back(n);
    }
  }
  ASSERT_EQ(fired.size(), 500U);
  for (std::size_t j = 1; j <= fired.size(); ++j) {
    EXPECT_EQ(fired[j - 1], std::llround(100.7 * static_cast<double>(j)));
  }
  EXPECT_EQ(fired.back(), 1007 * 50);
}

TEST(Cadence, ShortIntervalsFireAtEveryUpdate) {
  for (const char* text : {"0.3 steps", "1 step"}) {
    EXPECT_TRUE(every(text).due(steps(7), steps(8))) << text;
    EXPECT_FALSE(every(text).due(steps(8), steps(8))) << text;
  }
  EXPECT_TRUE(every("1 token").due(samples(7), samples(8)));
}

// A run cut into pieces at any place fires exactly where the whole one does: for updates of any
// sizes, the union of adjacent stretches fires if and only if one of them does.
TEST(Cadence, ResumedRunsFireWhereWholeOnesDo) {
  for (const char* text : {"100 samples", "0.37 epochs", "7 steps", "3 min"}) {
    const Cadence cadence = every(text);
    Progress before;
    std::uint64_t random = 1;
    for (int i = 0; i < 2000; ++i) {
      random = mix64(random);
      Progress middle = before;
      middle.steps += 1;
      middle.samples += static_cast<std::int64_t>(random % 90);
      middle.elapsed_minutes += static_cast<double>(random % 100) / 77;
      Progress after = middle;
      after.steps += 1;
      after.samples += static_cast<std::int64_t>(random % 70);
      after.elapsed_minutes += 0.3;
      ASSERT_EQ(cadence.due(before, after),
                cadence.due(before, middle) || cadence.due(middle, after));
      before = middle;
    }
  }
}

TEST(Cadence, CountsEveryBoundaryOfALongRun) {
  const Cadence cadence = every("500 steps");
  int fired = 0;
  for (std::int64_t step = 1; step <= 10000; ++step) {
    fired += cadence.due(steps(step - 1), steps(step)) ? 1 : 0;
  }
  EXPECT_EQ(fired, 20);
}

TEST(Cadence, RefusesWhatItCannotResolve) {
  const UnitContext nothing;
  expect_error(ExitCode::kBadConfig, {"5 tokens", "tokens of a sample", "write it in samples"},
               [&] {
                 Cadence({5, Unit::kTokens}, nothing);
               });
  expect_error(ExitCode::kBadConfig, {"1 epoch", "samples of an epoch"}, [&] {
    Cadence({1, Unit::kEpochs}, nothing);
  });
  expect_error(ExitCode::kBadConfig, {"3%", "budget"}, [&] {
    Cadence({0.03, Unit::kFraction}, nothing);
  });
  expect_error(ExitCode::kBadConfig, {"-1 steps", "never"}, [&] {
    Cadence({-1, Unit::kSteps}, nothing);
  });
  expect_error(ExitCode::kBadConfig, {"never"}, [&] {
    Cadence({std::nan(""), Unit::kSteps}, nothing);
  });
}

}  // namespace
}  // namespace lorascale::coordinator
