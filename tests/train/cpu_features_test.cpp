#include "train/cpu_features.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

namespace lorascale::train {
namespace {

const char* nothing_set(const char*) {
  return nullptr;
}

std::set<std::string> flags_of_the_kernel() {
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
  return flags;
}

TEST(CpuFeatures, ATypeWithoutInstructionsIsSlow) {
  const CpuFeatures old{.known = true, .bf16 = false, .fp16 = false, .kernels = "", .products = ""};
  EXPECT_TRUE(is_slow_on(old, at::kBFloat16));
  EXPECT_TRUE(is_slow_on(old, at::kHalf));
  EXPECT_FALSE(is_slow_on(old, at::kFloat));
  const CpuFeatures newer{
      .known = true, .bf16 = true, .fp16 = false, .kernels = "", .products = ""};
  EXPECT_FALSE(is_slow_on(newer, at::kBFloat16));
  EXPECT_TRUE(is_slow_on(newer, at::kHalf));
  // Of a processor of another kind nothing is known, and nothing said.
  EXPECT_FALSE(is_slow_on({}, at::kBFloat16));
}

TEST(CpuFeatures, KnowsThisProcessor) {
  const auto flags = flags_of_the_kernel();
  if (flags.empty()) {
    GTEST_SKIP() << "not an x86 processor";
  }
  const auto features = features_of_this_cpu(nothing_set);
  EXPECT_TRUE(features.known);
  EXPECT_EQ(features.bf16, flags.contains("avx512_bf16") || flags.contains("amx_bf16"));
  EXPECT_EQ(features.fp16, flags.contains("avx512_fp16") || flags.contains("amx_fp16"));
  EXPECT_TRUE(features.products.empty());
}

TEST(CpuFeatures, ALimitOfOneDnnWithholdsWhatTheProcessorHas) {
  std::map<std::string, const char*> set;
  const auto environment = [&](const char* name) {
    return set.contains(name) ? set[name] : nullptr;
  };
  const auto all = features_of_this_cpu(environment);
  for (const char* limit : {"AVX2", "avx2", "AVX512_CORE", "AVX512_CORE_VNNI"}) {
    set["ONEDNN_MAX_CPU_ISA"] = limit;
    const auto limited = features_of_this_cpu(environment);
    EXPECT_FALSE(limited.bf16) << limit;
    EXPECT_FALSE(limited.fp16) << limit;
    EXPECT_FALSE(limited.products.empty()) << limit;
  }
  for (const char* limit : {"DEFAULT", "ALL", "AVX10_1_512_AMX_FP16", "no such name"}) {
    set["ONEDNN_MAX_CPU_ISA"] = limit;
    const auto free = features_of_this_cpu(environment);
    EXPECT_EQ(free.bf16, all.bf16) << limit;
    EXPECT_EQ(free.fp16, all.fp16) << limit;
  }
  set = {{"DNNL_MAX_CPU_ISA", "AVX2"}};  // the name of older releases
  EXPECT_EQ(features_of_this_cpu(environment).products, "AVX2");
  set["ONEDNN_MAX_CPU_ISA"] = "DEFAULT";  // the newer one wins
  EXPECT_EQ(features_of_this_cpu(environment).products, "");
}

TEST(CpuFeatures, IsSaidInWords) {
  CpuFeatures features{
      .known = true, .bf16 = true, .fp16 = false, .kernels = "AVX512", .products = ""};
  EXPECT_EQ(describe(features), "AVX512 instructions, bf16 products in hardware");
  features.fp16 = true;
  EXPECT_EQ(describe(features), "AVX512 instructions, bf16 and fp16 products in hardware");
  features = {.known = true, .bf16 = false, .fp16 = false, .kernels = "AVX2", .products = "AVX2"};
  EXPECT_EQ(describe(features),
            "AVX2 instructions, oneDNN limited to AVX2, no bf16 products in hardware");
  features = {.known = false, .bf16 = false, .fp16 = false, .kernels = "DEFAULT", .products = ""};
  EXPECT_EQ(describe(features), "DEFAULT instructions");
}

}  // namespace
}  // namespace lorascale::train
