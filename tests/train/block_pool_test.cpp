// The pool's promises: counts, limit, alignment, reuse, and no more memory than the peak of what
// lived.
#include "train/block_pool.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <new>
#include <random>
#include <thread>
#include <vector>

namespace lorascale::train {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(BlockPoolTest, BlocksAreAlignedAndCounted) {
  BlockPool pool;
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{65}, 3 * kMiB + 1}) {
    void* block = pool.allocate(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % BlockPool::kAlignment, 0U) << bytes;
    std::memset(block, 1, bytes);
    EXPECT_EQ(pool.now(), static_cast<std::int64_t>(bytes));
    pool.free(block);
    EXPECT_EQ(pool.now(), 0);
  }
  EXPECT_EQ(pool.peak(), static_cast<std::int64_t>(3 * kMiB + 1));
  pool.reset_peak();
  EXPECT_EQ(pool.peak(), 0);
}

TEST(BlockPoolTest, NothingIsAskedForNothing) {
  BlockPool pool;
  EXPECT_EQ(pool.allocate(0), nullptr);
  pool.free(nullptr);
  EXPECT_EQ(pool.now(), 0);
}

TEST(BlockPoolTest, AskingForMoreThanAddressesIsRefused) {
  BlockPool pool;
  EXPECT_THROW(pool.allocate(SIZE_MAX), std::bad_alloc);
  EXPECT_THROW(pool.allocate(SIZE_MAX - 64), std::bad_alloc);
  EXPECT_THROW(pool.allocate(SIZE_MAX / 2), std::bad_alloc);
  EXPECT_EQ(pool.now(), 0);
}

TEST(BlockPoolTest, AFreedBlockServesWhatIsNearlyAsLarge) {
  BlockPool pool;
  void* first = pool.allocate(8 * kMiB);
  pool.free(first);
  EXPECT_EQ(pool.kept(), static_cast<std::int64_t>(8 * kMiB));
  void* nearly = pool.allocate(7 * kMiB);  // 7/8: the last that fits
  EXPECT_EQ(nearly, first);
  EXPECT_EQ(pool.now(), static_cast<std::int64_t>(7 * kMiB));  // what was asked for, not the block
  EXPECT_EQ(pool.kept(), 0);
  pool.free(nearly);
  void* smaller = pool.allocate(7 * kMiB - 1);
  EXPECT_NE(smaller, first);
  pool.free(smaller);
}

TEST(BlockPoolTest, TheSmallestFittingBlockIsTaken) {
  BlockPool pool;
  void* large = pool.allocate(8 * kMiB);
  void* small = pool.allocate(7 * kMiB + 1000);
  pool.free(large);
  pool.free(small);
  EXPECT_EQ(pool.allocate(7 * kMiB), small);
  EXPECT_EQ(pool.allocate(7 * kMiB), large);
  pool.free(large);
  pool.free(small);
}

TEST(BlockPoolTest, SmallBlocksAreNotKept) {
  BlockPool pool;
  pool.free(pool.allocate(BlockPool::kSmallestKept - BlockPool::kAlignment));
  EXPECT_EQ(pool.kept(), 0);
  pool.free(pool.allocate(BlockPool::kSmallestKept));
  EXPECT_EQ(pool.kept(), static_cast<std::int64_t>(BlockPool::kSmallestKept));
}

TEST(BlockPoolTest, TheLimitHoldsForWhatLivesAndIsKept) {
  BlockPool pool;
  pool.limit(10 * kMiB);
  void* first = pool.allocate(6 * kMiB);
  EXPECT_THROW(pool.allocate(4 * kMiB + 1), std::bad_alloc);
  EXPECT_EQ(pool.now(), static_cast<std::int64_t>(6 * kMiB));
  pool.free(first);
  void* second = pool.allocate(10 * kMiB);  // the kept 6 MiB go, or 16 would be held
  EXPECT_EQ(pool.kept(), 0);
  pool.free(second);
  pool.limit(5 * kMiB);
  EXPECT_EQ(pool.kept(), 0);
  EXPECT_EQ(pool.limit(), static_cast<std::int64_t>(5 * kMiB));
}

TEST(BlockPoolTest, KeepingTakesNoMoreThanThePeakOfWhatLived) {
  BlockPool pool;
  std::mt19937 random(1);
  std::vector<void*> live;
  std::int64_t most = 0;
  for (int i = 0; i < 5000; ++i) {
    if (!live.empty() && (random() % 2 != 0U || live.size() > 20)) {
      std::swap(live[random() % live.size()], live.back());
      pool.free(live.back());
      live.pop_back();
    } else {
      // Multiples of the alignment within a factor of 16, so that many are reused and many are not.
      live.push_back(pool.allocate(BlockPool::kSmallestKept + 64 * (random() % 16384)));
    }
    most = std::max(most, pool.now());
    // A living block may be an eighth larger than what was asked for it; nothing else is beyond the
    // peak.
    ASSERT_LE(pool.now() + pool.kept(), most + most / 7) << i;
  }
  EXPECT_EQ(pool.peak(), most);
  for (void* block : live) {
    pool.free(block);
  }
  EXPECT_EQ(pool.now(), 0);
  EXPECT_GT(pool.kept(), 0);
  pool.release();
  EXPECT_EQ(pool.kept(), 0);
}

TEST(BlockPoolTest, AfterAReleaseThePeakStartsAgain) {
  BlockPool pool;
  void* held = pool.allocate(kMiB);
  pool.free(pool.allocate(32 * kMiB));
  pool.release();
  void* first = pool.allocate(4 * kMiB);
  pool.free(first);
  void* second =
      pool.allocate(2 * kMiB);  // 1 + 2 live beside 4 kept would be more than ever lived at once
  EXPECT_EQ(pool.kept(), 0);
  pool.free(second);
  pool.free(held);
}

// Memory from elsewhere is within the limit and beside what is kept, like any block.
TEST(BlockPoolTest, WhatIsClaimedCountsAsBlocksDo) {
  BlockPool pool;
  pool.limit(10 * kMiB);
  pool.free(pool.allocate(6 * kMiB));
  EXPECT_EQ(pool.kept(), static_cast<std::int64_t>(6 * kMiB));
  pool.claim(5 * kMiB);  // the kept 6 MiB go, or 11 would be held
  EXPECT_EQ(pool.kept(), 0);
  EXPECT_EQ(pool.now(), static_cast<std::int64_t>(5 * kMiB));
  EXPECT_EQ(pool.peak(), static_cast<std::int64_t>(6 * kMiB));
  EXPECT_THROW(pool.allocate(5 * kMiB + 1), std::bad_alloc);
  EXPECT_THROW(pool.claim(5 * kMiB + 1), std::bad_alloc);
  pool.free(pool.allocate(5 * kMiB));
  EXPECT_EQ(pool.peak(), static_cast<std::int64_t>(10 * kMiB));
  EXPECT_EQ(pool.kept(), static_cast<std::int64_t>(5 * kMiB));
  pool.unclaim(5 * kMiB);
  EXPECT_EQ(pool.now(), 0);
  pool.free(pool.allocate(10 * kMiB));
  EXPECT_EQ(pool.kept(), static_cast<std::int64_t>(10 * kMiB));
}

TEST(BlockPoolTest, ThreadsLoseNothing) {
  BlockPool pool;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 2000; ++i) {
        const std::size_t bytes = 1 + random() % (2 * BlockPool::kSmallestKept);
        auto* block = static_cast<unsigned char*>(pool.allocate(bytes));
        block[0] = static_cast<unsigned char>(t);
        block[bytes - 1] = static_cast<unsigned char>(t);
        std::this_thread::yield();
        EXPECT_EQ(block[0], t);
        EXPECT_EQ(block[bytes - 1], t);
        pool.free(block);
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(pool.now(), 0);
}

}  // namespace
}  // namespace lorascale::train
