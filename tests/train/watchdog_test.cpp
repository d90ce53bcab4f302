#include "train/watchdog.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "support/temp_folder.hpp"
#include "train/failure_report.hpp"

namespace lorascale::train {
namespace {

void sleep_ms(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

class WatchdogDeathTest : public testing::Test {
 protected:
  WatchdogDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(WatchdogDeathTest, EndsAProcessThatMakesNoProgress) {
  EXPECT_EXIT(
      {
        Watchdog watchdog(0.3);
        watchdog.set_name("rank 2 (node7)");
        set_current_step(41);
        beat("forward and backward");
        sleep_ms(20'000);
      },
      testing::ExitedWithCode(86),
      "rank 2 \\(node7\\) made no progress for .* at step 41, in: forward and backward");
}

TEST_F(WatchdogDeathTest, TheReportIsWrittenBeforeTheEnd) {
  // By a name that the process that dies, which begins the test anew, has too.
  const auto folder = std::filesystem::path(testing::TempDir()) / "watchdog_report";
  std::filesystem::create_directories(folder);
  EXPECT_EXIT(
      {
        Watchdog watchdog(0.3);
        watchdog.on_hang([&](const std::string& message) {
          write_failure_report(folder, {2, "node7"}, ExitCode::kHang, message);
        });
        sleep_ms(20'000);
      },
      testing::ExitedWithCode(86), "");
  std::ifstream in(folder / "error-2.json");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_NE(text.find("\"exit_code\": 86"), std::string::npos) << text;
  EXPECT_NE(text.find("\"host\": \"node7\""), std::string::npos) << text;
  std::filesystem::remove_all(folder);
}

// A report on a disk that hangs must not keep the process.
TEST_F(WatchdogDeathTest, AReportThatHangsDoesNotKeepTheProcess) {
  EXPECT_EXIT(
      {
        Watchdog watchdog(0.3);
        watchdog.on_hang([](const std::string&) { sleep_ms(60'000); });
        sleep_ms(20'000);
      },
      testing::ExitedWithCode(86), "");
}

TEST(WatchdogTest, LetsAProcessThatReportsGoOn) {
  Watchdog watchdog(0.6);
  for (int i = 0; i < 12; ++i) {
    beat("working");
    sleep_ms(100);
  }
}

TEST(FailureReportTest, OldReportsGoAndOtherFilesStay) {
  const test::TempFolder own;
  const auto& folder = own.path();
  std::ofstream(folder / "error-0.json") << "{}";
  std::ofstream(folder / "metrics.jsonl") << "{}";
  remove_failure_reports(folder);
  EXPECT_FALSE(std::filesystem::exists(folder / "error-0.json"));
  EXPECT_TRUE(std::filesystem::exists(folder / "metrics.jsonl"));
  // A folder that is gone costs a line on stderr, not the process.
  std::filesystem::remove_all(folder);
  write_failure_report(folder, {0, "host"}, ExitCode::kInternal, "text with \xff no UTF-8");
}

}  // namespace
}  // namespace lorascale::train
