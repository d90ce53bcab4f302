// Errors become common knowledge, on 1 to 4 ranks.
#include "train/vote.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/mpi_communicator.hpp"

namespace lorascale::train {
namespace {

using testing::HasSubstr;
using testing::Not;

class VoteTest : public testing::Test {
 protected:
  // The error that every rank throws; rank 0's stderr goes to `said_`.
  Error caught(const std::function<void()>& action) {
    testing::internal::CaptureStderr();
    try {
      action();
    } catch (const ReportedError& error) {
      said_ = testing::internal::GetCapturedStderr();
      return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    said_ = testing::internal::GetCapturedStderr();
    return {ExitCode::kDone, ""};
  }
  comm::MpiCommunicator host_{20};
  std::string said_;
};

TEST_F(VoteTest, AStopRequestOfOneRankReachesAll) {
  const Ballot mine{host_.rank() == host_.size() - 1, host_.rank() == 0 ? 3.5 : 99.0};
  const auto agreed = vote(host_, mine, std::nullopt);
  EXPECT_TRUE(agreed.stop_requested);
  EXPECT_EQ(agreed.elapsed_minutes, 3.5);
  EXPECT_FALSE(vote(host_, {}, std::nullopt).stop_requested);
}

TEST_F(VoteTest, TheErrorOfOneRankIsThrownByAllAndSaidOnce) {
  const int guilty = host_.size() - 1;
  const auto error = caught([&] {
    together(host_, [&] {
      if (host_.rank() == guilty) {
        throw Error(ExitCode::kBadInput, "disk/x.h5 is damaged");
      }
    });
  });
  EXPECT_EQ(error.code(), ExitCode::kBadInput);
  EXPECT_THAT(error.what(), HasSubstr("disk/x.h5 is damaged"));
  if (host_.size() > 1) {
    EXPECT_THAT(error.what(), HasSubstr("rank " + std::to_string(guilty) + ": "));
  }
  EXPECT_THAT(said_, host_.rank() == 0 ? HasSubstr("disk/x.h5 is damaged") : HasSubstr(""));
  if (host_.rank() != 0) {
    EXPECT_EQ(said_, "");
  }
}

TEST_F(VoteTest, TheSameErrorOfAllRanksNeedsNoRank) {
  const auto error =
      caught([&] { together(host_, [] { throw Error(ExitCode::kBadConfig, "no such key"); }); });
  EXPECT_EQ(error.code(), ExitCode::kBadConfig);
  EXPECT_STREQ(error.what(), "no such key");
}

TEST_F(VoteTest, WhereOneRankRunsOutOfMemoryAllTryAgain) {
  const int guilty = host_.size() - 1;
  int tried = 0, relieved = 0;
  together_retrying(
      host_,
      [&] {
        if (++tried < 3 && host_.rank() == guilty) {
          throw std::bad_alloc();
        }
      },
      [&](const Agreement& agreed) {
        ++relieved;
        EXPECT_EQ(agreed.first_rank, guilty);
      });
  EXPECT_EQ(tried, 3);
  EXPECT_EQ(relieved, 2);
}

// In the same vote: what cannot be mended by less memory wins, and nobody tries again.
TEST_F(VoteTest, AnErrorIsNotLostBesideAnotherRanksLackOfMemory) {
  const int short_of_memory = 0, guilty = host_.size() - 1;
  if (guilty == short_of_memory) {
    GTEST_SKIP() << "needs two ranks";
  }
  int tried = 0, relieved = 0;
  const auto error = caught([&] {
    together_retrying(
        host_,
        [&] {
          ++tried;
          if (host_.rank() == guilty) {
            throw Error(ExitCode::kBadInput, "row 7 is damaged");
          }
          if (host_.rank() == short_of_memory) {
            throw std::bad_alloc();
          }
        },
        [&](const Agreement&) { ++relieved; });
  });
  EXPECT_EQ(error.code(), ExitCode::kBadInput);
  EXPECT_THAT(error.what(), HasSubstr("row 7 is damaged"));
  EXPECT_EQ(tried, 1);
  EXPECT_EQ(relieved, 0);
}

TEST_F(VoteTest, TryingAgainEnds) {
  int tried = 0;
  const auto error = caught([&] {
    together_retrying(
        host_,
        [&] {
          ++tried;
          if (host_.rank() == 0) {
            throw std::bad_alloc();
          }
        },
        [](const Agreement&) {});
  });
  EXPECT_EQ(error.code(), ExitCode::kBadConfig);
  EXPECT_THAT(error.what(), HasSubstr("out of memory"));
  EXPECT_EQ(tried, 4);
}

TEST_F(VoteTest, RankZeroAloneRunsOutOfMemoryAndAllKnow) {
  bool out_of_memory = false;
  root_alone(
      host_, [] { throw std::bad_alloc(); }, &out_of_memory);
  EXPECT_TRUE(out_of_memory);
  root_alone(
      host_, [] {}, &out_of_memory);
  EXPECT_FALSE(out_of_memory);
}

TEST_F(VoteTest, DifferentErrorsAreCounted) {
  if (host_.size() < 3) {
    GTEST_SKIP() << "needs three ranks";
  }
  const auto error = caught([&] {
    together(host_, [&] {
      if (host_.rank() > 0) {
        throw Error(ExitCode::kBadInput, "file " + std::to_string(host_.rank()));
      }
    });
  });
  EXPECT_THAT(error.what(), HasSubstr("rank 1: file 1"));
  EXPECT_THAT(error.what(), HasSubstr(std::to_string(host_.size() - 1) + " of "));
}

TEST_F(VoteTest, OtherExceptionsBecomeErrorsOfOneLine) {
  const auto error = attempt([] { throw std::runtime_error("what\nbacktrace"); });
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->code(), ExitCode::kInternal);
  EXPECT_THAT(error->what(), Not(HasSubstr("backtrace")));
  EXPECT_THAT(attempt([] { throw std::bad_alloc(); })->what(), HasSubstr("out of memory"));
  EXPECT_FALSE(attempt([] {}));
}

TEST_F(VoteTest, WorkOfTheRootAloneMayOutlastTheDeadline) {
  host_.set_deadline(0.2);
  root_alone(host_, [&] {
    EXPECT_EQ(host_.rank(), 0);
    timespec pause{0, 600'000'000};
    nanosleep(&pause, nullptr);
  });
  EXPECT_EQ(host_.deadline_seconds(), 0.2);
  host_.set_deadline(20);
  const auto error =
      caught([&] { root_alone(host_, [] { throw Error(ExitCode::kCannotWrite, "disk full"); }); });
  EXPECT_EQ(error.code(), ExitCode::kCannotWrite);
}

}  // namespace
}  // namespace lorascale::train
