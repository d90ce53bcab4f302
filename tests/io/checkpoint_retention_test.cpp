#include "io/checkpoint_retention.hpp"

#include <vector>

#include "checkpoint_support.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

class CheckpointRetentionTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const std::int64_t step : {10, 20, 30, 40}) {
      save_sample(folder_.path(), step);
    }
  }
  void damage(std::int64_t step) {
    put_file(folder_.path() / checkpoint_name(step) / "state.json", "?");
  }
  std::vector<std::int64_t> left() { return list_checkpoints(folder_.path()); }

  const TempFolder folder_;
};

TEST_F(CheckpointRetentionTest, KeepsTheNewest) {
  EXPECT_THAT(prune_checkpoints(folder_.path(), 2), ElementsAre(20, 10));
  EXPECT_THAT(left(), ElementsAre(40, 30));
  EXPECT_FALSE(has_entry_like(folder_.path(), ".trash"));
  EXPECT_THAT(prune_checkpoints(folder_.path(), 2), IsEmpty());
  EXPECT_THAT(prune_checkpoints(folder_.path(), 99), IsEmpty());
}

TEST_F(CheckpointRetentionTest, KeepsProtectedSteps) {
  const std::vector<std::int64_t> best{10, 77};
  EXPECT_THAT(prune_checkpoints(folder_.path(), 1, best), ElementsAre(30, 20));
  EXPECT_THAT(left(), ElementsAre(40, 10));
}

TEST_F(CheckpointRetentionTest, DamagedOnesDoNotCount) {
  damage(40);
  EXPECT_THAT(prune_checkpoints(folder_.path(), 2), ElementsAre(10));
  EXPECT_THAT(left(), ElementsAre(40, 30, 20));
}

TEST_F(CheckpointRetentionTest, NeverDeletesTheLastIntactOne) {
  damage(40);
  damage(30);
  damage(20);
  EXPECT_THAT(prune_checkpoints(folder_.path(), 1), IsEmpty());
  EXPECT_EQ(find_newest_valid(folder_.path()).checkpoint->step(), 10);
}

TEST_F(CheckpointRetentionTest, DeletesNothingWhereAllAreDamaged) {
  for (const std::int64_t step : {10, 20, 30, 40}) {
    damage(step);
  }
  EXPECT_THAT(prune_checkpoints(folder_.path(), 1), IsEmpty());
  EXPECT_THAT(left(), ElementsAre(40, 30, 20, 10));
}

TEST_F(CheckpointRetentionTest, RefusesToKeepNone) {
  expect_error(ExitCode::kBadConfig, {"checkpoint.keep is 0", "at least 1"},
               [&] { prune_checkpoints(folder_.path(), 0); });
  EXPECT_EQ(left().size(), 4U);
}

TEST_F(CheckpointRetentionTest, RemovesWhatKilledProcessesLeft) {
  fs::create_directories(folder_ / ".tmp-step-00000050-1/sub");
  fs::create_directories(folder_ / ".trash-step-00000005");
  put_file(folder_ / ".LATEST.tmp-12-0", "x");
  put_file(folder_ / "notes.txt", "mine");
  remove_leftovers(folder_.path());
  EXPECT_FALSE(has_entry_like(folder_.path(), "."));
  EXPECT_EQ(left().size(), 4U);
  EXPECT_TRUE(fs::exists(folder_ / "notes.txt"));
  remove_leftovers(folder_ / "nowhere");
}

TEST_F(CheckpointRetentionTest, FollowsNoLinks) {
  const TempFolder outside;
  put_file(outside / "precious", "x");
  fs::create_directory_symlink(outside.path(), folder_ / "step-00000001");
  fs::create_directory_symlink(outside.path(), folder_ / ".trash-x");
  prune_checkpoints(folder_.path(), 1);
  remove_leftovers(folder_.path());
  EXPECT_TRUE(fs::exists(outside / "precious"));
}

}  // namespace
}  // namespace lorascale::io
