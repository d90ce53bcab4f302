#include "io/parallel_read.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "base/rng.hpp"
#include "support.hpp"

namespace lorascale::io {
namespace {

std::string random_text(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>(mix64(i));
  }
  return text;
}

// Larger than two pieces, with ranges that begin and end anywhere and overlap in the file.
TEST(ReadParallel, FillsEveryByte) {
  const TempFolder folder;
  const std::string content = random_text((17 << 20) + 12'345);
  put_file(folder / "a", content);
  const std::filesystem::path path = folder / "a";
  const OpenedFile file = open_for_reading(path);
  for (const int threads : {1, 2, 8}) {
    std::vector<std::byte> whole(content.size());
    std::vector<std::byte> part(1000);
    const std::vector<ByteRange> ranges{{&file.descriptor, &path, 0, whole},
                                        {&file.descriptor, &path, 0, {}},
                                        {&file.descriptor, &path, 8'388'000, part}};
    read_parallel(ranges, threads);
    EXPECT_TRUE(text_of(whole) == content) << threads;
    EXPECT_EQ(text_of(part), content.substr(8'388'000, 1000)) << threads;
  }
  read_parallel({}, 4);
}

TEST(ReadParallel, ReportsAFileThatShrank) {
  const TempFolder folder;
  const std::filesystem::path path = folder / "a";
  put_file(path, random_text(30 << 20));
  const OpenedFile file = open_for_reading(path);
  std::filesystem::resize_file(path, 20 << 20);
  std::vector<std::byte> whole(file.bytes);
  const ByteRange range{&file.descriptor, &path, 0, whole};
  for (const int threads : {1, 4}) {
    expect_error(ExitCode::kBadInput, {path.string(), "became shorter", "run again"},
                 [&] { read_parallel(std::span(&range, 1), threads); });
  }
}

TEST(OpenForReading, TakesRegularFilesOnly) {
  const TempFolder folder;
  expect_error(ExitCode::kBadInput, {"is a folder"}, [&] { open_for_reading(folder.path()); });
  expect_error(ExitCode::kBadInput, {"no regular file"}, [&] { open_for_reading("/dev/null"); });
  const std::filesystem::path fifo = folder / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  expect_error(ExitCode::kBadInput, {"no regular file"},
               [&] { open_for_reading(fifo); });  // and does not wait
}

}  // namespace
}  // namespace lorascale::io
