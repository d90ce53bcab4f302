// A save that is killed, or whose system calls fail, at every single point of the protocol: the
// checkpoint before it stays as it was, the new one is whole or does not exist, and a failure is
// never called success.
#include <sys/resource.h>

#include <cerrno>
#include <csignal>
#include <memory>

#include "checkpoint_support.hpp"
#include "fault_injection.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/checkpoint_retention.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

constexpr int kMostCalls = 500;  // a save of the sample takes far fewer

class CheckpointFaultTest : public testing::Test {
 protected:
  void SetUp() override { save_sample(template_.path(), 1); }

  // A fresh folder that holds the checkpoint of step 1.
  void begin_round() {
    round_ = std::make_unique<TempFolder>();
    fs::copy(template_.path(), round_->path(), fs::copy_options::recursive);
  }

  int save_step_two() const {
    try {
      save_sample(round_->path(), 2);
      return 0;
    } catch (const Error& error) {
      return static_cast<int>(error.code());
    } catch (...) {
      return 1;
    }
  }

  // Step 1 is untouched, and what the loader picks is step 1 or a whole step 2.
  std::int64_t check_folder() const {
    const NewestCheckpoint newest = find_newest_valid(round_->path());
    EXPECT_TRUE(newest.checkpoint.has_value());
    EXPECT_TRUE(newest.skipped.empty()) << newest.skipped[0].reason;
    expect_sample(*newest.checkpoint, newest.checkpoint->step());
    for (const auto& entry : fs::directory_iterator(template_ / "step-00000001")) {
      EXPECT_EQ(get_file(round_->path() / "step-00000001" / entry.path().filename()),
                get_file(entry.path()));
    }
    return newest.checkpoint->step();
  }

  // Repeats the save with the fault at its 1st, 2nd, 3rd ... call until it ends without reaching
  // it.
  template <class Check>
  void at_every_call(FaultKind kind, int error_number, Check&& check) {
    for (int k = 1; k < kMostCalls; ++k) {
      SCOPED_TRACE("call " + std::to_string(k));
      begin_round();
      const FaultOutcome outcome =
          run_with_fault([this] { return save_step_two(); }, {k, kind, error_number});
      if (!outcome.traced) {
        GTEST_SKIP() << "this system does not allow ptrace";
      }
      if (!outcome.hit) {
        RecordProperty("calls", k - 1);
        EXPECT_GT(k, 30);  // else the calls were not seen at all
        EXPECT_EQ(outcome.exit_code, 0);
        EXPECT_EQ(check_folder(), 2);
        return;
      }
      check(outcome);
      if (HasFailure()) {
        return;
      }
    }
    FAIL() << "the save never ended";
  }

  void expect_honest_failures(FaultKind kind, int error_number) {
    int failures = 0;
    at_every_call(kind, error_number, [&](const FaultOutcome& outcome) {
      EXPECT_EQ(outcome.signal, 0);
      const std::int64_t step = check_folder();
      if (outcome.exit_code == 0) {
        EXPECT_EQ(step, 2);  // called a success, so it must be one
      } else {
        EXPECT_EQ(outcome.exit_code, static_cast<int>(ExitCode::kCannotWrite));
        ++failures;
      }
      // Once the fault is gone, the run goes on.
      if (step == 1) {
        remove_leftovers(round_->path());
        EXPECT_EQ(save_step_two(), 0);
        EXPECT_EQ(check_folder(), 2);
      }
    });
    EXPECT_GT(failures, 20);
    RecordProperty("failures", failures);
  }

  const TempFolder template_;
  std::unique_ptr<TempFolder> round_;
};

TEST_F(CheckpointFaultTest, KilledAtEveryCall) {
  at_every_call(FaultKind::kKill, 0, [this](const FaultOutcome& outcome) {
    EXPECT_EQ(outcome.signal, SIGKILL);
    if (check_folder() == 1) {
      EXPECT_EQ(save_step_two(), 0);  // without cleaning up first
      EXPECT_EQ(check_folder(), 2);
    }
  });
}

TEST_F(CheckpointFaultTest, DiskFullOnceAtEveryCall) {
  expect_honest_failures(FaultKind::kFailOnce, ENOSPC);
}

TEST_F(CheckpointFaultTest, DiskFullFromEveryCallOn) {
  expect_honest_failures(FaultKind::kFailForGood, ENOSPC);
}

TEST_F(CheckpointFaultTest, QuotaUsedUpFromEveryCallOn) {
  expect_honest_failures(FaultKind::kFailForGood, EDQUOT);
}

TEST_F(CheckpointFaultTest, InputOutputErrorAtEveryCall) {
  expect_honest_failures(FaultKind::kFailOnce, EIO);
}

TEST_F(CheckpointFaultTest, InterruptedAtEveryCall) {
  at_every_call(FaultKind::kFailOnce, EINTR, [this](const FaultOutcome& outcome) {
    const std::int64_t step = check_folder();
    EXPECT_EQ(outcome.exit_code == 0 ? 2 : step, step);
  });
}

TEST_F(CheckpointFaultTest, ShortWriteAtEveryCall) {
  at_every_call(FaultKind::kShortWrite, 0, [this](const FaultOutcome& outcome) {
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(check_folder(), 2);
  });
}

// A limit on file sizes, met in the middle of a file.
TEST_F(CheckpointFaultTest, LimitOnFileSizes) {
  begin_round();
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{500, 500};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::_exit(save_step_two());
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(ExitCode::kCannotWrite));
  EXPECT_EQ(check_folder(), 1);
  EXPECT_FALSE(has_entry_like(round_->path(), ".tmp"));
}

}  // namespace
}  // namespace lorascale::io
