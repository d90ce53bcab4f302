#include "adapters/base_name.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

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

std::optional<std::string> warning(const std::string& named, const fs::path& base) {
  PeftAdapter adapter;
  adapter.base_model = named;
  return warning_of_other_base(adapter, base);
}

TEST(WarningOfOtherBase, IsGivenForAnotherNameAlone) {
  EXPECT_FALSE(warning("", "models/b"));  // the file does not say
  EXPECT_FALSE(warning("models/b", "models/b"));
  EXPECT_FALSE(warning("owner/B", "elsewhere/b/"));
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
