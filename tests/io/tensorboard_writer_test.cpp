#include "io/tensorboard_writer.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <vector>

#include "base/hash.hpp"
#include "support.hpp"

namespace lorascale::io {
namespace {

using namespace std::string_literals;

// Counts up by one second per call.
TensorboardWriter::Clock ticking(double start = 1700000000.0) {
  return [now = start]() mutable { return now++; };
}

std::string scalar_record(double wall_time, std::int64_t step, float value) {
  return encode_record(encode_summary_event(wall_time, step, encode_scalar("loss", value)));
}

TEST(TensorboardWriter, WritesRecords) {
  const TempFolder folder;
  TensorboardWriter writer(folder / "logs", ticking());
  EXPECT_THAT(writer.path().filename().string(),
              testing::StartsWith("events.out.tfevents.1700000000."));
  const std::string head = encode_record(encode_version_event(1700000000.0));
  EXPECT_EQ(get_file(writer.path()), head);
  writer.add_scalar("loss", 7, 0.5);
  writer.flush();
  EXPECT_EQ(get_file(writer.path()), head + scalar_record(1700000001.0, 7, 0.5F));
  writer.add_histogram("none", 7, std::vector<float>{NAN});
  writer.flush();
  EXPECT_EQ(get_file(writer.path()), head + scalar_record(1700000001.0, 7, 0.5F));
}

TEST(TensorboardWriter, FlushesAtTheEndAndWhenMuchIsWaiting) {
  const TempFolder folder;
  std::filesystem::path path;
  {
    TensorboardWriter writer(folder.path(), ticking());
    path = writer.path();
    writer.add_text("t", 1, std::string(2 << 20, 'x'));
    EXPECT_GT(std::filesystem::file_size(path), 2U << 20);
    writer.add_scalar("loss", 7, 0.5);
  }
  EXPECT_TRUE(get_file(path).ends_with(scalar_record(1700000002.0, 7, 0.5F)));
}

TEST(TensorboardWriter, TwoInOneSecondHaveTwoFiles) {
  const TempFolder folder;
  const TensorboardWriter first(folder.path(), ticking());
  const TensorboardWriter second(folder.path(), ticking());
  EXPECT_NE(first.path(), second.path());
}

TEST(TensorboardWriter, ReportsOnceWhereItCannotWriteAndGoesOn) {
  const TempFolder folder;
  put_file(folder / "file", "");
  std::vector<std::string> reports;
  TensorboardWriter writer(folder / "file", ticking(),
                           [&](const std::string& text) { reports.push_back(text); });
  for (int step = 0; step < 3; ++step) {
    writer.add_scalar("loss", step, 0.5);
    writer.flush();
  }
  ASSERT_EQ(reports.size(), 1U);
  EXPECT_THAT(reports[0], testing::AllOf(testing::HasSubstr("training goes on"),
                                         testing::HasSubstr("cannot be written")));
}

// A limit on file sizes stands for a disk that fills up and is freed again.
TEST(TensorboardWriter, LeavesWholeRecordsBehindAfterAWriteError) {
  const TempFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    int reports = 0;
    TensorboardWriter writer(folder.path(), ticking(), [&](const std::string&) { ++reports; });
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{300, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    for (int step = 0; step < 100; ++step) {
      writer.add_scalar("loss", step, 1.0);
    }
    writer.flush();
    writer.add_text("large", 0, std::string(1000, 'x'));
    writer.flush();
    limit.rlim_cur = RLIM_INFINITY;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    writer.add_scalar("loss", 100, 2.0);
    writer.flush();
    ::_exit(reports == 1 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  const std::filesystem::path path = std::filesystem::directory_iterator(folder.path())->path();
  EXPECT_EQ(get_file(path), encode_record(encode_version_event(1700000000.0)) +
                                scalar_record(1700000102.0, 100, 2.0F));
}

#ifdef LORASCALE_PYTHON
TEST(TensorboardPeer, ReadsOurFiles) {
  if (!has_python()) {
    GTEST_SKIP() << "configured without Python";
  }
  const TempFolder folder;
  const std::string png = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\2\0\0\0\1\x08\2\0\0\0"s;
  {
    TensorboardWriter writer(folder.path(), ticking());
    writer.add_scalar("train/loss", 1, 2.5);
    writer.add_scalar("train/loss", 3'000'000'000, -0.125);
    writer.add_text("config", 0, "**bold** \xc3\xa9\n");
    writer.add_histogram("grad", 2, std::vector<float>{-1.0F, 0.0F, 3.0F});
    writer.add_image("sample", 4, 1, 2, 3, bytes_of(png));
  }
  EXPECT_EQ(run_python("tensorboard_peer.py", "'" + folder.path().string() + "' 2>/dev/null"),
            "scalar train/loss 1 1700000001.0 2.5\n"
            "scalar train/loss 3000000000 1700000002.0 -0.125\n"
            "text config/text_summary 0 '**bold** \xc3\xa9\\n'\n"
            "histogram grad 2 -1.0 3.0 3.0 2.0 10.0 64 3.0\n"
            "image sample 4 2 1 " +
                sha256_hex(png) + "\n");
}
#endif

}  // namespace
}  // namespace lorascale::io
