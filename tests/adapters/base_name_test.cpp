#include "adapters/base_name.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;

TEST(ModelName, IsTheLastComponent) {
  for (const char* path :
       {"meta-llama/Meta-Llama-3-8B", "/models/meta-llama-3-8b/", "./Meta-Llama-3-8B",
        "models/x/../Meta-Llama-3-8B/.",
        "/cache/models--meta-llama--Meta-Llama-3-8B/snapshots/62bd457b6fe961a42a631306577e622c83876"
        "cb6"}) {
    EXPECT_EQ(model_name(path), "meta-llama-3-8b") << path;
  }
  EXPECT_EQ(model_name("."), model_name(fs::current_path()));
}

TEST(BaseModelOf, IsAbsoluteOrAnIdOfAHubsCache) {
  const fs::path folder =
      fs::path(testing::TempDir()) / ("base_model_" + std::to_string(::getpid()));
  const fs::path owned = folder / "hub/models--Qwen--Qwen2.5-0.5B/snapshots/060db6499f32faf8";
  const fs::path without_owner = folder / "hub/models--gpt2/snapshots/main";
  for (const auto& path : {folder / "models/base", owned, without_owner}) {
    fs::create_directories(path);
  }
  std::ofstream(folder / "models/base/model.safetensors") << "x";
  std::ofstream(owned / "model.safetensors") << "x";
  fs::create_directory_symlink(owned, folder / "link");
  const std::string plain = (folder / "models/base").string();
  for (const fs::path& path :
       {folder / "models/base", folder / "models/base/", folder / "models/x/../base",
        folder / "models/base/model.safetensors"}) {
    EXPECT_EQ(base_model_of(path).name, plain) << path;
    EXPECT_EQ(base_model_of(path).revision, "") << path;
  }
  const auto before = fs::current_path();
  fs::current_path(folder);
  EXPECT_EQ(base_model_of("models/base").name, (fs::current_path() / "models/base").string());
  fs::current_path(folder / "models/base");
  EXPECT_EQ(base_model_of("model.safetensors").name, fs::current_path().string());
  fs::current_path(before);
  for (const fs::path& path : {owned, owned / "", owned / "model.safetensors", folder / "link"}) {
    EXPECT_EQ(base_model_of(path).name, "Qwen/Qwen2.5-0.5B") << path;
    EXPECT_EQ(base_model_of(path).revision, "060db6499f32faf8") << path;
  }
  EXPECT_EQ(base_model_of(without_owner).name, "gpt2");
  fs::remove_all(folder);
}

std::optional<std::string> warning(const std::string& named, const fs::path& base) {
  PeftAdapter adapter;
  adapter.base_model = named;
  return warning_of_other_base(adapter, base);
}

TEST(WarningOfOtherBase, IsGivenForAnotherNameAlone) {
  EXPECT_FALSE(warning("", "models/b"));  // the file does not say
  EXPECT_FALSE(warning("models/b", "models/b"));
  EXPECT_FALSE(warning("owner/B", "elsewhere/b/"));
  EXPECT_FALSE(warning("owner/B", "/cache/models--owner--B/snapshots/main"));
  const auto line = warning("owner/a", "models/b");
  ASSERT_TRUE(line);
  EXPECT_NE(line->find("\"owner/a\", not for \"models/b\""), std::string::npos) << *line;
  // What comes out of a file stays on one line.
  EXPECT_EQ(warning("a\nb", "models/b")->find('\n'), std::string::npos);
}

TEST(WarningOfOtherBase, SeesThroughLinks) {
  const fs::path folder =
      fs::path(testing::TempDir()) / ("base_name_" + std::to_string(::getpid()));
  fs::create_directories(folder / "Llama-3");
  fs::create_directory_symlink("Llama-3", folder / "current");
  EXPECT_FALSE(warning("owner/llama-3", folder / "current"));
  EXPECT_FALSE(warning((folder / "current").string(), folder / "Llama-3"));
  EXPECT_TRUE(warning("owner/llama-2", folder / "current"));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace lorascale::adapters
