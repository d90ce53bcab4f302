#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "config/validate.hpp"
#include "support.hpp"

namespace lorascale::config {
namespace {

std::vector<std::filesystem::path> presets() {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(LORASCALE_SOURCE_DIR "/configs")) {
    if (entry.path().extension() == ".yaml") {
      found.push_back(entry.path());
    }
  }
  return found;
}

TEST(ConfigPresets, AreReadValidatedAndFreeOfWarnings) {
  ASSERT_GE(presets().size(), 4U);
  for (const auto& path : presets()) {
    SCOPED_TRACE(path.filename().string());
    const ReadResult result = read_config_file(path);
    const auto warnings = validate(result.config);
    EXPECT_TRUE(warnings.empty()) << warnings.front();
    EXPECT_EQ(read(write_resolved(result.config)), result.config);
    const bool aliases = path.filename().string().ends_with("lora-scripts-style.yaml");
    EXPECT_EQ(result.translations.empty(), !aliases);
  }
}

TEST(ConfigPresets, ExplainThemselvesOnTop) {
  for (const auto& path : presets()) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    EXPECT_TRUE(line.starts_with("# ")) << path;
  }
}

}  // namespace
}  // namespace lorascale::config
