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
