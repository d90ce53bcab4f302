// What libraries are told: flags of libtorch, and variables that CUDA's libraries read. Every test
// is a process of its own.
#include "train/library_settings.hpp"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "train/tensor_memory.hpp"

namespace lorascale::train {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

class LibrarySettingsTest : public testing::Test {
 protected:
  LibrarySettingsTest() {
    for (const char* name : {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
                             "CUBLAS_WORKSPACE_CONFIG", "LORASCALE_SHARE_GPUS"}) {
      unsetenv(name);
    }
  }
};

TEST_F(LibrarySettingsTest, SumsOf16BitProductsStayInFp32) {
  set_up_libraries(/*exact=*/false);
  const auto& context = at::globalContext();
  EXPECT_NE(context.allowBF16ReductionCuBLAS(),
            at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK);
  EXPECT_NE(context.allowFP16ReductionCuBLAS(),
            at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK);
  EXPECT_FALSE(context.allowFP16AccumulationCuBLAS());
  EXPECT_FALSE(context.allowFP16BF16ReductionMathSDP());
  EXPECT_FALSE(context.allowTF32CuBLAS());
  EXPECT_FALSE(context.deterministicAlgorithms());
  EXPECT_EQ(variable("CUBLAS_WORKSPACE_CONFIG"), "");
}

TEST_F(LibrarySettingsTest, ExactTakesOnlyWhatRepeats) {
  set_up_libraries(/*exact=*/true);
  const auto& context = at::globalContext();
  EXPECT_TRUE(context.deterministicAlgorithms());
  EXPECT_FALSE(context.deterministicAlgorithmsWarnOnly())
      << "flash attention would keep its atomic backward";
  EXPECT_FALSE(context.deterministicFillUninitializedMemory());
  EXPECT_TRUE(context.deterministicCuDNN());
  EXPECT_FALSE(context.userEnabledCuDNNSDP());
  EXPECT_TRUE(context.userEnabledFlashSDP());
  EXPECT_EQ(variable("CUBLAS_WORKSPACE_CONFIG"), ":4096:8");
}

TEST_F(LibrarySettingsTest, AWorkspaceThatRepeatsIsTheUsersChoice) {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8", 1);
  set_up_libraries(/*exact=*/true);
  EXPECT_EQ(variable("CUBLAS_WORKSPACE_CONFIG"), ":16:8");
  setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0", 1);
  set_up_libraries(/*exact=*/true);
  EXPECT_EQ(variable("CUBLAS_WORKSPACE_CONFIG"), ":4096:8");
}

TEST_F(LibrarySettingsTest, TheAllocatorLeavesAReserve) {
  set_up_libraries(/*exact=*/false);
  EXPECT_EQ(variable("PYTORCH_ALLOC_CONF"), "per_process_memory_fraction:0.95");
  set_up_libraries(/*exact=*/false);  // again changes nothing
  EXPECT_EQ(variable("PYTORCH_ALLOC_CONF"), "per_process_memory_fraction:0.95");
}

TEST_F(LibrarySettingsTest, WhatTheUserSetForTheAllocatorStays) {
  setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True", 1);
  set_up_libraries(/*exact=*/false);
  EXPECT_EQ(variable("PYTORCH_ALLOC_CONF"),
            "expandable_segments:True,per_process_memory_fraction:0.95");
  setenv("PYTORCH_ALLOC_CONF", "per_process_memory_fraction:0.5", 1);
  set_up_libraries(/*exact=*/false);
  EXPECT_EQ(variable("PYTORCH_ALLOC_CONF"), "per_process_memory_fraction:0.5");
}

TEST_F(LibrarySettingsTest, RanksThatShareACardDivideItThemselves) {
  setenv("LORASCALE_SHARE_GPUS", "1", 1);
  set_up_libraries(/*exact=*/false);
  EXPECT_EQ(variable("PYTORCH_ALLOC_CONF"), "");
}

}  // namespace
}  // namespace lorascale::train
