#include "config/numbers.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <clocale>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "base/rng.hpp"
#include "config/text.hpp"

namespace lorascale::config {
namespace {

std::string refusal_of(const std::function<void()>& parse) {
  try {
    parse();
  } catch (const ValueError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ParseInteger, IsExact) {
  EXPECT_EQ(parse_integer("0"), 0);
  EXPECT_EQ(parse_integer("-7"), -7);
  EXPECT_EQ(parse_integer("+7"), 7);
  EXPECT_EQ(parse_integer("9007199254740993"), 9007199254740993);  // no double holds it
  EXPECT_EQ(parse_integer("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse_unsigned("18446744073709551615"), std::numeric_limits<std::uint64_t>::max());
}

TEST(ParseInteger, SaysWhatToWrite) {
  const std::pair<const char*, const char*> cases[] = {
      {"010", "write 10"},
      {"-007", "write -7"},
      {"1_000", "write 1000"},
      {"1,000", "write 1000"},
      {"5.0", "write 5"},
      {"1e3", "write 1000"},
      {"0x10", "decimal"},
      {"0o17", "decimal"},
      {"2.5", "not a whole number"},
      {"16k", "not a whole number"},
      {"", "not a whole number"},
      {"-", "not a whole number"},
      {"+-1", "not a whole number"},
      {"1 2", "not a whole number"},
      {"9223372036854775808", "out of range"},
      {"100000000000000000000", "out of range"},
      {"1e400", "double precision"},
  };
  for (const auto& [text, part] : cases) {
    const std::string message = refusal_of([&, t = text] { parse_integer(t); });
    EXPECT_NE(message.find(part), std::string::npos) << text << ": " << message;
  }
  EXPECT_NE(refusal_of([] { parse_unsigned("-1"); }).find("negative"), std::string::npos);
}

TEST(ParseReal, ReadsEveryDecimalForm) {
  EXPECT_EQ(parse_real("1e-4"), 1e-4);
  EXPECT_EQ(parse_real("2E-4"), 2e-4);
  EXPECT_EQ(parse_real("5.0"), 5.0);
  EXPECT_EQ(parse_real("5."), 5.0);
  EXPECT_EQ(parse_real(".5"), 0.5);
  EXPECT_EQ(parse_real("+0.25"), 0.25);
  EXPECT_EQ(parse_real("-3"), -3.0);
  EXPECT_EQ(parse_real("1e+2"), 100.0);
}

TEST(ParseReal, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"1_000.5", "write 1000.5"}, {"0,5", "write 05"},       {"00.5", "write 0.5"},
      {".inf", "not finite"},      {"-inf", "not finite"},    {".nan", "not finite"},
      {"NaN", "not finite"},       {"1e400", "double"},       {"1e-400", "double"},
      {"0x1p3", "decimal"},        {"1e", "not a number"},    {".", "not a number"},
      {"e5", "not a number"},      {"1.2.3", "not a number"}, {"two", "not a number"},
      {"1f", "not a number"},      {"--1", "not a number"},
  };
  for (const auto& [text, part] : cases) {
    const std::string message = refusal_of([&, t = text] { parse_real(t); });
    EXPECT_NE(message.find(part), std::string::npos) << text << ": " << message;
  }
}

TEST(ParseReal, IgnoresTheLocale) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  bool comma = false;
  for (const char* name : {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "C.UTF-8"}) {
    comma = std::setlocale(LC_ALL, name) != nullptr;
    EXPECT_EQ(parse_real("0.5"), 0.5);
    EXPECT_EQ(real_text(0.5), "0.5");
  }
  std::setlocale(LC_ALL, before.c_str());
  EXPECT_TRUE(comma);  // C.UTF-8 is everywhere, so the loop did switch
}

TEST(RealText, RoundTripsBitForBit) {
  for (std::uint32_t i = 0; i < 20000; ++i) {
    const auto block = philox4x32({i, 0, 0, 0}, {1, 2});
    const std::uint64_t bits = (std::uint64_t{block[0]} << 32) | block[1];
    const double value = std::bit_cast<double>(bits);
    if (!std::isfinite(value)) {
      continue;
    }
    const std::string text = real_text(value);
    EXPECT_EQ(std::bit_cast<std::uint64_t>(parse_real(text)), bits) << text;
    // An independent reader agrees.
    EXPECT_EQ(std::bit_cast<std::uint64_t>(std::strtod(text.c_str(), nullptr)), bits) << text;
  }
  EXPECT_EQ(real_text(2e-4), "2.0e-04");
  EXPECT_EQ(real_text(16), "16");
  EXPECT_EQ(real_text(100000), "100000");
}

TEST(ParseBoolean, TakesTrueAndFalseOnly) {
  EXPECT_TRUE(parse_boolean("true"));
  EXPECT_FALSE(parse_boolean("false"));
  for (const char* text : {"yes", "on", "True", "TRUE", "y", "1", "Yes"}) {
    EXPECT_NE(refusal_of([&] { parse_boolean(text); }).find("write true"), std::string::npos)
        << text;
  }
  for (const char* text : {"no", "off", "False", "n", "0", "NO"}) {
    EXPECT_NE(refusal_of([&] { parse_boolean(text); }).find("write false"), std::string::npos)
        << text;
  }
  EXPECT_NE(refusal_of([] { parse_boolean("maybe"); }).find("neither"), std::string::npos);
}

}  // namespace
}  // namespace lorascale::config
