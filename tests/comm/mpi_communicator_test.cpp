// Inputs whose sums are known exactly, on 1 to 4 ranks: equality, not tolerance.
#include "comm/mpi_communicator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <ctime>
#include <numeric>
#include <vector>

namespace lorascale::comm {
namespace {

constexpr double kDeadline = 20;

template <typename T>
class AllReduceTest : public testing::Test {};
using Types = testing::Types<std::int8_t, std::uint8_t, std::int32_t, std::int64_t, std::uint64_t,
                             float, double>;
TYPED_TEST_SUITE(AllReduceTest, Types);

TYPED_TEST(AllReduceTest, SumMinAndMaxAreExact) {
  MpiCommunicator comm(kDeadline);
  const auto ranks = comm.size();
  for (const std::size_t size : {0U, 1U, 2U, 3U, 5U, 1000U, 4097U}) {
    const auto value = [](int rank, std::size_t i) {
      return static_cast<TypeParam>((i % 7) + static_cast<std::size_t>(rank));
    };
    for (const auto op : {ReduceOp::kSum, ReduceOp::kMin, ReduceOp::kMax}) {
      std::vector<TypeParam> data(size);
      for (std::size_t i = 0; i < size; ++i) {
        data[i] = value(comm.rank(), i);
      }
      comm.all_reduce(std::span(data), op);
      for (std::size_t i = 0; i < size; ++i) {
        TypeParam expected = value(op == ReduceOp::kMax ? ranks - 1 : 0, i);
        if (op == ReduceOp::kSum) {
          for (int rank = 1; rank < ranks; ++rank) {
            expected = static_cast<TypeParam>(expected + value(rank, i));
          }
        }
        ASSERT_EQ(data[i], expected) << "element " << i << " of " << size;
      }
    }
  }
}

// 1e8 + 1 - 1e8 depends on the order in fp32; rank order is promised, on every rank.
TEST(MpiCommunicatorTest, FloatSumsAreInRankOrder) {
  MpiCommunicator comm(kDeadline);
  const std::vector<float> parts = {1e8F, 1.0F, -1e8F, 3.0F};
  std::vector<float> data(1001, parts[static_cast<std::size_t>(comm.rank()) % parts.size()]);
  comm.all_reduce(std::span(data));
  float expected = parts[0];
  for (int rank = 1; rank < comm.size(); ++rank) {
    expected += parts[static_cast<std::size_t>(rank) % parts.size()];
  }
  for (const float element : data) {
    ASSERT_EQ(element, expected);
  }
}

TEST(MpiCommunicatorTest, BroadcastsFromEveryRoot) {
  MpiCommunicator comm(kDeadline);
  for (int root = 0; root < comm.size(); ++root) {
    std::vector<std::int64_t> data(17, comm.rank() == root ? 100 + root : -1);
    comm.broadcast(std::span(data), root);
    EXPECT_EQ(data, std::vector<std::int64_t>(17, 100 + root));
  }
}

TEST(MpiCommunicatorTest, GathersInRankOrder) {
  MpiCommunicator comm(kDeadline);
  const std::vector<std::int32_t> mine = {comm.rank(), -comm.rank()};
  std::vector<std::int32_t> all(2 * static_cast<std::size_t>(comm.size()));
  comm.all_gather(std::span<const std::int32_t>(mine), std::span(all));
  for (int rank = 0; rank < comm.size(); ++rank) {
    EXPECT_EQ(all[2 * static_cast<std::size_t>(rank)], rank);
    EXPECT_EQ(all[2 * static_cast<std::size_t>(rank) + 1], -rank);
  }
  std::vector<double> part(static_cast<std::size_t>(comm.rank()));  // lengths 0, 1, 2, ...
  std::iota(part.begin(), part.end(), 0.5);
  const auto parts = comm.gather_to_root(std::span<const double>(part));
  ASSERT_EQ(parts.size(), comm.rank() == 0 ? static_cast<std::size_t>(comm.size()) : 0U);
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    ASSERT_EQ(parts[rank].size(), rank);
    if (rank > 0) {
      EXPECT_EQ(parts[rank].front(), 0.5);
    }
  }
}

// The others join the barrier that rank 0 gave up, so that all end even.
TEST(MpiCommunicatorTest, AMissingPeerIsNoticedInTimeAndNamed) {
  MpiCommunicator comm(kDeadline);
  if (comm.size() == 1) {
    GTEST_SKIP() << "needs a peer";
  }
  if (comm.rank() == 0) {
    comm.set_deadline(0.3);
    try {
      comm.barrier();
      ADD_FAILURE() << "nobody was missed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kPeerLost);
      EXPECT_THAT(error.what(), testing::HasSubstr("barrier on rank 0"));
      EXPECT_THAT(error.what(), testing::HasSubstr("rank 1 ("));
      EXPECT_THAT(error.what(), testing::HasSubstr("does not answer"));
    }
  } else {
    timespec pause{2, 500'000'000};
    nanosleep(&pause, nullptr);
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Ibarrier(MPI_COMM_WORLD, &request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
  }
}

}  // namespace
}  // namespace lorascale::comm
