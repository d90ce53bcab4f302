#include "io/untrusted_text.hpp"

#include <gtest/gtest.h>

namespace lorascale::io {
namespace {

using namespace std::string_view_literals;

TEST(InQuotes, StaysOnOneLineAndCannotDriveATerminal) {
  EXPECT_EQ(in_quotes("a b"), "\"a b\"");
  EXPECT_EQ(in_quotes("a\n\x1b[2J\0\xff"sv), "\"a\\x0a\\x1b[2J\\x00\\xff\"");
}

TEST(InQuotes, CutsLongText) {
  const std::string shown = in_quotes(std::string(1'000'000, 'x'));
  EXPECT_LT(shown.size(), 200U);
  EXPECT_TRUE(shown.ends_with("...\""));
}

TEST(PlainFileName, TakesOrdinaryNames) {
  for (const std::string_view name :
       {"model.safetensors", "a", "..a", "a..", ".hidden", "with space", "\xc3\xa9"}) {
    EXPECT_TRUE(is_plain_file_name(name)) << name;
  }
  EXPECT_TRUE(is_plain_file_name(std::string(255, 'x')));
}

TEST(PlainFileName, RefusesWhatCouldLeaveTheFolder) {
  for (const std::string_view name : {""sv, "."sv, ".."sv, "../x"sv, "a/b"sv, "/etc/passwd"sv,
                                      "a\\b"sv, "x\0y"sv, "x\ny"sv, "\x7f"sv}) {
    EXPECT_FALSE(is_plain_file_name(name)) << in_quotes(name);
  }
  EXPECT_FALSE(is_plain_file_name(std::string(256, 'x')));
}

}  // namespace
}  // namespace lorascale::io
