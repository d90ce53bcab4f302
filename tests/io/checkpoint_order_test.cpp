// The order of system calls that a commit's promise rests on: after a power cut a name stands for
// bytes that are on the disk. A kernel that is killed would show it; its calls show it sooner.
#include <map>
#include <set>

#include "checkpoint_support.hpp"
#include "fault_injection.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/durable_file.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

class CheckpointOrderTest : public testing::Test {
 protected:
  // The calls of `action`, with paths relative to the test's folder.
  std::vector<FileCall> calls_of(const std::function<void()>& action) {
    const auto recording = record_file_calls([&] {
      action();
      return 0;
    });
    if (!recording.traced) {
      return {};
    }
    EXPECT_EQ(recording.exit_code, 0);
    auto calls = recording.calls;
    for (auto& call : calls) {
      call.path = relative(call.path);
      call.target = relative(call.target);
    }
    return calls;
  }

  // The only one such call; its place.
  static std::size_t place(const std::vector<FileCall>& calls, const std::string& name,
                           const std::string& path) {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (calls[i].name == name && calls[i].path == path) {
        found.push_back(i);
      }
    }
    EXPECT_EQ(found.size(), 1U) << name << " of " << path;
    return found.empty() ? calls.size() : found.front();
  }

  static std::size_t last_write(const std::vector<FileCall>& calls, const std::string& path) {
    std::size_t last = 0;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (calls[i].name == "write" && calls[i].path == path) {
        last = i;
      }
    }
    return last;
  }

  // A save: files, manifest, their folder, the name, the folder that holds the name.
  void expect_protocol(const std::vector<FileCall>& calls, const std::string& temporary,
                       const std::string& target) {
    const auto manifest = place(calls, "fsync", temporary + "/" + std::string(kManifestName));
    std::set<std::string> synced;
    for (const auto& [name, content] : sample_files()) {
      const auto path = temporary + "/" + name;
      const auto sync = place(calls, "fsync", path);
      EXPECT_LT(last_write(calls, path), sync) << name;
      EXPECT_LT(sync, manifest) << name;
    }
    EXPECT_LT(last_write(calls, temporary + "/" + std::string(kManifestName)), manifest);
    const auto folder = place(calls, "fsync", temporary);
    const auto renamed = place(calls, "rename", temporary);
    EXPECT_LT(manifest, folder);
    EXPECT_LT(folder, renamed);
    EXPECT_EQ(calls[renamed].target, target);
    // The first sync of the folder above behind the name; the hint LATEST has one of its own later.
    std::size_t parent = renamed;
    while (parent < calls.size() && !(calls[parent].name == "fsync" && calls[parent].path == ".")) {
      EXPECT_NE(calls[parent].name, "write") << calls[parent].path;
      ++parent;
    }
    EXPECT_LT(parent, calls.size()) << "the folder of the name was not synced";
    for (std::size_t i = manifest; i < calls.size(); ++i) {
      EXPECT_FALSE(calls[i].name == "write" && calls[i].path.starts_with(temporary));
    }
  }

  std::string relative(const std::string& path) const {
    return path.empty() ? path : fs::path(path).lexically_relative(root_).string();
  }

  const TempFolder folder_;
  const fs::path root_ = fs::canonical(folder_.path());
};

TEST_F(CheckpointOrderTest, ANewCheckpoint) {
  const auto calls = calls_of([&] { save_sample(root_, 2); });
  if (calls.empty()) {
    GTEST_SKIP() << "this system does not allow ptrace";
  }
  expect_protocol(calls, ".tmp-step-00000002-1", "step-00000002");
}

TEST_F(CheckpointOrderTest, AReplacedCheckpoint) {
  save_sample(root_, 2);
  const auto calls = calls_of([&] {
    CheckpointWriter writer(root_, 2, 2);
    for (const auto& [name, content] : sample_files()) {
      writer.add(name, content);
    }
    writer.commit("{\"samples\": 128}", {}, Existing::kReplaced);
  });
  if (calls.empty()) {
    GTEST_SKIP() << "this system does not allow ptrace";
  }
  // The plain rename is refused, and both names are exchanged.
  auto exchanged = calls;
  const auto first = std::find_if(exchanged.begin(), exchanged.end(),
                                  [](const auto& call) { return call.name == "rename"; });
  ASSERT_NE(first, exchanged.end());
  exchanged.erase(first);
  expect_protocol(exchanged, ".tmp-step-00000002-2", "step-00000002");
}

TEST_F(CheckpointOrderTest, AFileReplacedAtOnce) {
  const auto calls =
      calls_of([&] { write_file_atomically(root_ / "status.json", std::string_view("{}")); });
  if (calls.empty()) {
    GTEST_SKIP() << "this system does not allow ptrace";
  }
  std::vector<std::string> names;
  for (const auto& call : calls) {
    names.push_back(call.name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"write", "fsync", "rename", "fsync"}));
  EXPECT_EQ(calls[1].path, calls[0].path);
  EXPECT_EQ(calls[2].path, calls[0].path);
  EXPECT_EQ(calls[2].target, "status.json");
  EXPECT_EQ(calls[3].path, ".");
}

}  // namespace
}  // namespace lorascale::io
