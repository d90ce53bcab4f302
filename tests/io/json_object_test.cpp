#include <cstdint>
#include <limits>

#include "io/strict_json.hpp"
#include "support.hpp"

namespace lorascale::io {
namespace {

using testing::ElementsAre;

class JsonObjectTest : public testing::Test {
 protected:
  const nlohmann::json tree_ = parse_json(R"({
    "int": 42, "negative": -1, "largest": 9223372036854775807, "least": -9223372036854775808,
    "beyond63": 9223372036854775808, "beyond64": 18446744073709551616, "fraction": 4.5, "exponent": 1e3,
    "whole_float": 4.0, "text": "abc", "yes": true, "none": null, "list": [1, 2, 3], "mixed": [1, 2.5, "x"],
    "names": ["a", "b"], "inner": {"x": 7}})",
                                          "config.json");
  const JsonObject object_{tree_, "config.json"};

  template <class Action>
  void expect_bad(std::initializer_list<std::string_view> words, Action&& action) {
    expect_error(ExitCode::kBadInput, {"config.json"}, action);
    expect_error(ExitCode::kBadInput, words, action);
  }
};

TEST_F(JsonObjectTest, GivesTypedValues) {
  EXPECT_EQ(object_.integer("int"), 42);
  EXPECT_EQ(object_.integer("negative"), -1);
  EXPECT_EQ(object_.integer("largest"), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(object_.integer("least"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(object_.number("fraction"), 4.5);
  EXPECT_EQ(object_.number("exponent"), 1000.0);
  EXPECT_EQ(object_.number("int"), 42.0);
  EXPECT_EQ(object_.text("text"), "abc");
  EXPECT_TRUE(object_.boolean("yes"));
  EXPECT_EQ(object_.object("inner").integer("x"), 7);
  EXPECT_THAT(object_.integers("list"), ElementsAre(1, 2, 3));
  EXPECT_THAT(object_.numbers("list"), ElementsAre(1.0, 2.0, 3.0));
  EXPECT_THAT(object_.texts("names"), ElementsAre("a", "b"));
}

TEST_F(JsonObjectTest, NeverWrapsOrRoundsAnInteger) {
  for (const char* key :
       {"beyond63", "beyond64", "fraction", "exponent", "whole_float", "text", "yes", "list"}) {
    expect_bad({key, "whole number"}, [&] { (void)object_.integer(key); });
  }
  expect_bad({"mixed", "whole number", "2.5"}, [&] { (void)object_.integers("mixed"); });
}

TEST_F(JsonObjectTest, ChecksRanges) {
  EXPECT_EQ(object_.integer("int", 42, 42), 42);
  expect_bad({"\"negative\"", "of at least 1", "found -1"},
             [&] { (void)object_.integer("negative", 1); });
  expect_bad({"\"int\"", "from 0 to 41", "found 42"}, [&] { (void)object_.integer("int", 0, 41); });
  expect_bad({"\"list\"", "from 0 to 2"}, [&] { (void)object_.integers("list", 0, 2); });
}

TEST_F(JsonObjectTest, NamesWrongTypes) {
  expect_bad({"\"int\"", "text in quotes", "number"}, [&] { (void)object_.text("int"); });
  expect_bad({"\"int\"", "true or false"}, [&] { (void)object_.boolean("int"); });
  expect_bad({"\"text\"", "finite number", "string"}, [&] { (void)object_.number("text"); });
  expect_bad({"\"int\"", "list"}, [&] { (void)object_.integers("int"); });
  expect_bad({"\"mixed\"", "list of texts"}, [&] { (void)object_.texts("mixed"); });
  expect_bad({"\"text\"", "object", "string"}, [&] { (void)object_.object("text"); });
}

TEST_F(JsonObjectTest, TreatsNullAsAbsent) {
  EXPECT_FALSE(object_.has("none"));
  EXPECT_FALSE(object_.has("missing"));
  EXPECT_EQ(object_.integer_or("none", 5), 5);
  EXPECT_EQ(object_.number_or("missing", 0.5), 0.5);
  EXPECT_EQ(object_.text_or("missing", "d"), "d");
  EXPECT_TRUE(object_.boolean_or("missing", true));
  EXPECT_EQ(object_.integer_or("int", 5), 42);
  expect_bad({"\"none\"", "is missing"}, [&] { (void)object_.integer("none"); });
  expect_bad({"\"missing\"", "is missing"}, [&] { (void)object_.text("missing"); });
  expect_bad({"\"text\""},
             [&] { (void)object_.integer_or("text", 5); });  // a fallback hides no wrong type
}

TEST_F(JsonObjectTest, NamesTheWayToAnInnerKey) {
  expect_bad({"\"inner\": \"x\"", "true or false"},
             [&] { (void)object_.object("inner").boolean("x"); });
}

TEST_F(JsonObjectTest, RefusesUnknownKeys) {
  const JsonObject inner = object_.object("inner");
  EXPECT_NO_THROW(inner.allow_only({"x", "y"}));
  expect_bad({"\"x\"", "not known"}, [&] { inner.allow_only({"y"}); });
}

}  // namespace
}  // namespace lorascale::io
