#include "base/heartbeat.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace lorascale {
namespace {

TEST(HeartbeatTest, KeepsTheLastPhaseAndCounts) {
  const auto before = last_heartbeat().count;
  set_current_step(7);
  beat("reading");
  beat("writing");
  const auto last = last_heartbeat();
  EXPECT_STREQ(last.phase, "writing");
  EXPECT_EQ(last.step, 7);
  EXPECT_EQ(last.count, before + 2);
}

TEST(HeartbeatTest, ALongCallIsReportedFromASideAndNotForEver) {
  const auto before = last_heartbeat().count;
  {
    const KeepBeating beating("loading", /*at_most_seconds=*/0.35);
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    EXPECT_GE(last_heartbeat().count, before + 2);
    EXPECT_STREQ(last_heartbeat().phase, "loading");
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const auto silent = last_heartbeat().count;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_EQ(last_heartbeat().count, silent) << "a call that never returns must be seen";
  }
  const auto after = last_heartbeat().count;
  std::this_thread::sleep_for(std::chrono::milliseconds(250));
  EXPECT_EQ(last_heartbeat().count, after);
}

TEST(RunningClockTest, CountsTimeThatTheProcessRan) {
  RunningClock clock;
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  const double seconds = clock.seconds();
  EXPECT_GE(seconds, 0.03);
  clock.restart();
  EXPECT_LT(clock.seconds(), seconds);
}

// A process that was stopped for longer than a second has not waited for its peers that long.
TEST(RunningClockTest, AGapCountsAsOneSecond) {
  RunningClock clock;
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  EXPECT_EQ(clock.seconds(), 1.0);
}

}  // namespace
}  // namespace lorascale
