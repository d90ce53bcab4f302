// Any change to any file of a checkpoint is noticed, and the one before it takes its place.
#include <algorithm>
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "checkpoint_support.hpp"
#include "io/checkpoint_folder.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

class CheckpointDamageTest : public testing::Test {
 protected:
  void SetUp() override {
    save_sample(folder_.path(), 1);
    newest_ = save_sample(folder_.path(), 2);
    for (const auto& entry : fs::directory_iterator(newest_)) {
      files_.push_back(entry.path());
    }
    std::sort(files_.begin(), files_.end());
    ASSERT_EQ(files_.size(), sample_files().size() + 1);
  }

  // Changes a file, expects the fall-back, and mends the file again.
  void expect_noticed(const fs::path& path, const std::string& damaged) {
    const std::string original = get_file(path);
    put_file(path, damaged);
    const NewestCheckpoint newest = find_newest_valid(folder_.path());
    ASSERT_TRUE(newest.checkpoint.has_value());
    EXPECT_EQ(newest.checkpoint->step(), 1);
    ASSERT_EQ(newest.skipped.size(), 1U);
    EXPECT_THAT(newest.skipped[0].reason, testing::HasSubstr(path.filename().string()));
    put_file(path, original);
  }

  const TempFolder folder_;
  fs::path newest_;
  std::vector<fs::path> files_;
};

TEST_F(CheckpointDamageTest, NoticesFlippedBits) {
  for (std::uint64_t trial = 0; trial < 500; ++trial) {
    const fs::path& path = files_[trial % files_.size()];
    std::string content = get_file(path);
    if (content.empty()) {
      continue;
    }
    const std::uint64_t bit = mix64(trial) % (content.size() * 8);
    content[bit / 8] = static_cast<char>(content[bit / 8] ^ (1 << bit % 8));
    SCOPED_TRACE(path.string() + " bit " + std::to_string(bit));
    expect_noticed(path, content);
  }
  EXPECT_EQ(find_newest_valid(folder_.path()).checkpoint->step(), 2);
}

TEST_F(CheckpointDamageTest, NoticesTruncation) {
  for (const fs::path& path : files_) {
    const std::string content = get_file(path);
    for (const std::size_t size : {content.size() / 2, content.size() - 1, std::size_t{0}}) {
      if (size < content.size()) {
        expect_noticed(path, content.substr(0, size));
      }
    }
  }
}

TEST_F(CheckpointDamageTest, NoticesExtension) {
  for (const fs::path& path : files_) {
    expect_noticed(path, get_file(path) + '\0');
    expect_noticed(path, get_file(path) + get_file(path) + ' ');
  }
}

TEST_F(CheckpointDamageTest, NoticesSwappedContent) {
  expect_noticed(newest_ / "MANIFEST.json", get_file(folder_ / "step-00000001/MANIFEST.json"));
}

TEST_F(CheckpointDamageTest, NoticesDeletion) {
  for (const fs::path& path : files_) {
    fs::rename(path, folder_ / "aside");
    const NewestCheckpoint newest = find_newest_valid(folder_.path());
    EXPECT_EQ(newest.checkpoint->step(), 1) << path;
    ASSERT_EQ(newest.skipped.size(), 1U);
    EXPECT_THAT(newest.skipped[0].reason,
                testing::HasSubstr(path.filename().string() + " cannot be read"));
    fs::rename(folder_ / "aside", path);
  }
}

}  // namespace
}  // namespace lorascale::io
