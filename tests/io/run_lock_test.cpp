#include "io/run_lock.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>

#include "support.hpp"

namespace lorascale::io {
namespace {

TEST(RunLock, KeepsASecondJobOutAndNamesTheOwner) {
  const TempFolder folder;
  const RunLock owner(folder / "run");
  const std::string pid = "process " + std::to_string(::getpid());
  expect_error(ExitCode::kCannotWrite, {"run", "in use by", pid, " on ", "run.output_dir"},
               [&] { RunLock second(folder / "run"); });
  EXPECT_NO_THROW(owner.check_still_owner());
}

TEST(RunLock, EndsWithItsObject) {
  const TempFolder folder;
  { const RunLock first(folder.path()); }
  const RunLock second(folder.path());
  EXPECT_EQ(second.generation(), 2);
}

// The kernel releases the lock of a killed process: nobody has to clean up.
TEST(RunLock, EndsWithItsProcess) {
  const TempFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const RunLock lock(folder.path());
    (void)!::write(ready[1], "x", 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  expect_error(ExitCode::kCannotWrite, {"process " + std::to_string(child)},
               [&] { RunLock lock(folder.path()); });
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(RunLock(folder.path()).generation(), 2);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(RunLock, CountsGenerations) {
  const TempFolder folder;
  for (std::int64_t generation = 1; generation <= 12; ++generation) {
    EXPECT_EQ(RunLock(folder.path()).generation(), generation);
  }
  EXPECT_TRUE(std::filesystem::exists(folder / ".generation-12"));
  EXPECT_FALSE(std::filesystem::exists(folder / ".generation-11"));
}

// As after a requeue while the node of the first process was merely cut off.
TEST(RunLock, AnOlderGenerationNoticesThatItWasReplaced) {
  const TempFolder folder;
  const RunLock old(folder.path());
  put_file(folder / ".generation-2", "process 1 on elsewhere\n");
  expect_error(ExitCode::kInternal, {"taken over by generation 2", "generation 1", "stops"},
               [&] { old.check_still_owner(); });
}

TEST(RunLock, IgnoresOtherNamesAndDamagedText) {
  const TempFolder folder;
  put_file(folder / ".generation-x", "");
  put_file(folder / ".generation-", "");
  put_file(folder / ".generation-99999999999999999999", "");
  put_file(folder / ".lock", std::string("\x1b[2J\0\xff", 6));
  EXPECT_EQ(RunLock(folder.path()).generation(), 1);
}

TEST(RunLock, SaysWhyAFolderCannotBeUsed) {
  const TempFolder folder;
  put_file(folder / "file", "");
  expect_error(ExitCode::kCannotWrite, {"file", "cannot be written"},
               [&] { RunLock lock(folder / "file"); });
}

}  // namespace
}  // namespace lorascale::io
