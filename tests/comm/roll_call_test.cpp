// Who answers whom, on 2 and 3 ranks.
#include "comm/roll_call.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace lorascale::comm {
namespace {

using testing::HasSubstr;
using testing::Not;

class RollCallTest : public testing::Test {
 protected:
  RollCallTest() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  // Waits as a rank in a collective does.
  void attend(RollCall& roll_call, double seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < end) {
      roll_call.answer();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  static std::string named(int rank) { return "rank " + std::to_string(rank) + " ("; }

  int rank_ = 0, size_ = 1;
};

TEST_F(RollCallTest, OnlyTheRankThatStaysAwayIsNamed) {
  RollCall roll_call(MPI_COMM_WORLD);
  const int last = size_ - 1;
  roll_call.enter("barrier");
  if (rank_ == 0) {
    const auto text = roll_call.ask(0.5);
    EXPECT_THAT(text, HasSubstr(named(last)));
    EXPECT_THAT(text, HasSubstr("does not answer"));
    for (int rank = 0; rank < last; ++rank) {
      EXPECT_THAT(text, Not(HasSubstr(named(rank))));
    }
  } else if (rank_ != last) {
    attend(roll_call, 1);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_F(RollCallTest, RanksInAnotherCollectiveAreToldWithItsNameAndNumber) {
  RollCall roll_call(MPI_COMM_WORLD);
  roll_call.enter("broadcast");
  roll_call.enter(rank_ == 1 ? "all_gather" : "barrier");
  if (rank_ == 0) {
    const auto text = roll_call.ask(1);
    EXPECT_THAT(text, HasSubstr(named(1)));
    EXPECT_THAT(text, HasSubstr("waits in all_gather number 2"));
    EXPECT_THAT(text, Not(HasSubstr(named(2))));
  } else {
    attend(roll_call, 1.5);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_F(RollCallTest, AllInTheSameCallMeansTheNetwork) {
  RollCall roll_call(MPI_COMM_WORLD);
  roll_call.enter("all_reduce");
  // All ask at once: they answer each other while they wait.
  EXPECT_THAT(roll_call.ask(3), HasSubstr("network"));
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_F(RollCallTest, KnowsTheHosts) {
  const RollCall roll_call(MPI_COMM_WORLD);
  std::array<char, 256> mine{};
  gethostname(mine.data(), mine.size() - 1);
  EXPECT_EQ(roll_call.host_of(rank_), std::string(mine.data()).substr(0, 63));
}

}  // namespace
}  // namespace lorascale::comm
