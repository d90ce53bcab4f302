#include "io/value_store.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> bytes(const std::string& text) {
  const auto all = std::as_bytes(std::span(text));
  return {all.begin(), all.end()};
}

class ValueStoreTest : public testing::Test {
 protected:
  void SetUp() override { fs::remove_all(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  [[nodiscard]] std::vector<fs::path> parts() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      files.push_back(entry.path());
    }
    return files;
  }
  // Changes the last byte of the only value of the only part, which stands where it is found.
  void damage(const std::string& value) const {
    std::ifstream in(parts().at(0), std::ios::binary);
    std::string all((std::istreambuf_iterator<char>(in)), {});
    const auto place = all.find(value);
    ASSERT_NE(place, std::string::npos);
    all[place] = static_cast<char>(all[place] ^ 1);
    std::ofstream(parts().at(0), std::ios::binary) << all;
  }

  fs::path folder_ = fs::path(testing::TempDir()) / "value-store";
};

TEST_F(ValueStoreTest, KeepsValuesFromRunToRun) {
  {
    ValueStore store(folder_, "source");
    EXPECT_FALSE(store.has("a"));
    store.add("a", bytes("first value"));
    store.add("b", bytes(""));
    EXPECT_TRUE(store.has("a"));  // also before it is on disk
    EXPECT_EQ(store.read("a"), bytes("first value"));
    EXPECT_TRUE(parts().empty());
    store.write();
    EXPECT_EQ(parts().size(), 1U);
    store.write();  // nothing waits
    EXPECT_EQ(parts().size(), 1U);
  }
  ValueStore again(folder_, "source");
  EXPECT_EQ(again.read("a"), bytes("first value"));
  EXPECT_EQ(again.read("b"), bytes(""));
  EXPECT_EQ(again.read("c"), std::nullopt);
}

TEST_F(ValueStoreTest, LosesWhatWasNotWritten) {
  { ValueStore(folder_, "source").add("a", bytes("value")); }
  EXPECT_FALSE(ValueStore(folder_, "source").has("a"));
}

TEST_F(ValueStoreTest, SeesItsOwnSourceAlone) {
  ValueStore store(folder_, "source");
  store.add("a", bytes("value"));
  store.write();
  EXPECT_FALSE(ValueStore(folder_, "another").has("a"));
}

TEST_F(ValueStoreTest, WritesTheSameValuesUnderTheSameName) {
  ValueStore one(folder_, "source"), other(folder_, "source");
  for (auto* store : {&one, &other}) {
    store->add("a", bytes("value"));
    store->write();
  }
  EXPECT_EQ(parts().size(), 1U);
}

TEST_F(ValueStoreTest, FindsWhatOthersWrote) {
  ValueStore one(folder_, "source"), other(folder_, "source");
  one.add("a", bytes("value"));
  one.write();
  EXPECT_FALSE(other.has("a"));
  other.add("b", bytes("another"));
  other.write();  // looks, too
  EXPECT_EQ(other.read("a"), bytes("value"));
}

TEST_F(ValueStoreTest, WritesLargeOnesAsTheyCome) {
  ValueStore store(folder_, "source");
  const std::vector<std::byte> large(std::size_t{20} << 20);
  store.add("a", large);
  EXPECT_TRUE(parts().empty());
  store.add("b", large);
  EXPECT_EQ(parts().size(), 1U);
}

TEST_F(ValueStoreTest, ForgetsADamagedValue) {
  ValueStore store(folder_, "source");
  store.add("a", bytes("a value to be damaged"));
  store.write();
  damage("a value to be damaged");
  ValueStore again(folder_, "source");
  EXPECT_TRUE(again.has("a"));
  EXPECT_EQ(again.read("a"), std::nullopt);
  EXPECT_FALSE(again.has("a"));
  again.add("a", bytes("made again"));
  again.write();
  EXPECT_EQ(again.read("a"), bytes("made again"));
  EXPECT_EQ(ValueStore(folder_, "source").read("a"), bytes("made again"));
}

TEST_F(ValueStoreTest, PassesOverWhatIsNoPart) {
  ValueStore(folder_, "source").refresh();
  std::ofstream(folder_ / "part-half.h5") << "half a file";
  std::ofstream(folder_ / "notes.txt") << "of somebody else";
  ValueStore store(folder_, "source");
  EXPECT_FALSE(store.has("a"));
  EXPECT_EQ(parts().size(), 2U);  // nothing of it is removed
}

TEST_F(ValueStoreTest, SaysWhereItCannotWrite) {
  std::ofstream(folder_) << "a file";
  try {
    const ValueStore store(folder_ / "inner", "source");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kCannotWrite);
  }
}

}  // namespace
}  // namespace lorascale::io
