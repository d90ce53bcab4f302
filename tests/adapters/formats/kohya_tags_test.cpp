// Tags in a file's metadata, which may hold anything.
#include "adapters/formats/kohya_tags.hpp"

#include <gtest/gtest.h>

namespace lorascale::adapters {
namespace {

using Tags = std::vector<std::pair<std::string, std::int64_t>>;

TEST(KohyaTags, MostUsedOnesOfAllDataSets) {
  constexpr const char* kText = R"({"10_cat": {"cat": 9, "red": 4, "dog": 1}, "dogs": {"dog": 6}})";
  EXPECT_EQ(most_used_tags(kText, 10), (Tags{{"cat", 9}, {"dog", 7}, {"red", 4}}));
  EXPECT_EQ(most_used_tags(kText, 2), (Tags{{"cat", 9}, {"dog", 7}}));
}

TEST(KohyaTags, WhatIsWrongIsPassedOver) {
  EXPECT_EQ(
      most_used_tags(R"({"a": 1, "b": ["x"], "c": null, "d": {"no": -1, "half": 0.5, "text": "7",
                              "list": [1], "huge": 99999999999999999999, "many": 18446744073709551615,
                              "good": 3}})",
                     10),
      (Tags{{"good", 3}}));
}

TEST(KohyaTags, WhatIsNoSuchJsonHasNone) {
  const std::string deep(100000, '[');
  const std::string huge = R"({"a": {")" + std::string(std::size_t{20} << 20, 'x') + R"(": 1}})";
  std::string many = R"({"a": {"x": 1)";
  for (int i = 0; i < 1'000'000; ++i) {
    many += R"(,"":1)";
  }
  for (const auto& text : {std::string(), std::string("None"), std::string("[1, 2]"),
                           std::string(R"({"a": {"x": 1})"), std::string(R"({"a": {"\xff": 1}})"),
                           std::string("{\"a\": {\"\xff\": 1}}"), deep, huge, many + "}}"}) {
    EXPECT_TRUE(most_used_tags(text, 10).empty()) << text.substr(0, 40);
  }
}

}  // namespace
}  // namespace lorascale::adapters
