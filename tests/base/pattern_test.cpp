#include "base/pattern.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

namespace lorascale {
namespace {

using ::testing::HasSubstr;

std::string repeated(std::string_view text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) {
    result += text;
  }
  return result;
}

std::string error_of(const auto& action) {
  try {
    action();
  } catch (const PatternError& error) {
    return error.what();
  }
  return "";
}

// The third column is bool(re.fullmatch(pattern, subject)) of Python 3.11.
struct Case {
  const char* pattern;
  const char* subject;
  bool matches;
};
const Case kCases[] = {
    {R"(.*\.q_proj)", "model.layers.0.self_attn.q_proj", true},
    {R"(.*\.q_proj)", "model.layers.0.self_attn.q_proj.base", false},
    {R"(q_proj)", "self_attn.q_proj", false},
    {R"()", "", true},
    {R"()", "a", false},
    {R"(a|ab)", "ab", true},  // goes back for the alternative that reaches the end
    {R"(a*?)", "aaa", true},
    {R"(^a$)", "a", true},
    {R"(a$b)", "ab", false},
    {R"(a.c)", "a\nc", false},
    {R"(a\sc)", "a\nc", true},
    {R"(a)", "a\n", false},
    {R"(a\r?)", "a\r", true},
    {R"(a.)", "a\r", true},
    {R"(.*layers\.(?!0\.)\d+\..*)", "model.layers.0.mlp.up_proj", false},
    {R"(.*layers\.(?!0\.)\d+\..*)", "model.layers.10.mlp.up_proj", true},
    {R"((?=.*mlp).*up_proj)", "layers.1.mlp.up_proj", true},
    {R"((?=.*mlp).*up_proj)", "layers.1.attn.up_proj", false},
    {R"(.*(?<=mlp\.)up_proj)", "layers.1.mlp.up_proj", true},
    {R"(.*(?<!mlp\.)up_proj)", "layers.1.mlp.up_proj", false},
    {R"((?:q|k|v)_proj)", "k_proj", true},
    {R"((?:q|k|v)_proj)", "o_proj", false},
    {R"((?P<n>\w+)\.(?P=n))", "ab.ab", true},
    {R"((?P<n>\w+)\.(?P=n))", "ab.ac", false},
    {R"((a|b)\1)", "bb", true},
    {R"((a|b)\1)", "ab", false},
    {R"((a)?b(?(1)c|d))", "abc", true},
    {R"((a)?b(?(1)c|d))", "bc", false},
    {R"(a*+a)", "aaa", false},
    {R"(\w++\.x)", "ab.x", true},
    {R"((?>a|ab)c)", "abc", false},
    {R"((?i)Q_PROJ)", "q_proj", true},
    {R"((?i:Q)_proj)", "q_proj", true},
    {R"(Q_proj)", "q_proj", false},
    {R"((?s).)", "\n", true},
    {R"(a(?#which).)", "ab", true},
    {R"([^]a]+)", "bcd", true},  // a bracket in front is one of the set
    {R"([]a]+)", "]a", true},
    {R"([\w.-]+)", "a-b.c", true},
    {R"(\d{1,2})", "123", false},
    {R"(\d{2,})", "123", true},
    {R"(a{0,2})", "aa", true},
    {R"(a{x})", "a{x}", true},
    {R"(a\{,2})", "a{,2}", true},
    {R"(\Aa)", "a", true},
    {R"(\x61\.\t)", "a.\t", true},
    {R"((\w+\.)*(q|k)_proj)", "model.layers.7.self_attn.k_proj", true},
    {R"((\w+\.)*(q|k)_proj)", "model.layers.7.self_attn.v_proj", false},
};

TEST(Pattern, MatchesAsPythonsFullmatch) {
  for (const auto& [pattern, subject, matches] : kCases) {
    EXPECT_EQ(Pattern(pattern).matches_whole(subject), matches) << pattern << " on " << subject;
  }
}

TEST(Pattern, TakesTextAsBytesOfAnyKind) {
  EXPECT_TRUE(Pattern(std::string_view("a\0b", 3)).matches_whole(std::string_view("a\0b", 3)));
  EXPECT_FALSE(Pattern("a").matches_whole(std::string_view("a\0", 2)));
  EXPECT_TRUE(Pattern(std::string_view()).matches_whole(std::string_view()));
  EXPECT_TRUE(Pattern("\xFF.").matches_whole("\xFF\xC3"));
}

TEST(Pattern, IsPutBetweenOthers) {
  const Pattern pattern("q_proj|up", R"((.*\.)?()", ")");
  EXPECT_TRUE(pattern.matches_whole("layers.0.q_proj"));
  EXPECT_TRUE(pattern.matches_whole("up"));
  EXPECT_FALSE(pattern.matches_whole("layers.0.q_projs"));
  EXPECT_FALSE(pattern.matches_whole("group"));
}

TEST(Pattern, SaysWhatIsWrongAndWhere) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"(q_proj", "missing closing parenthesis at offset 7"},
      {"ab)c", "unmatched closing parenthesis at offset 2"},
      {"*a", "quantifier does not follow a repeatable item at offset"},
      {"a[bc", "missing terminating ] for character class at offset 4"},
      {R"(a\y)", "unrecognized character follows \\ at offset"},
      {"a{3,2}", "numbers out of order in {} quantifier at offset"},
      {R"(a\C)", "\\C is disabled"},
      {"(*UTF)a", "UTF is disabled"},
      {"a{,2}", "write {0,n} for {,n} at offset 1"},
  };
  for (const auto& [text, words] : wrong) {
    const auto error = error_of([&] { Pattern{text}; });
    EXPECT_THAT(error, HasSubstr("is no regular expression that can be used: "));
    EXPECT_THAT(error, HasSubstr(words)) << text;
  }
  // The offset is one of the text, whatever is in front of it, and never beyond its end.
  EXPECT_THAT(error_of([] { Pattern("a[bc", "x(", ")"); }), HasSubstr("at offset 4"));
  EXPECT_THAT(error_of([] { Pattern("(", "x(", ")"); }), HasSubstr("at offset 1"));
}

// Refused for their size, which is found before memory or stack is spent on it.
std::vector<std::string> oversized() {
  return {
      repeated("(", 4096),
      repeated("(", 101) + "a" + repeated(")", 101),
      repeated("(?:", 1000) + "a" + repeated(")*", 1000),
      repeated("(?=", 500) + repeated(")", 500),
      "((a{65535}){65535}){65535}",
      "(((a{1,200}){1,200}){1,200}){1,200}",
      repeated("(", 12) + "ab" + repeated("){1,2}", 12),
      std::string(4097, 'a'),
      "(?<=" + repeated("(a|b", 80) + repeated(")", 80) + ")a",
  };
}

struct Hostile {
  std::string pattern, subject;
};
// Without limits they take from minutes to for ever, or gigabytes.
std::vector<Hostile> runaways() {
  const std::string letters(60, 'a');
  return {
      {"(a+)+$", letters + "b"},
      {"(a*)*b", letters},
      {"(a|aa)+", letters + "b"},
      {R"(((\w|\.)+)+x)", "model.layers.31.self_attn.q_proj"},
      {"(.*a){20}x", std::string(10000, 'a')},
      {".*.*.*x", std::string(100000, 'a')},
      {"(a+)+$", std::string(1 << 20, 'a') + "b"},
      {"(?:(?!a*+b)a)*x", std::string(1 << 20, 'a')},  // reads to the end at every step
      {".*x|.*", std::string(100 << 20, 'a')},
      {repeated("(", 99) + "a" + repeated(")*", 99), letters + "b"},
      {repeated("(", 30) + "a" + repeated("+)", 30) + "x", letters},
      {"(?:" + repeated("()", 2000) + "|a)*x", letters},
      {"(?:(?=a" + repeated("|a", 1900) + ")a|aa)+x", letters},
      {repeated("a*", 1300) + "x", letters},
      {R"((a*)*\1\1\1\1x)", letters},
      {"(?R)", "a"},
      {"^(.|(?1)(?1))*$x", "aaaa"},
      {"(a(?1)?)+x", letters},
      {"(*LIMIT_MATCH=4000000000)(*LIMIT_HEAP=4000000000)(a+)+$", letters + "b"},
  };
}

// On a stack far smaller than any thread's here.
void on_a_small_stack(void* (*action)(void*)) {
  pthread_attr_t attributes;
  pthread_t thread = 0;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
  ASSERT_EQ(pthread_create(&thread, &attributes, action, nullptr), 0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  pthread_attr_destroy(&attributes);
}

// Of this process, which other programs cannot stretch.
double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

TEST(Pattern, HostileOnesAreRefusedAtOnce) {
  const double begin = cpu_seconds();
  on_a_small_stack([](void*) -> void* {
    for (const auto& text : oversized()) {
      EXPECT_THAT(error_of([&] { Pattern{text}; }), HasSubstr("that can be used"))
          << text.substr(0, 40);
    }
    for (const auto& [text, subject] : runaways()) {
      const Pattern pattern(text);
      EXPECT_THAT(error_of([&] { (void)pattern.matches_whole(subject); }),
                  HasSubstr("is too complex: "))
          << text.substr(0, 40);
    }
    return nullptr;
  });
  EXPECT_LT(cpu_seconds() - begin, 1);  // 0.2; 17 with the limits that PCRE2 has by itself
}

TEST(Pattern, LimitsLeaveRoomForWhatPeopleWrite) {
  std::string names = R"((?:.*\.)?(?:)";
  for (int layer = 0; layer < 80; ++layer) {
    names += "layers." + std::to_string(layer) + ".(?:self_attn|mlp)\\.[a-z]+_proj|";
  }
  names += "lm_head)";
  const Pattern pattern(names);
  EXPECT_TRUE(pattern.matches_whole("base_model.model.model.layers.79.self_attn.q_proj"));
  EXPECT_FALSE(pattern.matches_whole("base_model.model.model.layers.80.self_attn.q_proj"));
  EXPECT_FALSE(Pattern(R"(.*.*.*\.w_proj)").matches_whole("model.layers.79.self_attn.q_proj"));
  EXPECT_TRUE(Pattern("(ab){2000}").matches_whole(repeated("ab", 2000)));
  EXPECT_GT(Pattern("(ab){2000}").size(), 2000U);
}

TEST(Pattern, ManyThreadsMayAskOne) {
  const Pattern pattern(R"((?P<n>\w+)\.(?:x|y)*\.(?P=n))");
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const std::string name = "layer" + std::to_string(i);
      for (int round = 0; round < 500; ++round) {
        right += pattern.matches_whole(name + ".xyxy." + name) ? 1 : 0;
        right += pattern.matches_whole(name + ".xyxy." + name + "0") ? 0 : 1;
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(right, 4000);
}

}  // namespace
}  // namespace lorascale
