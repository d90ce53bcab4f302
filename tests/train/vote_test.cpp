// Errors become common knowledge, on 1 to 4 ranks.
#include "train/vote.hpp"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

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

// Ranks that lost a peer know less than the peer.
TEST_F(VoteTest, TheCauseIsToldRatherThanItsEffects) {
  if (host_.size() < 2) {
    GTEST_SKIP() << "needs two ranks";
  }
  const int last = host_.size() - 1;
  const auto error = caught([&] {
    together(host_, [&] {
      if (host_.rank() == last) {
        throw Error(ExitCode::kBadConfig, "no memory for NCCL");
      }
      throw Error(ExitCode::kPeerLost, "waited 120 s");
    });
  });
  EXPECT_EQ(error.code(), ExitCode::kBadConfig);
  EXPECT_THAT(error.what(), HasSubstr("rank " + std::to_string(last) + ": no memory for NCCL"));
}

TEST_F(VoteTest, OtherExceptionsBecomeErrorsOfOneLine) {
  const auto error = attempt([] { throw std::runtime_error("what\nbacktrace"); });
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->code(), ExitCode::kInternal);
  EXPECT_THAT(error->what(), Not(HasSubstr("backtrace")));
  EXPECT_THAT(attempt([] { throw std::bad_alloc(); })->what(), HasSubstr("out of memory"));
  EXPECT_FALSE(attempt([] {}));
}

// Memory that runs out has a type of its own in C++ and in libtorch, a code in the reports of the
// device, and text alone where CUDA's libraries notice it.
TEST_F(VoteTest, MemoryThatRunsOutIsKnownByTypeCodeAndText) {
  const c10::SourceLocation here{"", "", 0};
  const auto runs_out = [](auto failure) {
    bool out_of_memory = false;
    const auto error = attempt([&] { throw failure; }, &out_of_memory);
    EXPECT_NE(error.has_value(), out_of_memory);
    return out_of_memory;
  };
  EXPECT_TRUE(runs_out(std::bad_alloc()));
  EXPECT_TRUE(runs_out(c10::OutOfMemoryError(here, "whatever it says")));
  EXPECT_TRUE(runs_out(c10::AcceleratorError(here, 2, "CUDA error: whatever it says")));
  EXPECT_TRUE(runs_out(c10::AcceleratorError(here, 999, "CUDA driver error: out of memory")));
  EXPECT_TRUE(runs_out(c10::Error(
      here, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")));
  EXPECT_TRUE(runs_out(std::runtime_error("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")));
  EXPECT_FALSE(runs_out(c10::AcceleratorError(here, 700, "CUDA error: an illegal memory access")));
  EXPECT_FALSE(runs_out(std::runtime_error("shapes do not match")));
  EXPECT_FALSE(runs_out(Error(ExitCode::kBadConfig, "NCCL ran out of memory")))
      << "its communicator is gone: not to be tried again";
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
