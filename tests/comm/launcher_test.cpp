#include "comm/launcher.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.hpp"

namespace lorascale::comm {
namespace {

using Variables = std::map<std::string, std::string>;

LauncherFacts read(const Variables& variables) {
  return read_launcher([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(LauncherTest, NothingIsKnownOfAProcessStartedByHand) {
  const auto facts = read({{"HOME", "/root"}});
  EXPECT_EQ(facts.name, "none");
  EXPECT_FALSE(facts.size);
  check_launcher(facts, 0, 1);
}

TEST(LauncherTest, ReadsMpirun) {
  const auto facts = read({{"OMPI_COMM_WORLD_RANK", "3"},
                           {"OMPI_COMM_WORLD_SIZE", "4"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}});
  EXPECT_EQ(facts.name, "mpirun");
  EXPECT_EQ(facts.rank, 3);
  EXPECT_EQ(facts.size, 4);
  EXPECT_EQ(facts.local_rank, 1);
  check_launcher(facts, 3, 4);
}

TEST(LauncherTest, ReadsAStepOfSrun) {
  const auto facts =
      read({{"SLURM_PROCID", "5"}, {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_LOCALID", "1"}});
  EXPECT_EQ(facts.name, "srun");
  EXPECT_EQ(facts.rank, 5);
  EXPECT_EQ(facts.size, 8);
}

TEST(LauncherTest, ABatchScriptIsNoStep) {
  // What SLURM sets for the script itself, which runs once.
  const auto facts = read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "0"}});
  EXPECT_FALSE(facts.size);
}

TEST(LauncherTest, MpirunInsideABatchJobCounts) {
  const auto facts = read({{"OMPI_COMM_WORLD_RANK", "1"},
                           {"OMPI_COMM_WORLD_SIZE", "2"},
                           {"SLURM_PROCID", "0"},
                           {"SLURM_STEP_NUM_TASKS", "1"}});
  EXPECT_EQ(facts.name, "mpirun");
  EXPECT_EQ(facts.size, 2);
}

TEST(LauncherTest, TheOnlyTaskOfAStepIsAlone) {
  const auto step = [](const std::string& tasks) {
    return Variables{{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", tasks}, {"SLURM_NTASKS", "4"}};
  };
  EXPECT_TRUE(is_only_task(read(step("1"))));
  EXPECT_FALSE(is_only_task(read(step("2"))));
  EXPECT_FALSE(is_only_task(read({{"SLURM_NTASKS", "1"}})));
  auto rank_of_mpirun = step("1");
  rank_of_mpirun.insert({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}});
  EXPECT_FALSE(is_only_task(read(rank_of_mpirun)));
}

TEST(LauncherTest, TasksThatCannotFindEachOtherAreRefused) {
  const auto check = [](Variables more, const std::string& tasks) {
    more.insert({{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", tasks}});
    require_wire_up(read(more), [&](const char* name) -> const char* {
      const auto found = more.find(name);
      return found == more.end() ? nullptr : found->second.c_str();
    });
  };
  check({}, "1");
  check({{"PMIX_RANK", "1"}}, "2");
  check({{"PMI_RANK", "1"}}, "2");
  check({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}}, "2");
  try {
    check({}, "2");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    EXPECT_THAT(error.what(), testing::HasSubstr("2 tasks"));
    EXPECT_THAT(error.what(), testing::HasSubstr("srun --mpi=pmix"));
  }
}

TEST(LauncherTest, NumbersThatAreNoneAreIgnored) {
  for (const char* bad : {"", "x", "-1", "4x", "99999999999999999999"}) {
    EXPECT_FALSE(read({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", bad}}).size) << bad;
  }
}

// srun without --mpi=pmix: eight separate jobs of one rank in one run folder.
TEST(LauncherTest, RanksThatMpiDoesNotSeeAreRefused) {
  const auto facts = read({{"SLURM_PROCID", "5"}, {"SLURM_STEP_NUM_TASKS", "8"}});
  try {
    check_launcher(facts, 0, 1);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    EXPECT_THAT(error.what(), testing::HasSubstr("rank 5 of 8"));
    EXPECT_THAT(error.what(), testing::HasSubstr("MPI sees rank 0 of 1"));
    EXPECT_THAT(error.what(), testing::HasSubstr("--mpi=pmix"));
  }
  const auto other = read({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}});
  EXPECT_THROW(check_launcher(other, 0, 1), Error);
}

}  // namespace
}  // namespace lorascale::comm
