#include "train/evaluator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "comm/local_communicator.hpp"
#include "comm/mpi_communicator.hpp"
#include "train/regression.hpp"

namespace lorascale::train {
namespace {

using Task = coordinator::AsideMemoryFacts::Task;
using Report = std::tuple<std::int64_t, std::int64_t, std::int64_t>;  // ranks, first, leaf size

constexpr std::int64_t kRows = 23;  // of the validation set

class EvaluatorTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { spdlog::set_level(spdlog::level::off); }
  std::optional<Evaluation> run(World& world, const Session& session, std::int64_t leaf_size) {
    FaultInjector faults(session.config.faults, host_.rank());
    leaf_ = leaf_size;
    reports_.clear();
    return evaluate(world, session, leaf_, faults, [&](const coordinator::AsideMemoryFacts& facts) {
      EXPECT_EQ(facts.task, Task::kValidation);
      reports_.emplace_back(facts.ranks, facts.rank, facts.leaf_size);
    });
  }
  [[nodiscard]] std::string oom(int rank, int times) const {
    return "oom step=0 phase=evaluation rank=" + std::to_string(rank) +
           " times=" + std::to_string(times);
  }

  comm::MpiCommunicator host_{30};
  comm::LocalCommunicator local_;
  World world_{host_, host_, at::kCPU, "here"};
  World alone_{local_, local_, at::kCPU, "here"};
  config::RunConfig config_;
  std::int64_t leaf_ = 0;
  std::vector<Report> reports_;
};

// Loss and measures of the first rows, in fp64.
Evaluation direct(const Session& session, std::int64_t rows) {
  const auto& data = dynamic_cast<const test::RegressionData&>(*session.workload->validation());
  const at::Tensor w = session.parameters().master().to(at::kDouble);
  const at::Tensor x = data.x().narrow(0, 0, rows).to(at::kDouble);
  const at::Tensor counts = data.targets().narrow(0, 0, rows).to(at::kDouble);
  const at::Tensor error = at::mv(x, w.narrow(0, 0, test::kWidth)) + w[test::kWidth] -
                           data.y().narrow(0, 0, rows).to(at::kDouble);
  const double targets = counts.sum().item<double>();
  return {(error.square() * counts).sum().item<double>() / 2 / targets,
          {{"near", ((error.abs() < 0.5).to(at::kDouble) * counts).sum().item<double>() / targets},
           {"above", (error > 0).to(at::kDouble).mean().item<double>()}}};
}

TEST_F(EvaluatorTest, IsSumsOverSumsOfTheWholeSet) {
  for (const std::int64_t most : {0, 9, 1000}) {
    config_.evaluate.max_samples = most;
    const auto session = test::regression_session(config_);
    const auto expected = direct(session, most == 9 ? 9 : kRows);
    for (const std::int64_t leaf_size : {1, 4, 16, 50}) {
      const auto result = run(world_, session, leaf_size);
      ASSERT_TRUE(result);
      EXPECT_NEAR(result->loss, expected.loss, 1e-6 * expected.loss);
      EXPECT_EQ(result->measures, expected.measures) << "leaves of " << leaf_size;
      EXPECT_EQ(leaf_, leaf_size);
      EXPECT_TRUE(reports_.empty());
      const auto alone = run(alone_, session, leaf_size);
      EXPECT_EQ(alone->loss, result->loss) << "on any number of ranks";
    }
  }
}

TEST_F(EvaluatorTest, ChangesNothingOfTheRun) {
  const auto session = test::regression_session(config_);
  const auto& model = dynamic_cast<test::RegressionModel&>(session.model());
  const at::Tensor before = session.parameters().gradient().fill_(7).clone();
  const at::Tensor statistics = session.model().statistics().clone();
  run(world_, session, 4);
  EXPECT_TRUE(lorascale::test::same_bits(session.parameters().gradient(), before));
  EXPECT_TRUE(lorascale::test::same_bits(session.model().statistics(), statistics));
  EXPECT_EQ(model.moves, 0);
}

// One rank's memory makes the leaves of all smaller, until they fit.
TEST_F(EvaluatorTest, HalvesTheLeafWhereARankRunsOutOfMemory) {
  const int last = host_.size() - 1;
  config_.faults = {oom(last, 2)};
  const auto session = test::regression_session(config_);
  const auto result = run(world_, session, 5);
  ASSERT_TRUE(result);
  EXPECT_EQ(reports_, (std::vector<Report>{{1, last, 3}, {1, last, 2}}));
  EXPECT_EQ(leaf_, 2) << "for the next time";
  const auto expected = direct(session, kRows);
  EXPECT_NEAR(result->loss, expected.loss, 1e-6 * expected.loss);
  EXPECT_EQ(result->measures, expected.measures);
}

TEST_F(EvaluatorTest, GivesUpWhereNotEvenOneRowFits) {
  config_.faults = {"oom step=0 phase=evaluation times=100"};
  const auto session = test::regression_session(config_);
  EXPECT_FALSE(run(world_, session, 2));
  const std::int64_t all = host_.size();
  EXPECT_EQ(reports_, (std::vector<Report>{{all, 0, 1}, {all, 0, 0}}));
}

TEST_F(EvaluatorTest, RefusesASetWithoutTargets) {
  const auto session = test::regression_session(config_, 301, /*validates_targets=*/false);
  try {
    run(world_, session, 4);
    ADD_FAILURE() << "validated without targets";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    EXPECT_STREQ(error.what(), "regression.h5: no row has a target; add some");
  }
}

TEST_F(EvaluatorTest, SaysALossThatIsNoNumberWithoutItsSign) {
  const auto session = test::regression_session(config_);
  at::Tensor(session.parameters().master()).fill_(-std::numeric_limits<float>::quiet_NaN());
  const auto result = run(world_, session, 4);
  ASSERT_TRUE(result);
  EXPECT_TRUE(std::isnan(result->loss));
  EXPECT_FALSE(std::signbit(result->loss));
}

}  // namespace
}  // namespace lorascale::train
