#include "io/tensorboard_format.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "support.hpp"

namespace lorascale::io {
namespace {

using testing::ElementsAre;

std::string hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

// The check value of the CRC catalogue, and RFC 3720 B.4.
TEST(Crc32c, MatchesPublishedValues) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(""), 0U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43U);
  EXPECT_EQ(masked_crc32c("123456789"), 0xC78AB0E5U);
}

// Records that TensorBoard's own writer made.
TEST(TensorboardRecord, MatchesGoldenBytes) {
  EXPECT_EQ(hex(encode_record(encode_version_event(1700000000.0))),
            "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d");
  EXPECT_EQ(hex(encode_record(encode_summary_event(1700000001.0, 7, encode_scalar("loss", 0.5F)))),
            "1a00000000000000129bd82d0900004040fc54d94110072a0d0a0b0a046c6f7373150000003f368fc084");
}

TEST(TensorboardRecord, WritesLongVarints) {
  // Field 2, value 300 = ac 02; a negative number takes ten bytes.
  EXPECT_EQ(hex(encode_summary_event(0.0, 300, "")), "09000000000000000010ac022a020a00");
  EXPECT_EQ(hex(encode_summary_event(0.0, -1, "")),
            "09000000000000000010ffffffffffffffffff012a020a00");
}

TEST(MakeHistogram, CountsIntoEqualBuckets) {
  const std::vector<float> values{0.0F, 1.0F, 2.0F, 3.0F, 4.0F, 4.0F};
  const Histogram histogram = make_histogram(values, 4);
  EXPECT_EQ(histogram.min, 0.0);
  EXPECT_EQ(histogram.max, 4.0);
  EXPECT_EQ(histogram.count, 6.0);
  EXPECT_EQ(histogram.sum, 14.0);
  EXPECT_EQ(histogram.sum_squares, 46.0);
  EXPECT_THAT(histogram.limits, ElementsAre(1.0, 2.0, 3.0, 4.0));
  EXPECT_THAT(histogram.counts, ElementsAre(2.0, 1.0, 1.0, 2.0));
}

TEST(MakeHistogram, TakesEqualAndNonFiniteValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values{2.0F, NAN, infinity, -infinity, 2.0F};
  const Histogram histogram = make_histogram(values);
  EXPECT_EQ(histogram.count, 2.0);
  EXPECT_THAT(histogram.limits, ElementsAre(2.0));
  EXPECT_THAT(histogram.counts, ElementsAre(2.0));
  EXPECT_EQ(make_histogram(std::vector<float>{NAN}).count, 0.0);
  EXPECT_EQ(make_histogram({}).count, 0.0);
}

TEST(MakeHistogram, LosesNoValueToRounding) {
  std::vector<float> values;
  for (int i = 0; i < 10'000; ++i) {
    values.push_back(std::ldexp(static_cast<float>(i % 97) - 48.3F, i % 200 - 100));
  }
  values.push_back(std::numeric_limits<float>::max());
  values.push_back(std::numeric_limits<float>::lowest());
  const Histogram histogram = make_histogram(values);
  double total = 0.0;
  for (const double count : histogram.counts) {
    total += count;
  }
  EXPECT_EQ(total, 10'002.0);
}

}  // namespace
}  // namespace lorascale::io
