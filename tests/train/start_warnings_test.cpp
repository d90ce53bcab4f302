#include "train/start_warnings.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

namespace lorascale::train {
namespace {

TEST(StartWarnings, ATypeWithoutInstructionsIsSlow) {
  constexpr CpuFeatures kOld{.known = true, .bf16 = false, .fp16 = false};
  EXPECT_TRUE(is_slow_on(kOld, at::kBFloat16));
  EXPECT_TRUE(is_slow_on(kOld, at::kHalf));
  EXPECT_FALSE(is_slow_on(kOld, at::kFloat));
  constexpr CpuFeatures kNewer{.known = true, .bf16 = true, .fp16 = false};
  EXPECT_FALSE(is_slow_on(kNewer, at::kBFloat16));
  EXPECT_TRUE(is_slow_on(kNewer, at::kHalf));
  // Of a processor of another kind nothing is known, and nothing said.
  EXPECT_FALSE(is_slow_on({}, at::kBFloat16));
}

// Against what the kernel says of the processor.
TEST(StartWarnings, KnowsThisProcessor) {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(file, line) && flags.empty();) {
    if (line.starts_with("flags")) {
      std::istringstream words(line.substr(line.find(':') + 1));
      for (std::string word; words >> word;) {
        flags.insert(word);
      }
    }
  }
  if (flags.empty()) {
    GTEST_SKIP() << "not an x86 processor";
  }
  const auto features = features_of_this_cpu();
  EXPECT_TRUE(features.known);
  EXPECT_EQ(features.bf16, flags.contains("avx512_bf16") || flags.contains("amx_bf16"));
  EXPECT_EQ(features.fp16, flags.contains("avx512_fp16") || flags.contains("amx_fp16"));
}

}  // namespace
}  // namespace lorascale::train
