#include "base/units.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace lorascale {
namespace {

TEST(Units, ReadsEveryForm) {
  EXPECT_EQ(parse_amount("500 steps", Unit::kSamples), (Amount{500, Unit::kSteps}));
  EXPECT_EQ(parse_amount("1 step", Unit::kSamples), (Amount{1, Unit::kSteps}));
  EXPECT_EQ(parse_amount("2M samples", Unit::kSteps), (Amount{2e6, Unit::kSamples}));
  EXPECT_EQ(parse_amount("2 epochs", Unit::kSamples), (Amount{2, Unit::kEpochs}));
  EXPECT_EQ(parse_amount("0.5 epoch", Unit::kSamples), (Amount{0.5, Unit::kEpochs}));
  EXPECT_EQ(parse_amount("10 min", Unit::kSamples), (Amount{10, Unit::kMinutes}));
  EXPECT_EQ(parse_amount("10m", Unit::kSamples), (Amount{10, Unit::kMinutes}));
  EXPECT_EQ(parse_amount("2 h", Unit::kSamples), (Amount{120, Unit::kMinutes}));
  EXPECT_EQ(parse_amount("90 s", Unit::kSamples), (Amount{1.5, Unit::kMinutes}));
  EXPECT_EQ(parse_amount("90 sec", Unit::kSamples), (Amount{1.5, Unit::kMinutes}));
  EXPECT_EQ(parse_amount("1B tokens", Unit::kSamples), (Amount{1e9, Unit::kTokens}));
  EXPECT_EQ(parse_amount(" 64 ", Unit::kSteps), (Amount{64, Unit::kSteps}));
  EXPECT_EQ(parse_amount("64K", Unit::kSamples), (Amount{64000, Unit::kSamples}));
  const Amount percent = parse_amount("3%", Unit::kSamples);
  EXPECT_EQ(percent.unit, Unit::kFraction);
  EXPECT_DOUBLE_EQ(percent.value, 0.03);
}

TEST(Units, RefusesWhatIsNoAmount) {
  for (const char* text :
       {"", "steps", "-1 steps", "nan", "inf samples", "3 parsecs", "3 % x", "1e400"}) {
    EXPECT_THROW(parse_amount(text, Unit::kSamples), Error) << text;
  }
}

TEST(Units, WritesWhatItReads) {
  for (const char* text : {"500 steps", "0.5 epochs", "10 min", "3%", "2000000 samples"}) {
    const Amount amount = parse_amount(text, Unit::kSamples);
    EXPECT_EQ(parse_amount(to_string(amount), Unit::kSamples), amount) << text;
  }
}

TEST(Units, ResolvesToSamples) {
  const UnitContext context{.samples_per_epoch = 1000,
                            .global_batch = 64,
                            .tokens_per_sample = 512,
                            .budget_samples = 3000};
  EXPECT_EQ(to_samples({10, Unit::kSteps}, context), 640);
  // An epoch of 1000 takes 15 batches of 64 and one of 40.
  EXPECT_EQ(to_samples({16, Unit::kSteps}, context), 1000);
  EXPECT_EQ(to_samples({33, Unit::kSteps}, context), 2064);
  EXPECT_EQ(to_samples({15.9, Unit::kSteps}, context), 1000);  // a part of a short one is not more
  EXPECT_EQ(to_samples({3, Unit::kEpochs}, context), 3000);
  EXPECT_EQ(to_samples({2.6, Unit::kSamples}, context), 3);
  EXPECT_EQ(to_samples({2.4, Unit::kSamples}, context), 2);
  EXPECT_EQ(to_samples({0.03, Unit::kFraction}, context), 90);
  EXPECT_EQ(to_samples({5120, Unit::kTokens}, context), 10);
  EXPECT_THROW(to_samples({1, Unit::kMinutes}, context), Error);
  EXPECT_THROW(to_samples({1e18, Unit::kEpochs}, context), Error);
}

TEST(Units, CountsWithTheRightNumberOfTheNoun) {
  EXPECT_EQ(counted(0, "row"), "0 rows");
  EXPECT_EQ(counted(1, "row"), "1 row");
  EXPECT_EQ(counted(2, "row"), "2 rows");
}

}  // namespace
}  // namespace lorascale
