// The whole contract of libtorch's allocators, which every library below it may use.
#include "train/tensor_memory.hpp"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <cstring>
#include <new>

namespace lorascale::train {
namespace {

class TensorMemoryTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { count_cpu_tensors(); }
  void TearDown() override {
    limit_cpu_tensors(0);
    EXPECT_EQ(now(), before_);
  }
  static std::int64_t now() { return tensor_memory(at::kCPU).now; }

  c10::Allocator& allocator_ = *c10::GetCPUAllocator();
  const std::int64_t before_ = now();
};

TEST_F(TensorMemoryTest, TheContextIsTheDataAndTheDeleterIsTheRawOne) {
  const auto data = allocator_.allocate(1000);
  EXPECT_EQ(data.get(), data.get_context());
  EXPECT_EQ(data.get_deleter(), allocator_.raw_deleter());
  EXPECT_NE(allocator_.raw_deleter(), nullptr);
  EXPECT_TRUE(allocator_.is_simple_data_ptr(data));
  EXPECT_TRUE(data.device().is_cpu());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data.get()) % 64, 0U);
  EXPECT_EQ(now() - before_, 1000);
}

TEST_F(TensorMemoryTest, RawMemoryIsCountedAndGivenBack) {
  void* raw = allocator_.raw_allocate(1 << 20);
  ASSERT_NE(raw, nullptr);
  std::memset(raw, 7, 1 << 20);
  EXPECT_EQ(now() - before_, 1 << 20);
  allocator_.raw_deallocate(raw);
}

TEST_F(TensorMemoryTest, ACloneHoldsTheSameBytes) {
  const auto data = allocator_.allocate(300);
  std::memset(data.get(), 42, 300);
  const auto copy = allocator_.clone(data.get(), 300);
  EXPECT_NE(copy.get(), data.get());
  EXPECT_EQ(std::memcmp(copy.get(), data.get(), 300), 0);
  EXPECT_EQ(now() - before_, 600);
}

TEST_F(TensorMemoryTest, ZeroBytesAreNoMemory) {
  const auto data = allocator_.allocate(0);
  EXPECT_EQ(now(), before_);
  allocator_.raw_deallocate(allocator_.raw_allocate(0));
  EXPECT_EQ(at::empty({0, 5}).numel(), 0);
}

TEST_F(TensorMemoryTest, TheLimitIsOfTensorsAndRawMemoryAlike) {
  limit_cpu_tensors(before_ + 4096);
  EXPECT_EQ(memory_budget(at::kCPU), static_cast<double>(before_ + 4096));
  const auto held = at::empty({512});
  EXPECT_THROW(at::empty({1024}), std::bad_alloc);
  EXPECT_THROW(allocator_.raw_allocate(2049), std::bad_alloc);
  allocator_.raw_deallocate(allocator_.raw_allocate(2048));
}

TEST_F(TensorMemoryTest, AClaimCountsWhileItLives) {
  limit_cpu_tensors(before_ + 4096);
  {
    CpuMemoryClaim claim(3000);
    CpuMemoryClaim moved;
    moved = std::move(claim);
    EXPECT_EQ(now() - before_, 3000);
    EXPECT_THROW(CpuMemoryClaim(1097), std::bad_alloc);
    EXPECT_THROW(at::empty({1097}, at::kByte), std::bad_alloc);
  }
  EXPECT_EQ(now(), before_);
}

// Tensors on the CPU of a run on a GPU are staging: a budget is not meant for them.
TEST_F(TensorMemoryTest, TheBudgetLimitsOnlyWhereTensorsLive) {
  limit_tensors(at::kCPU, before_ + 4096);
  EXPECT_THROW(at::empty({2048}), std::bad_alloc);
  limit_tensors(at::Device(at::kCUDA, 0), before_ + 4096);
  EXPECT_NO_THROW(at::empty({2048}));
  EXPECT_EQ(memory_budget(at::kCPU), 0);
}

TEST_F(TensorMemoryTest, StoragesResizeAndMove) {
  auto tensor = at::zeros({100});
  tensor.resize_({100000});
  EXPECT_EQ(now() - before_, 400000);
  const auto moved = std::move(tensor);
  EXPECT_EQ(now() - before_, 400000);
}

// The products that exit 70 came from: oneDNN asks for raw memory where the CPU has bf16.
TEST_F(TensorMemoryTest, Bf16ProductsOfAllShapesRun) {
  for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat}) {
    const auto x = at::ones({33, 64}, type);
    const auto w = at::ones({96, 64}, type);
    EXPECT_EQ(at::linear(x, w).to(at::kFloat).sum().item<float>(), 33 * 96 * 64) << type;
    EXPECT_EQ(at::matmul(x.t(), at::ones({33, 5}, type)).to(at::kFloat).sum().item<float>(),
              33 * 64 * 5)
        << type;
  }
}

}  // namespace
}  // namespace lorascale::train
