#include "data/prefetcher.hpp"

#include <gtest/gtest.h>

#include <atomic>

#include "base/error.hpp"

namespace lorascale::data {
namespace {

TEST(PrefetcherTest, YieldsInTheOrderOfRequests) {
  Prefetcher<int> prefetcher(2);
  for (int i = 0; i < 100; ++i) {
    prefetcher.request([i] { return i; });
  }
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(prefetcher.next(), i);
  }
}

TEST(PrefetcherTest, AnErrorComesOutWhereItsLeafWouldAndLaterOnesStillCome) {
  Prefetcher<int> prefetcher(3);
  prefetcher.request([] { return 1; });
  prefetcher.request([]() -> int { throw_bad_input("row 7 is damaged"); });
  prefetcher.request([] { return 3; });
  EXPECT_EQ(prefetcher.next(), 1);
  EXPECT_THROW(prefetcher.next(), Error);
  EXPECT_EQ(prefetcher.next(), 3);
}

TEST(PrefetcherTest, PreparesNoMoreThanItsDepthAhead) {
  std::atomic<int> prepared = 0;
  Prefetcher<int> prefetcher(2);
  for (int i = 0; i < 10; ++i) {
    prefetcher.request([&prepared, i] {
      ++prepared;
      return i;
    });
  }
  EXPECT_EQ(prefetcher.next(), 0);
  EXPECT_LE(prepared.load(), 4);  // one taken, two ready, one in the making
}

TEST(PrefetcherTest, StopsWithRequestsLeft) {
  for (int round = 0; round < 50; ++round) {
    Prefetcher<int> prefetcher(1);
    for (int i = 0; i < 5; ++i) {
      prefetcher.request([i] { return i; });
    }
  }
}

}  // namespace
}  // namespace lorascale::data
