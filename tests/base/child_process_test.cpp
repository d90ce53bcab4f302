#include "base/child_process.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"

namespace lorascale {
namespace {

struct Heard {
  std::vector<std::string> output, error;
  OnChildLine take() {
    return [this](ChildStream stream, std::string_view text) {
      (stream == ChildStream::kOutput ? output : error).emplace_back(text);
    };
  }
};

bool always() {
  return true;
}

ChildOutcome shell(const std::string& script, Heard& heard, const KeepGoing& keep_going = always) {
  return run_child({{"/bin/sh", "-c", script}, {}}, heard.take(), keep_going);
}

TEST(ChildProcess, ItsLinesComeByStream) {
  Heard heard;
  const auto outcome =
      shell("echo one; printf 'two\\rthree\\n\\nlast' ; echo bad >&2; exit 7", heard);
  EXPECT_EQ(outcome.exit_code, 7);
  EXPECT_EQ(outcome.signal, 0);
  EXPECT_FALSE(outcome.stopped);
  EXPECT_EQ(heard.output, (std::vector<std::string>{"one", "two", "three", "last"}));
  EXPECT_EQ(heard.error, std::vector<std::string>{"bad"});
}

TEST(ChildProcess, ArgumentsAreNotReadByAShell) {
  Heard heard;
  const std::string odd = "a b'c\"$HOME;*\n`ls`";
  run_child({{"printf", "%s|", odd, ""}, {}}, heard.take(), always);
  EXPECT_EQ(heard.output, (std::vector<std::string>{"a b'c\"$HOME;*", "`ls`||"}));
}

TEST(ChildProcess, EnvironmentIsThisProcessesWithChanges) {
  ::setenv("LS_TEST_KEPT", "kept", 1);
  ::setenv("LS_TEST_CHANGED", "before", 1);
  Heard heard;
  run_child({{"/bin/sh", "-c", "echo $LS_TEST_KEPT $LS_TEST_CHANGED $LS_TEST_NEW"},
             {{"LS_TEST_CHANGED", "after"}, {"LS_TEST_NEW", "new"}}},
            heard.take(), always);
  EXPECT_EQ(heard.output, std::vector<std::string>{"kept after new"});
}

TEST(ChildProcess, InheritsNeitherFilesNorIgnoredSignals) {
  const int leaked = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC
  ASSERT_GE(leaked, 3);
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  Heard heard;
  shell("ls /proc/self/fd | wc -l; grep SigIgn /proc/self/status", heard);
  std::signal(SIGPIPE, before);
  ::close(leaked);
  ASSERT_EQ(heard.output.size(), 2U);
  EXPECT_EQ(std::stoi(heard.output[0]), 4);  // 0, 1, 2 and the folder itself
  // But for the two that the C library keeps for itself, which posix_spawn sets to be ignored.
  const auto ignored =
      std::stoull(heard.output[1].substr(heard.output[1].find(':') + 1), nullptr, 16);
  EXPECT_EQ(ignored & ~0x180000000ULL, 0U) << heard.output[1];
}

TEST(ChildProcess, SaysWhichSignalEndedIt) {
  Heard heard;
  EXPECT_EQ(shell("kill -9 $$", heard).signal, SIGKILL);
}

TEST(ChildProcess, EndsWithAllItStartedWhenNobodyWantsItAnyMore) {
  Heard heard;
  int asked = 0;
  const auto begin = std::chrono::steady_clock::now();
  const auto outcome = shell("sleep 60 & echo $!; wait", heard, [&] { return ++asked < 3; });
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(9));
  EXPECT_TRUE(outcome.stopped);
  ASSERT_EQ(heard.output.size(), 1U);
  // A signal takes its time. What has ended has no files, though init may not have waited for it
  // yet.
  const auto file = "/proc/" + heard.output[0] + "/fd/0";
  for (int tries = 0; ::access(file.c_str(), F_OK) == 0 && tries < 200; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_NE(::access(file.c_str(), F_OK), 0);
}

TEST(ChildProcess, IsKilledWhereACallbackThrows) {
  std::string process;
  EXPECT_THROW(run_child(
                   {{"/bin/sh", "-c", "echo $$; exec sleep 60"}, {}},
                   [&](ChildStream, std::string_view text) {
                     process = text;
                     throw std::runtime_error("enough");
                   },
                   always),
               std::runtime_error);
  ASSERT_FALSE(process.empty());
  EXPECT_NE(::kill(std::stoi(process), 0), 0);
}

TEST(ChildProcess, DoesNotWaitForWhatKeepsItsOutputOpen) {
  Heard heard;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(shell("sleep 60 & echo done", heard).exit_code, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_EQ(heard.output, std::vector<std::string>{"done"});
}

TEST(ChildProcess, AMissingProgramIsBadInput) {
  Heard heard;
  try {
    run_child({{"/nowhere/python3"}, {}}, heard.take(), always);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    EXPECT_NE(std::string(error.what()).find("/nowhere/python3 cannot be started"),
              std::string::npos);
  }
}

TEST(ChildProcess, LongLinesAreCutAndTheRestGoesOn) {
  Heard heard;
  shell("head -c 300000 /dev/zero | tr '\\0' x; echo; echo next", heard);
  ASSERT_EQ(heard.output.size(), 2U);
  EXPECT_EQ(heard.output[0], std::string(64 << 10, 'x'));
  EXPECT_EQ(heard.output[1], "next");
}

TEST(ChildProcess, ShownCommandsMeanTheSameToAShell) {
  const std::vector<std::string> words = {"echo", "a b", "it's", "$HOME", "", "x=1", "-n*"};
  Heard heard;
  shell("printf '%s\\n' " + shell_command({words.begin() + 1, words.end()}) + " end", heard);
  EXPECT_EQ(heard.output, (std::vector<std::string>{"a b", "it's", "$HOME", "x=1", "-n*", "end"}));
  EXPECT_EQ(shell_command({"python3", "a/b.py", "--x=1"}), "python3 a/b.py --x=1");
}

}  // namespace
}  // namespace lorascale
