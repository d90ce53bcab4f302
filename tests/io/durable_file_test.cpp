#include "io/durable_file.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "support.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

std::size_t entries_in(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(AtomicFile, ReplacesAFileAndLeavesNothingBeside) {
  const TempFolder folder;
  write_file_atomically(folder / "a.txt", "one");
  EXPECT_EQ(get_file(folder / "a.txt"), "one");
  write_file_atomically(folder / "a.txt", std::string(100'000, 'x'));
  EXPECT_EQ(get_file(folder / "a.txt"), std::string(100'000, 'x'));
  write_file_atomically(folder / "empty", "");
  EXPECT_EQ(get_file(folder / "empty"), "");
  EXPECT_EQ(entries_in(folder.path()), 2U);
}

TEST(AtomicFile, KeepsTheOldFileUntilCommit) {
  const TempFolder folder;
  put_file(folder / "a.txt", "old");
  {
    AtomicFile file(folder / "a.txt");
    file.write(bytes_of("new"));
    EXPECT_EQ(get_file(folder / "a.txt"), "old");
  }
  EXPECT_EQ(get_file(folder / "a.txt"), "old");
  EXPECT_EQ(entries_in(folder.path()), 1U);
}

TEST(AtomicFile, ReplacesALinkAndNotItsTarget) {
  const TempFolder folder;
  put_file(folder / "target", "old");
  fs::create_symlink("target", folder / "link");
  write_file_atomically(folder / "link", "new");
  EXPECT_EQ(get_file(folder / "target"), "old");
  EXPECT_EQ(get_file(folder / "link"), "new");
  EXPECT_FALSE(fs::is_symlink(folder / "link"));
}

TEST(AtomicFile, NamesCauseAndRemedy) {
  const TempFolder folder;
  expect_error(ExitCode::kCannotWrite, {"none", "No such file", "check the path"},
               [&] { write_file_atomically(folder / "none/a.txt", "x"); });
  fs::create_directory(folder / "taken");
  expect_error(ExitCode::kCannotWrite, {"taken", "cannot be written"},
               [&] { write_file_atomically(folder / "taken", "x"); });
  expect_error(ExitCode::kCannotWrite, {"names no file"},
               [&] { write_file_atomically(folder / "taken/", "x"); });
  EXPECT_EQ(entries_in(folder.path()), 1U);
}

TEST(WriteAll, ReportsAFullDisk) {
  const FileDescriptor full(::open("/dev/full", O_WRONLY));
  ASSERT_TRUE(full.is_open());
  expect_error(ExitCode::kCannotWrite, {"run/a.bin", "No space left", "free space"},
               [&] { write_all(full, bytes_of("x"), "run/a.bin"); });
}

TEST(WriteAll, ReportsABadDescriptor) {
  const TempFolder folder;
  put_file(folder / "a", "");
  const OpenedFile readable = open_for_reading(folder / "a");
  expect_error(ExitCode::kCannotWrite, {"cannot be written"},
               [&] { write_all(readable.descriptor, bytes_of("x"), "a"); });
}

TEST(CreateFile, NeverOverwritesNorFollowsALink) {
  const TempFolder folder;
  put_file(folder / "a", "old");
  expect_error(ExitCode::kCannotWrite, {"exists"}, [&] { create_file(folder / "a"); });
  fs::create_symlink(folder / "elsewhere", folder / "dangling");
  expect_error(ExitCode::kCannotWrite, {"exists"}, [&] { create_file(folder / "dangling"); });
  EXPECT_FALSE(fs::exists(folder / "elsewhere"));
}

// The limit holds for a whole process, so a child meets it.
TEST(AtomicFile, SurvivesALimitOnFileSizes) {
  const TempFolder folder;
  put_file(folder / "a.bin", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    int code = 1;
    try {
      write_file_atomically(folder / "a.bin", std::string(100'000, 'x'));
    } catch (const Error& error) {
      const bool explains = std::string(error.what()).find("ulimit -f") != std::string::npos;
      code = error.code() == ExitCode::kCannotWrite && explains ? 0 : 2;
    }
    ::_exit(code);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(get_file(folder / "a.bin"), "old");
  EXPECT_EQ(entries_in(folder.path()), 1U);
}

TEST(DescribeErrno, HasARemedyForTheUsualCauses) {
  for (const int code : {ENOSPC, EDQUOT, EROFS, EACCES, EPERM, EFBIG, EMFILE, EIO, ENOENT}) {
    EXPECT_NE(describe_errno(code).find(": "), std::string::npos) << code;
  }
}

TEST(FileDescriptor, MovesAndCloses) {
  FileDescriptor first(::open("/dev/null", O_RDONLY));
  const int number = first.get();
  FileDescriptor second(std::move(first));
  EXPECT_FALSE(
      first.is_open());  // NOLINT(bugprone-use-after-move): what a move leaves is the point
  EXPECT_EQ(second.get(), number);
  EXPECT_EQ(second.close(), 0);
  EXPECT_EQ(second.close(), 0);
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

}  // namespace
}  // namespace lorascale::io
