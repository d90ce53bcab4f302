#include "config/text.hpp"

#include <gtest/gtest.h>

namespace lorascale::config {
namespace {

TEST(InQuotes, ShowsTextOnOneLine) {
  EXPECT_EQ(in_quotes("abc"), "'abc'");
  EXPECT_EQ(in_quotes("a\nb\x1b[2J"), "'a\\x0ab\\x1b[2J'");
  EXPECT_EQ(in_quotes("gr\xC3\xBC\xC3\x9F"), "'gr\xC3\xBC\xC3\x9F'");
  EXPECT_EQ(in_quotes("\xFF\xC3"), "'\\xff\\xc3'");
  EXPECT_EQ(in_quotes(std::string(200, 'x')), "'" + std::string(80, 'x') + "...'");
  EXPECT_EQ(in_quotes("abcdef", 4), "'abcd...'");
  EXPECT_EQ(path_in_quotes("/" + std::string(200, 'x') + "/config.yaml"),
            "'/" + std::string(200, 'x') + "/config.yaml'");
}

// Boundary cases of RFC 3629, section 4.
TEST(FindInvalidUtf8, FollowsRfc3629) {
  for (const char* good :
       {"", "plain", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(find_invalid_utf8(good), std::nullopt) << good;
  }
  for (const char* bad : {"\x80", "\xC0\xAF", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                          "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
                          "\xF8\x88\x80\x80", "\xFE", "\xC3", "\xE2\x82", "\xC3("}) {
    EXPECT_EQ(find_invalid_utf8(bad), 0U);
    EXPECT_EQ(find_invalid_utf8("ok" + std::string(bad)), 2U);
  }
}

TEST(EditDistance, MatchesPublishedExamples) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("saturday", "sunday"), 3U);
  EXPECT_EQ(edit_distance("ca", "ac"), 1U);   // neighbours swapped
  EXPECT_EQ(edit_distance("ca", "abc"), 3U);  // optimal string alignment, not unrestricted Damerau
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("abc", "abc"), 0U);
}

TEST(Nearest, FindsSlipsAndGivesUpOnTheRest) {
  const std::vector<std::string> names = {"rank", "alpha", "dropout"};
  EXPECT_EQ(nearest("rnak", names), "rank");
  EXPECT_EQ(nearest("dropuot", names), "dropout");
  EXPECT_EQ(nearest("entirely", names), std::nullopt);
  EXPECT_EQ(nearest("", names), std::nullopt);
  EXPECT_EQ(nearest("x", names), std::nullopt);
  EXPECT_EQ(nearest(std::string(1000, 'r'), names), std::nullopt);
}

}  // namespace
}  // namespace lorascale::config
