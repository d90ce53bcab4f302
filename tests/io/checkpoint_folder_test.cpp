#include "io/checkpoint_folder.hpp"

#include <vector>

#include "checkpoint_support.hpp"
#include "io/checkpoint_retention.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

class CheckpointFolderTest : public testing::Test {
 protected:
  const TempFolder folder_;
  const fs::path checkpoints_ = folder_ / "checkpoints";
};

TEST_F(CheckpointFolderTest, WritesWhatItReads) {
  EXPECT_EQ(save_sample(checkpoints_, 100, 2), checkpoints_ / "step-00000100");
  const Checkpoint checkpoint(checkpoints_ / "step-00000100");
  expect_sample(checkpoint, 100);
  EXPECT_EQ(checkpoint.generation(), 2);
  EXPECT_TRUE(checkpoint.has("state.json"));
  EXPECT_FALSE(checkpoint.has("other"));
  expect_error(ExitCode::kBadInput, {"step-00000100", "no file \"other\""},
               [&] { (void)checkpoint.read("other"); });
  EXPECT_EQ(get_file(checkpoints_ / "LATEST"), "step-00000100\n");
  EXPECT_FALSE(has_entry_like(checkpoints_, "."));
  expect_sample(Checkpoint((checkpoints_ / "step-00000100").string() + "/"), 100);
}

TEST_F(CheckpointFolderTest, WritesPiecesInOrder) {
  CheckpointWriter writer(checkpoints_, 1, 1);
  const std::vector<std::span<const std::byte>> pieces{bytes_of("one "), bytes_of(""),
                                                       bytes_of("two")};
  writer.add("a", pieces);
  EXPECT_EQ(text_of(Checkpoint(writer.commit("{}")).read("a")), "one two");
}

TEST_F(CheckpointFolderTest, IsInvisibleUntilCommitted) {
  {
    CheckpointWriter writer(checkpoints_, 100, 7);
    writer.add("a", "x");
    EXPECT_TRUE(fs::exists(checkpoints_ / ".tmp-step-00000100-7/a"));
    EXPECT_TRUE(list_checkpoints(checkpoints_).empty());
  }
  EXPECT_TRUE(fs::is_empty(checkpoints_));
}

TEST_F(CheckpointFolderTest, FindsTheNewest) {
  EXPECT_FALSE(find_newest_valid(checkpoints_).checkpoint.has_value());  // not even a folder
  for (const std::int64_t step : {5, 123'456'789, 40}) {
    save_sample(checkpoints_, step);
  }
  EXPECT_THAT(list_checkpoints(checkpoints_), ElementsAre(123'456'789, 40, 5));
  const NewestCheckpoint newest = find_newest_valid(checkpoints_);
  ASSERT_TRUE(newest.checkpoint.has_value());
  expect_sample(*newest.checkpoint, 123'456'789);
  EXPECT_TRUE(newest.skipped.empty());
}

TEST_F(CheckpointFolderTest, FindsTheNewestBeforeAStep) {
  for (const std::int64_t step : {5, 40, 60}) {
    save_sample(checkpoints_, step);
  }
  EXPECT_EQ(find_newest_valid(checkpoints_, 61).checkpoint->step(), 60);
  EXPECT_EQ(find_newest_valid(checkpoints_, 60).checkpoint->step(), 40);
  EXPECT_FALSE(find_newest_valid(checkpoints_, 5).checkpoint.has_value());
  remove_checkpoints_after(checkpoints_, 39);
  EXPECT_THAT(list_checkpoints(checkpoints_), ElementsAre(5));
  EXPECT_FALSE(has_entry_like(checkpoints_, "."));
}

TEST_F(CheckpointFolderTest, IgnoresEverythingThatIsNoCheckpoint) {
  save_sample(checkpoints_, 5);
  for (const char* name :
       {".tmp-step-00000009-1", ".trash-step-00000009", "step-9", "step-00000009x", "step-",
        "step--0000009", "step-99999999999999999999", "step-000000009", "STEP-00000009", "other"}) {
    fs::create_directory(checkpoints_ / name);
  }
  const NewestCheckpoint newest = find_newest_valid(checkpoints_);
  ASSERT_TRUE(newest.checkpoint.has_value());
  EXPECT_EQ(newest.checkpoint->step(), 5);
  EXPECT_TRUE(newest.skipped.empty());
}

TEST_F(CheckpointFolderTest, FallsBackAndSaysWhatItSkippedAndWhy) {
  save_sample(checkpoints_, 1);
  save_sample(checkpoints_, 2);
  save_sample(checkpoints_, 3);
  fs::remove(checkpoints_ / "step-00000003/MANIFEST.json");
  put_file(checkpoints_ / "step-00000002/optimizer.bin", "\3\2\1\1");
  fs::create_directory(checkpoints_ / "step-00000004");
  put_file(checkpoints_ / "step-00000005", "a file");
  const NewestCheckpoint newest = find_newest_valid(checkpoints_);
  ASSERT_TRUE(newest.checkpoint.has_value());
  expect_sample(*newest.checkpoint, 1);
  ASSERT_EQ(newest.skipped.size(), 4U);
  EXPECT_THAT(newest.skipped[0].reason,
              testing::HasSubstr("cannot be opened as a checkpoint folder"));
  EXPECT_THAT(newest.skipped[1].reason, testing::HasSubstr("MANIFEST.json"));
  EXPECT_EQ(newest.skipped[2].folder, checkpoints_ / "step-00000003");
  EXPECT_THAT(newest.skipped[3].reason,
              testing::HasSubstr("optimizer.bin does not match its SHA-256"));
}

TEST_F(CheckpointFolderTest, TellsNoneFromNoneLeft) {
  save_sample(checkpoints_, 1);
  fs::remove(checkpoints_ / "step-00000001/state.json");
  const NewestCheckpoint newest = find_newest_valid(checkpoints_);
  EXPECT_FALSE(newest.checkpoint.has_value());
  ASSERT_EQ(newest.skipped.size(), 1U);
  EXPECT_THAT(newest.skipped[0].reason, testing::HasSubstr("state.json"));
}

TEST_F(CheckpointFolderTest, NeverBelievesTheHint) {
  save_sample(checkpoints_, 1);
  save_sample(checkpoints_, 2);
  const auto newest_step = [&] { return find_newest_valid(checkpoints_).checkpoint->step(); };
  for (const char* hint : {"", "step-00000001\n", "../../etc\n", "step-00000099\n", "\xff\xfe"}) {
    put_file(checkpoints_ / "LATEST", hint);
    EXPECT_EQ(newest_step(), 2);
  }
  fs::remove(checkpoints_ / "LATEST");
  EXPECT_EQ(newest_step(), 2);
  fs::create_symlink("nowhere", checkpoints_ / "LATEST");
  EXPECT_EQ(newest_step(), 2);
}

TEST_F(CheckpointFolderTest, RefusesLinksAndRenamedFolders) {
  save_sample(checkpoints_, 1);
  fs::create_symlink("step-00000001", checkpoints_ / "step-00000002");
  fs::copy(checkpoints_ / "step-00000001", checkpoints_ / "step-00000003");
  expect_error(ExitCode::kBadInput, {"step-00000002"},
               [&] { Checkpoint checkpoint(checkpoints_ / "step-00000002"); });
  expect_error(ExitCode::kBadInput, {"is of step 1", "folder says 3"},
               [&] { Checkpoint checkpoint(checkpoints_ / "step-00000003"); });
  fs::rename(checkpoints_ / "step-00000001/state.json", folder_ / "state.json");
  fs::create_symlink(folder_ / "state.json", checkpoints_ / "step-00000001/state.json");
  expect_error(ExitCode::kBadInput, {"state.json", "symbolic link"},
               [&] { Checkpoint checkpoint(checkpoints_ / "step-00000001"); });
  expect_error(ExitCode::kBadInput, {"is no checkpoint"},
               [&] { Checkpoint checkpoint(checkpoints_); });
}

TEST_F(CheckpointFolderTest, NoticesDamageBetweenOpeningAndReading) {
  const Checkpoint checkpoint(save_sample(checkpoints_, 1));
  put_file(checkpoints_ / "step-00000001/state.json", "{\"step\": 2}");
  expect_error(ExitCode::kBadInput, {"state.json", "SHA-256"},
               [&] { (void)checkpoint.read("state.json"); });
}

TEST_F(CheckpointFolderTest, NeverReplacesAnIntactCheckpoint) {
  save_sample(checkpoints_, 1);
  const std::string before = get_file(checkpoints_ / "step-00000001/MANIFEST.json");
  expect_error(ExitCode::kCannotWrite, {"step-00000001", "exists already", "run.output_dir"},
               [&] { save_sample(checkpoints_, 1, 2); });
  EXPECT_EQ(get_file(checkpoints_ / "step-00000001/MANIFEST.json"), before);
  EXPECT_FALSE(has_entry_like(checkpoints_, "."));
}

TEST_F(CheckpointFolderTest, ReplacesAnIntactOneWhenTold) {
  for (const std::string text : {"first", "second"}) {
    CheckpointWriter writer(checkpoints_, 4, 1);
    writer.add("a", text);
    writer.commit("{}", {}, Existing::kReplaced);
    EXPECT_EQ(text_of(Checkpoint(checkpoints_ / "step-00000004").read("a")), text);
    EXPECT_FALSE(has_entry_like(checkpoints_, "."));  // the old one is gone
  }
  // Fenced off before it, nothing has changed.
  CheckpointWriter writer(checkpoints_, 4, 2);
  writer.add("a", "third");
  EXPECT_THROW(writer.commit(
                   "{}", [] { throw Error(ExitCode::kInternal, "replaced"); }, Existing::kReplaced),
               Error);
  EXPECT_EQ(text_of(Checkpoint(checkpoints_ / "step-00000004").read("a")), "second");
}

TEST_F(CheckpointFolderTest, ReplacesADamagedOneOnTheWayAgain) {
  save_sample(checkpoints_, 1);
  put_file(checkpoints_ / "step-00000001/state.json", "?");
  save_sample(checkpoints_, 1, 2);
  EXPECT_EQ(Checkpoint(checkpoints_ / "step-00000001").generation(), 2);
  fs::remove_all(checkpoints_ / "step-00000001");
  fs::create_directory(checkpoints_ /
                       "step-00000001");  // plain rename would silently replace an empty folder
  save_sample(checkpoints_, 1, 3);
  EXPECT_EQ(Checkpoint(checkpoints_ / "step-00000001").generation(), 3);
  EXPECT_FALSE(has_entry_like(checkpoints_, "."));
}

TEST_F(CheckpointFolderTest, StartsAfreshAfterAKilledAttempt) {
  fs::create_directories(checkpoints_ / ".tmp-step-00000001-1/sub");
  put_file(checkpoints_ / ".tmp-step-00000001-1/state.json", "torn");
  expect_sample(Checkpoint(save_sample(checkpoints_, 1, 1)), 1);
}

TEST_F(CheckpointFolderTest, VerifiesBeforeItCommits) {
  save_sample(checkpoints_, 1);
  CheckpointWriter writer(checkpoints_, 2, 1);
  writer.add("a", "content");
  put_file(checkpoints_ / ".tmp-step-00000002-1/a", "c0ntent");  // a disk that lies
  expect_error(ExitCode::kCannotWrite, {"does not read back", "SHA-256"},
               [&] { writer.commit("{}"); });
  EXPECT_THAT(list_checkpoints(checkpoints_), ElementsAre(1));
}

TEST_F(CheckpointFolderTest, FencingStopsTheCommit) {
  save_sample(checkpoints_, 1);
  {
    CheckpointWriter writer(checkpoints_, 2, 1);
    writer.add("a", "x");
    expect_error(ExitCode::kInternal, {"replaced"}, [&] {
      writer.commit("{}", [] { throw Error(ExitCode::kInternal, "replaced"); });
    });
  }
  EXPECT_THAT(list_checkpoints(checkpoints_), ElementsAre(1));
  EXPECT_FALSE(has_entry_like(checkpoints_, "."));
  EXPECT_EQ(get_file(checkpoints_ / "LATEST"), "step-00000001\n");
}

TEST_F(CheckpointFolderTest, WantsAFolder) {
  put_file(checkpoints_, "a file");
  expect_error(ExitCode::kCannotWrite, {checkpoints_.string(), "cannot be written"},
               [&] { save_sample(checkpoints_, 1); });
}

TEST(CheckpointName, HasOneSpellingPerStep) {
  EXPECT_EQ(checkpoint_name(0), "step-00000000");
  EXPECT_EQ(checkpoint_name(123), "step-00000123");
  EXPECT_EQ(checkpoint_name(1'234'567'890), "step-1234567890");
  for (const std::int64_t step : {0, 1, 99'999'999, 100'000'000}) {
    EXPECT_EQ(checkpoint_step(checkpoint_name(step)), step);
  }
  EXPECT_EQ(checkpoint_step("step-0000000001"), std::nullopt);
}

}  // namespace
}  // namespace lorascale::io
