#include "io/strict_json.hpp"

#include <cmath>

#include "support.hpp"

namespace lorascale::io {
namespace {

using namespace std::string_literals;

void expect_bad(std::string_view text, std::initializer_list<std::string_view> words,
                const JsonLimits& limits = {}) {
  SCOPED_TRACE(std::string(text.substr(0, 80)));
  expect_error(ExitCode::kBadInput, words, [&] { parse_json(text, "config.json", limits); });
}

TEST(StrictJson, BuildsTheSameTreeAsTheLibrary) {
  const std::string text =
      R"({"a": [1, -2, 3.5, 1e-06, true, null, "x\u00e9\n"], "b": {"c": {}, "d": []}, "": 18446744073709551615})";
  EXPECT_EQ(parse_json(text, "x"), nlohmann::json::parse(text));
  EXPECT_EQ(parse_json(" 7 ", "x"), 7);
  EXPECT_EQ(parse_json("[[[]],{}]", "x"), nlohmann::json::parse("[[[]],{}]"));
}

TEST(StrictJson, RefusesDuplicateKeysAtEveryLevel) {
  expect_bad(R"({"a": 1, "a": 2})", {"config.json", "\"a\"", "twice"});
  expect_bad(R"({"x": {"b": 1, "c": 2, "b": 1}})", {"\"b\"", "twice"});
  expect_bad(R"([{"k": {"n": [{"z": 0, "z": 0}]}}])", {"\"z\"", "twice"});
  expect_bad(R"({"a": 1, "\u0061": 2})", {"\"a\"", "twice"});  // the same key, written in two ways
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": 2}])", "x"));
}

TEST(StrictJson, ReportsSyntaxErrorsWithTheirPlace) {
  expect_bad("{\n  \"a\": tru\n}", {"config.json", "not valid JSON", "line 2, column 11"});
  expect_bad("", {"not valid JSON", "line 1, column 1"});
  expect_bad("{", {"not valid JSON"});
  expect_bad("{} x", {"not valid JSON"});
  expect_bad("{}{}", {"not valid JSON"});
  expect_bad("{'a': 1}", {"not valid JSON"});
  expect_bad("{\"a\": 1,}", {"not valid JSON"});
  expect_bad("[1 2]", {"not valid JSON"});
  expect_bad("[01]", {"not valid JSON"});
  expect_bad("[+1]", {"not valid JSON"});
  expect_bad("[NaN]", {"not valid JSON"});
  expect_bad("[1e999]", {"not valid JSON", "overflow"});
  expect_bad("[1] // comment", {"not valid JSON"});
  expect_bad("[\"unfinished", {"not valid JSON"});
  expect_bad("[\"raw\ncontrol\"]", {"not valid JSON"});
  expect_bad("\0"s, {"not valid JSON", "NUL"});
  expect_bad("{}\0{"s, {"not valid JSON", "NUL", "column 3"});
  expect_bad("[\"a\0\"]"s, {"not valid JSON", "NUL"});
}

TEST(StrictJson, RefusesBadUtf8) {
  expect_bad("[\"\xff\"]", {"not valid JSON", "UTF-8"});
  expect_bad("[\"\xc0\xaf\"]", {"UTF-8"});          // overlong
  expect_bad("[\"\xed\xa0\x80\"]", {"UTF-8"});      // a surrogate
  expect_bad("[\"\xf4\x90\x80\x80\"]", {"UTF-8"});  // beyond Unicode
  expect_bad("[\"\\ud800\"]", {"not valid JSON"});
  expect_bad("\xEF\xBB\xBF{}", {"byte order mark"});
}

TEST(StrictJson, LimitsDepth) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(32), "x"));
  expect_bad(nested(33), {"nested too deep", "32"});
  expect_bad(std::string(10'000'000, '['), {"nested too deep"});
  std::string objects;
  for (int i = 0; i < 40; ++i) {
    objects += "{\"a\":";
  }
  expect_bad(objects, {"nested too deep"});
  EXPECT_NO_THROW(
      parse_json(R"(["[[[[[[", "{{{{{{\"[[[["])", "x", {.max_depth = 1}));  // not in strings
}

TEST(StrictJson, LimitsSizes) {
  expect_bad("[1, 2, 3, 4]", {"12 bytes", "limit is 5"}, {.max_bytes = 5});
  expect_bad(R"(["abcdef"])", {"string", "limit is 5"}, {.max_string_bytes = 5});
  EXPECT_NO_THROW(parse_json(R"(["abcde"])", "x", {.max_string_bytes = 5}));
  expect_bad("[1,2,3,4,5,6]", {"too many values"}, {.max_values = 6});
  expect_bad("[" + std::string(129, '1') + "]", {"overlong number"});
  expect_bad("[\"" + std::string(5 << 20, 'x'), {"string"});
}

TEST(StrictJson, TellsTheFile) {
  const TempFolder folder;
  put_file(folder / "a.json", "{\"x\": 1}");
  EXPECT_EQ(read_json_file(folder / "a.json")["x"], 1);
  put_file(folder / "bad.json", "{");
  expect_error(ExitCode::kBadInput, {"bad.json", "not valid JSON"},
               [&] { read_json_file(folder / "bad.json"); });
  expect_error(ExitCode::kBadInput, {"none.json", "No such file", "check the path"},
               [&] { read_json_file(folder / "none.json"); });
  expect_error(ExitCode::kBadInput, {"is a folder"}, [&] { read_json_file(folder.path()); });
  expect_error(ExitCode::kBadInput, {"a.json", "8 bytes", "more than the 7 allowed"},
               [&] { read_json_file(folder / "a.json", {.max_bytes = 7}); });
}

}  // namespace
}  // namespace lorascale::io
