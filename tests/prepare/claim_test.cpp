#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "prepare/preparer.hpp"
#include "prepare/source_files.hpp"
#include "support.hpp"

namespace lorascale::prepare {
namespace {

namespace fs = std::filesystem;

bool go_on() {
  return true;
}

std::string refusal(const std::vector<fs::path>& paths) {
  try {
    static_cast<void>(claim("data.train", paths, go_on));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    return error.what();
  }
  return "";
}

class SourceFiles : public InFolder {};

TEST_F(SourceFiles, TokenFilesAreKnownByContentsOrName) {
  EXPECT_TRUE(is_data_file(write("a.bin", "\x89HDF\r\n\x1a\nrest")));
  EXPECT_TRUE(is_data_file(write("b.h5", "damaged")));
  EXPECT_TRUE(is_data_file(write("c.HDF5", "")));
  EXPECT_TRUE(is_data_file(folder_ / "not-there.jsonl"));  // opening it says so
  EXPECT_FALSE(is_data_file(write("d.txt", "text")));
  EXPECT_FALSE(is_data_file(write("e", "")));
  EXPECT_FALSE(is_data_file(folder_));
}

TEST_F(SourceFiles, EndingsAreThoseBelowGz) {
  EXPECT_EQ(kind_of_name("x/A.JSONL"), ".jsonl");
  EXPECT_EQ(kind_of_name("a.csv.gz"), ".csv");
  EXPECT_EQ(kind_of_name("a.gz"), "");
  EXPECT_EQ(kind_of_name("README"), "");
}

TEST_F(SourceFiles, AFolderIsGivenAsAWholeAndReadInTheOrderOfItsNames) {
  write("b.txt", "2");
  write("a/z.jsonl", "1");
  write(".hidden.txt", "no");
  write(".git/x.txt", "no");
  write("picture.png", "\x89PNG");
  const auto found = claim("data.train", std::vector{folder_}, go_on);
  EXPECT_EQ(found.inputs.files,
            (std::vector{folder_ / "a/z.jsonl", folder_ / "b.txt", folder_ / "picture.png"}));
  EXPECT_EQ(found.inputs.arguments, std::vector{folder_});
  EXPECT_EQ(found.preparer->name, "text");
}

TEST_F(SourceFiles, SeveralPathsBecomeOneSet) {
  const auto first = write("z.txt", "1");
  const auto second = write("a.jsonl", "{}");
  EXPECT_EQ(claim("data.train", std::vector{first, second}, go_on).inputs.files,
            (std::vector{first, second}));
}

TEST_F(SourceFiles, AListingStops) {
  write("a.txt", "1");
  EXPECT_THROW(static_cast<void>(claim("data.train", std::vector{folder_}, [] { return false; })),
               Error);
}

TEST_F(SourceFiles, PicturesAndEmptyFoldersAreRefused) {
  fs::create_directories(folder_ / "empty");
  write("pictures/a.jpg", "\xFF\xD8\xFF\xE0");
  for (const auto& path : {folder_ / "empty", folder_ / "pictures", folder_ / "pictures/a.jpg"}) {
    const auto message = refusal({path});
    EXPECT_NE(message.find("data.train " + path.string() + " holds nothing to train on"),
              std::string::npos);
    EXPECT_NE(message.find("JSON Lines"), std::string::npos);
  }
}

TEST_F(SourceFiles, DigestsAreOfTheContentsAndStop) {
  const auto path = write("a.txt", std::string(9 << 20, 'x'));
  int blocks = 0;
  EXPECT_EQ(digest_of_file(path,
                           [&] {
                             ++blocks;
                             return true;
                           }),
            sha256_hex(std::string(9 << 20, 'x')));
  EXPECT_EQ(blocks, 3);
  try {
    digest_of_file(path, [] { return false; });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kStopped);
  }
}

}  // namespace
}  // namespace lorascale::prepare
