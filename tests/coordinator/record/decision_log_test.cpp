#include "coordinator/record/decision_log.hpp"

#include "support.hpp"

namespace lorascale::coordinator {
namespace {

std::vector<Decision> three_entries() {
  DecisionLog log;
  log.add(0, 0, "plan", "first \"quoted\"", {{"x", 0.1}, {"y", {1, 2}}});
  log.add(3, 192, "skip", "second", {{"loss", "nan"}});
  log.add(4, 256, "best", "third", {{"loss", 1.5}});
  return log.take();
}

TEST(DecisionLog, NumbersEntriesAndForgetsWhatWasTaken) {
  DecisionLog log;
  log.add(0, 0, "a", "first", {{"x", 1}});
  EXPECT_EQ(log.take().at(0).sequence, 1);
  EXPECT_TRUE(log.take().empty());
  log.add(1, 8, "b", "second", {{"x", 1}});
  const auto second = log.take();
  EXPECT_EQ(second.at(0).sequence, 2);
  EXPECT_EQ(second.at(0).chain, log.chain());
}

TEST(DecisionLog, LinesReadBackToTheSameBytes) {
  for (const Decision& decision : three_entries()) {
    const std::string line = to_json_line(decision);
    EXPECT_EQ(line.find('\n'), std::string::npos);
    const Decision back = decision_from_json_line(line);
    EXPECT_EQ(to_json_line(back), line);
    EXPECT_EQ(back.kind, decision.kind);
    EXPECT_EQ(back.reason, decision.reason);
    EXPECT_EQ(back.chain, decision.chain);
  }
  const auto json = Json::parse(to_json_line(three_entries()[0]));
  EXPECT_EQ(json.at("inputs").at("x"), 0.1);
  for (const char* line : {"", "{", "{}", "[]", "{\"sequence\":1}"}) {
    testing::expect_error(ExitCode::kBadInput, {"decision log"},
                          [&] { decision_from_json_line(line); });
  }
}

// V25: whatever is changed, left out, doubled or moved shows at its place.
TEST(DecisionLog, V25TamperingShows) {
  const auto untouched = three_entries();
  EXPECT_FALSE(first_broken_link(untouched));
  const std::function<void(Decision&)> changes[] = {
      [](Decision& d) { d.sequence += 1; },   [](Decision& d) { d.step += 1; },
      [](Decision& d) { d.samples += 1; },    [](Decision& d) { d.kind += "x"; },
      [](Decision& d) { d.reason[0] = 'F'; }, [](Decision& d) { d.inputs = "{}"; },
      [](Decision& d) { d.chain ^= 1; }};
  for (std::size_t i = 0; i < untouched.size(); ++i) {
    for (const auto& change : changes) {
      auto log = untouched;
      change(log[i]);
      EXPECT_EQ(first_broken_link(log), i);
    }
  }
  auto missing = untouched;
  missing.erase(missing.begin() + 1);
  EXPECT_EQ(first_broken_link(missing), 1U);
  auto swapped = untouched;
  std::swap(swapped[0], swapped[1]);
  EXPECT_EQ(first_broken_link(swapped), 0U);
  EXPECT_FALSE(first_broken_link(std::span(untouched).subspan(1), untouched[0].chain));
}

}  // namespace
}  // namespace lorascale::coordinator
