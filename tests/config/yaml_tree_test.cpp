#include "config/yaml_tree.hpp"

#include <gtest/gtest.h>

#include <chrono>

namespace lorascale::config {
namespace {

// As many whole copies of `unit` as fit in `size` bytes.
std::string repeat(const std::string& unit, std::size_t size) {
  std::string text;
  while (text.size() + unit.size() <= size) {
    text += unit;
  }
  return text;
}

std::string distinct_keys(std::size_t size) {
  std::string text;
  for (int i = 0; text.size() + 16 < size; ++i) {
    text += "k" + std::to_string(i) + ": 1\n";
  }
  return text;
}

struct Refused {
  int line = 0;
  std::string message;
};
Refused refusal_of(const std::string& text) {
  try {
    parse_yaml(text);
  } catch (const YamlError& error) {
    return {error.line(), error.what()};
  }
  return {};
}

TEST(ParseYaml, BuildsTheTree) {
  const YamlNode root = parse_yaml("# comment\na: 1\nb: {c: 'x', d: [y, \"z\"]}\ne:\n  f: ~\n");
  ASSERT_EQ(root.kind, YamlNode::Kind::kMap);
  ASSERT_EQ(root.entries.size(), 3U);
  EXPECT_EQ(root.entries[0].key, "a");
  EXPECT_EQ(root.entries[0].line, 2);
  EXPECT_EQ(root.entries[0].value.text, "1");
  EXPECT_FALSE(root.entries[0].value.quoted);
  const YamlNode& b = root.entries[1].value;
  EXPECT_TRUE(b.entries[0].value.quoted);
  ASSERT_EQ(b.entries[1].value.items.size(), 2U);
  EXPECT_FALSE(b.entries[1].value.items[0].quoted);
  EXPECT_TRUE(b.entries[1].value.items[1].quoted);
  EXPECT_EQ(root.entries[2].value.entries[0].value.kind, YamlNode::Kind::kNull);
  EXPECT_EQ(root.entries[2].value.entries[0].line, 5);
}

TEST(ParseYaml, TakesWhatEditorsLeave) {
  EXPECT_EQ(parse_yaml("").kind, YamlNode::Kind::kNull);
  EXPECT_EQ(parse_yaml("# only a comment\n").kind, YamlNode::Kind::kNull);
  EXPECT_EQ(parse_yaml("\xEF\xBB\xBF"
                       "a: 1")
                .entries[0]
                .key,
            "a");
  EXPECT_EQ(parse_yaml("a: 1\r\nb: 2\r\n").entries[1].value.text, "2");
  EXPECT_EQ(parse_yaml("%YAML 1.2\n---\na: 1\n...\n").entries.size(), 1U);
  EXPECT_EQ(parse_yaml("a: 1\t# a tab before a comment\n").entries[0].value.text, "1");
  EXPECT_EQ(parse_yaml("a: \"\\u00fc \\x41\"").entries[0].value.text, "\xC3\xBC A");
}

struct Hostile {
  const char* name;
  std::string text;
  int line;
  const char* part;
};

TEST(ParseYaml, RefusesWhatIsNoConfiguration) {
  const Hostile cases[] = {
      {"anchor", "a: &x 1\n", 1, "anchor '&x'"},
      {"anchor on a map", "b: 1\na: &x {c: 1}\n", 2, "anchor '&x'"},
      {"self-reference", "&x [*x]", 1, "anchor '&x'"},
      {"bomb", "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]\n", 1, "anchor '&a'"},
      {"alias of nothing", "a: 1\nb: *x\n", 2, "quotes"},
      {"glob", "targets: [*_proj]\n", 1, "quotes"},
      {"merge", "a: &x {b: 1}\nc: {<<: *x}", 1, "anchor"},
      {"tag", "a: !!int 1\n", 1, "tag"},
      {"tag of a language", "a: !!python/object:os.system [ls]\n", 1, "tag"},
      {"tag on a map", "a: !m {b: 1}\n", 1, "tag"},
      {"duplicate", "a: 1\nb: 2\na: 3\n", 3, "appears twice (first in line 1)"},
      {"duplicate in flow", "s: {k: 1, k: 2}\n", 1, "'k' appears twice"},
      {"duplicate, one quoted", "a: 1\n\"a\": 2\n", 2, "appears twice"},
      {"list as key", "? [a, b]\n: 1\n", 1, "key"},
      {"map as key", "{a: 1}: 2\n", 1, "key"},
      {"null key", "~: 1\n", 1, "key is missing"},
      {"no key", ": 1\n", 1, "key is missing"},
      {"empty key", "\"\": 1\n", 1, "key is missing"},
      {"two documents", "a: 1\n---\nb: 2\n", 2, "second document"},
      {"tab", "a:\n\tb: 1\n", 2, "tab"},
      {"tab after a space", "a:\n \tb: 1\n", 2, "tab"},
      {"NUL", std::string("a: 1\nb: \0\n", 10), 2, "control byte '\\x00'"},
      {"end of transmission",
       "a: 1\n\x04"
       "b: 2\n",
       2, "control byte"},
      {"escape sequence", "a: \x1b[2J", 1, "control byte"},
      {"delete", "a: \x7f", 1, "control byte"},
      {"latin-1", "a: 1\nb: gr\xFC\xDF\n", 2, "UTF-8"},
      {"UTF-16",
       std::string("\xFF\xFE"
                   "a\0:\0",
                   6),
       1, "UTF-8"},
      {"overlong", "a: \xC0\xAF", 1, "UTF-8"},
      {"NUL by escape", "a: \"x\\0y\"", 1, "escape"},
      {"surrogate by escape", "a: \"\\ud800\"", 1, "YAML"},
      {"bad latin-1 by escape", "a: \"\\N\"", 1, "escape"},
      {"open bracket", "a: [1, 2\n", 3, "a bracket is not closed"},
      {"open brace", "a: {b: 2\nc: 1", 2, "a bracket is not closed"},
      {"open quote", "a: \"x", 2, "a quote is not closed"},
      {"open quote before a line break", "a: \"x\n", 3, "a quote is not closed"},
      {"open quote that takes the rest", "a: 'x\nb: 1\n\n", 5, "a quote is not closed"},
      {"colon in text", "a: b: c\n", 1, "needs quotes"},
      {"bad indentation", "a:\n    b: 1\n  c: 2\n", 3, "indentation"},
      {"reserved letter", "a: @x\n", 1, "quotes"},
      {"backtick", "a: `x`\n", 1, "quotes"},
      {"unknown escape", "a: \"\\q\"\n", 1, "escape"},
      {"nesting", "a: [[[[[[[[[[1]]]]]]]]]]\n", 1, "nested more than 8"},
      {"bad directive", "%YAML 9.9.9\n---\na: 1\n", 1, "YAML"},
  };
  for (const auto& [name, text, line, part] : cases) {
    const Refused refused = refusal_of(text);
    EXPECT_NE(refused.message.find(part), std::string::npos) << name << ": " << refused.message;
    EXPECT_EQ(refused.line, line) << name << ": " << refused.message;
    EXPECT_EQ(refused.message.find('\n'), std::string::npos) << name;
  }
}

// Each of these is as large as a file may be; time must not grow with anything but the size.
TEST(ParseYaml, AnswersLargeInputInBoundedTime) {
  const std::string inputs[] = {
      repeat("[", kMaxConfigBytes),
      repeat("{", kMaxConfigBytes),
      repeat("[\n", kMaxConfigBytes),
      repeat("a,[", kMaxConfigBytes),
      repeat("- ", kMaxConfigBytes),
      repeat("? ", kMaxConfigBytes),
      repeat(": ", kMaxConfigBytes),
      "[" + repeat("1,", kMaxConfigBytes - 1),
      repeat("k", kMaxConfigBytes),
      repeat("!a ", kMaxConfigBytes),
      repeat("&a ", kMaxConfigBytes),
      repeat("*a ", kMaxConfigBytes),
      repeat("---\n", kMaxConfigBytes),
      repeat("\"a\" ", kMaxConfigBytes),
      repeat("\n", kMaxConfigBytes),
      repeat("#\n", kMaxConfigBytes),
      "a: |\n" + repeat(" x\n", kMaxConfigBytes - 5),
      "a: '" + repeat("x\n ", kMaxConfigBytes - 4),
      distinct_keys(kMaxConfigBytes),
  };
  for (const auto& text : inputs) {
    ASSERT_LE(text.size(), kMaxConfigBytes);
    const auto begin = std::chrono::steady_clock::now();
    (void)refusal_of(text);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(taken.count(), 20.0)
        << text.substr(0, 12);  // under 1 s; sanitizers and a busy machine
  }
  EXPECT_NE(refusal_of(std::string(kMaxConfigBytes + 1, ' ')).message.find("1 MiB"),
            std::string::npos);
  EXPECT_NE(refusal_of(distinct_keys(kMaxConfigBytes)).message.find("more than 20000"),
            std::string::npos);
  EXPECT_NE(refusal_of(repeat("[", 30000)).message.find("brackets"), std::string::npos);
}

TEST(YamlText, ReadsBackAsTheSameText) {
  const std::string texts[] = {"q_proj",
                               "models/base",
                               "",
                               " ",
                               "a b",
                               "true",
                               "No",
                               "null",
                               "~",
                               "10",
                               "1e3",
                               "-",
                               "- a",
                               "a: b",
                               "a #b",
                               "#",
                               "'",
                               "\"",
                               "\\",
                               "a\nb",
                               "a\tb",
                               "\x01\x7f",
                               "&x",
                               "*x",
                               "!x",
                               "[a]",
                               "{a}",
                               "@",
                               "`",
                               "%",
                               "|",
                               ">",
                               "?",
                               "gr\xC3\xBC\xC3\x9F",
                               "\xF0\x9F\x98\x80",
                               ".*proj",
                               "a\r\nb",
                               "2020-01-01",
                               "1:30",
                               "=",
                               "<<",
                               "None",
                               "off"};
  for (const auto& text : texts) {
    for (const std::string& document : {"k: " + yaml_text(text), "k: [" + yaml_text(text) + "]"}) {
      const YamlNode value = parse_yaml(document).entries.at(0).value;
      const YamlNode& scalar = value.items.empty() ? value : value.items[0];
      EXPECT_EQ(scalar.kind, YamlNode::Kind::kScalar) << document;
      EXPECT_EQ(scalar.text, text) << document;
    }
  }
  EXPECT_EQ(yaml_text("models/base-1.5"), "models/base-1.5");
}

}  // namespace
}  // namespace lorascale::config
