#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/error.hpp"
#include "prepare/prepared_cache.hpp"
#include "support.hpp"

namespace lorascale::prepare {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool always() {
  return true;
}

class Cache : public InFolder {
 protected:
  [[nodiscard]] PreparedCache cache(const std::string& identity = "a") const {
    return {folder_ / "prepared", "my set", {{"of", identity}}};
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder_ / "prepared")) {
      found.push_back(entry.path().filename().string());
    }
    return found;
  }
};

Json fill(const fs::path& folder) {
  std::ofstream(folder / "train.h5") << "data";
  return {{"report", {"done"}}};
}

TEST_F(Cache, MakesOnceWhatDependsOnTheSame) {
  int made = 0;
  const auto count = [&](const fs::path& folder) {
    ++made;
    return fill(folder);
  };
  EXPECT_TRUE(cache().find().is_null());
  EXPECT_EQ(cache().make(count, always)["report"][0], "done");
  EXPECT_EQ(cache().make(count, always)["report"][0], "done");
  EXPECT_EQ(made, 1);
  EXPECT_EQ(cache().find()["identity"]["of"], "a");
  EXPECT_TRUE(fs::exists(cache().folder() / "train.h5"));
  EXPECT_TRUE(cache().folder().filename().string().starts_with("my_set-"));
  cache("b").make(count, always);
  EXPECT_EQ(made, 2);
  EXPECT_EQ(names().size(), 2U);  // nothing hidden is left
}

TEST_F(Cache, AFailureLeavesNothingThatCountsAsWhole) {
  EXPECT_THROW(cache().make(
                   [](const fs::path& folder) -> Json {
                     fill(folder);
                     throw_bad_input("no");
                   },
                   always),
               Error);
  EXPECT_TRUE(cache().find().is_null());
  for (const auto& name : names()) {
    EXPECT_EQ(name.find(".part-"), std::string::npos) << name;
  }
  EXPECT_FALSE(cache().make(fill, always).is_null());
}

TEST_F(Cache, WhatAKilledProcessLeftIsRemoved) {
  const std::string part = "." + cache().folder().filename().string() + ".part-elsewhere-1";
  write("prepared/" + part + "/train.h5", "half");
  cache().make(fill, always);
  EXPECT_EQ(names(), std::vector{cache().folder().filename().string()});
}

TEST_F(Cache, RunsAtOnceWaitForTheFirst) {
  std::atomic<int> made = 0;
  std::vector<std::thread> runs;
  for (int i = 0; i < 4; ++i) {
    runs.emplace_back([&] {
      const auto record = cache().make(
          [&](const fs::path& folder) {
            ++made;
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
            return fill(folder);
          },
          always);
      EXPECT_EQ(record["report"][0], "done");
    });
  }
  for (auto& run : runs) {
    run.join();
  }
  EXPECT_EQ(made, 1);
}

TEST_F(Cache, WhoWaitsCanBeStopped) {
  std::atomic<bool> working = false, done = false;
  std::thread first([&] {
    cache().make(
        [&](const fs::path& folder) {
          working = true;
          while (!done) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
          }
          return fill(folder);
        },
        always);
  });
  while (!working) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  try {
    cache().make(fill, [] { return false; });
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kStopped);
  }
  done = true;
  first.join();
}

TEST_F(Cache, TheFirstToFinishWinsWhereThereAreNoLocks) {
  const auto record = cache().make(
      [&](const fs::path& folder) {
        // What another process, on a machine that this one's lock does not reach, does meanwhile.
        const auto other = cache().folder();
        fs::create_directories(other);
        std::ofstream(other / "train.h5") << "theirs";
        std::ofstream(other / "prepared.json")
            << Json({{"report", {"theirs"}}, {"identity", {{"of", "a"}}}});
        return fill(folder);
      },
      always);
  EXPECT_EQ(record["report"][0], "theirs");
  EXPECT_EQ(names(), std::vector{cache().folder().filename().string()});
}

TEST_F(Cache, AFolderThatIsNotWhatItsNameSaysIsRefused) {
  cache().make(fill, always);
  std::ofstream(cache().folder() / "prepared.json") << R"({"identity": {"of": "another"}})";
  EXPECT_THROW(static_cast<void>(cache().find()), Error);
  std::ofstream(cache().folder() / "prepared.json") << "{";
  EXPECT_THROW(static_cast<void>(cache().find()), Error);
}

}  // namespace
}  // namespace lorascale::prepare
