#include "coordinator/record/json_number.hpp"

#include <bit>
#include <cmath>
#include <limits>

#include "base/rng.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

// The state relies on this property of the JSON library.
TEST(JsonNumber, DoublesKeepTheirBits) {
  std::uint64_t bits = 1;
  int tried = 0;
  while (tried < 200000) {
    bits = mix64(bits);
    const double value = std::bit_cast<double>(bits);
    if (!std::isfinite(value)) {
      continue;
    }
    ++tried;
    const double back = number_from_json(Json::parse(json_number(value).dump()));
    ASSERT_EQ(std::bit_cast<std::uint64_t>(back), bits) << value;
  }
  for (const double value :
       {0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1}) {
    const double back = number_from_json(Json::parse(json_number(value).dump()));
    EXPECT_EQ(std::bit_cast<std::uint64_t>(back), std::bit_cast<std::uint64_t>(value));
  }
}

TEST(JsonNumber, WritesWhatIsNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(std::isnan(number_from_json(json_number(std::nan("")))));
  EXPECT_EQ(number_from_json(json_number(infinity)), infinity);
  EXPECT_EQ(number_from_json(json_number(-infinity)), -infinity);
  EXPECT_THROW(number_from_json("seven"), Json::exception);
}

TEST(JsonNumber, TextIsShort) {
  EXPECT_EQ(to_text(2e-4 * 2), "0.0004");
  EXPECT_EQ(to_text(1.0 / 3), "0.333333");
  EXPECT_EQ(to_text(std::nan("")), "nan");
}

TEST(JsonNumber, DigestsInHexadecimal) {
  EXPECT_EQ(hex64(0), "0000000000000000");
  EXPECT_EQ(hex64(0x0123456789abcdefULL), "0123456789abcdef");
  EXPECT_EQ(hex64_from("ffffffffffffffff"), ~std::uint64_t{0});
  for (const char* text : {"", "123", "000000000000000g", "0x00000000000001", "-000000000000001"}) {
    testing::expect_error(ExitCode::kBadInput, {"16 hexadecimal digits"},
                          [&] { hex64_from(text); });
  }
}

TEST(ToText, WritesNoSignBeforeNan) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(to_text(nan), "nan");
  EXPECT_EQ(to_text(std::copysign(nan, -1.0)), "nan");
  EXPECT_EQ(to_text(-std::numeric_limits<double>::infinity()), "-inf");
}

}  // namespace
}  // namespace lorascale::coordinator
