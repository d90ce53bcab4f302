#include "io/line_log.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "base/error.hpp"

namespace lorascale::io {
namespace {

std::string content(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

class LineLogTest : public testing::Test {
 protected:
  LineLogTest()
      : folder_(std::filesystem::path(testing::TempDir()) /
                ("line_log_" +
                 std::string(testing::UnitTest::GetInstance()->current_test_info()->name()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~LineLogTest() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(LineLogTest, AppendsWholeLines) {
  std::ofstream(folder_ / "log") << "old\n";
  LineLog log(folder_ / "log");
  EXPECT_TRUE(log.write("a"));
  EXPECT_TRUE(log.write(""));
  EXPECT_EQ(content(folder_ / "log"), "old\na\n\n");
  EXPECT_EQ(log.lost_lines(), 0);
}

// A file-size limit cuts the line in two, as a full disk does: what was written of it goes again.
TEST_F(LineLogTest, ALineThatDoesNotFitIsLostAsAWhole) {
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  LineLog log(folder_ / "log");
  EXPECT_TRUE(log.write("first"));
  const rlimit small{10, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_FALSE(log.write("much longer"));
  EXPECT_EQ(content(folder_ / "log"), "first\n");
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(log.write("later"));
  EXPECT_EQ(content(folder_ / "log"), "first\nlater\n");
  EXPECT_EQ(log.lost_lines(), 1);
  std::signal(SIGXFSZ, handler);
}

TEST_F(LineLogTest, AFullDeviceLosesLinesAndGoesOn) {
  LineLog log("/dev/full");
  EXPECT_FALSE(log.write("x"));
  EXPECT_FALSE(log.write("y"));
  EXPECT_EQ(log.lost_lines(), 2);
}

TEST_F(LineLogTest, WhatCannotBeOpenedIsRefusedAtOnce) {
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  for (const auto& path : {folder_, folder_ / "missing" / "log", folder_ / "pipe"}) {
    try {
      const LineLog log(path);
      ADD_FAILURE() << path << " was opened";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kCannotWrite);
      EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace lorascale::io
