// Shared by the tests of updates: a run of the regression on the ranks of the job or on one of them
// alone, and what follows from an update's rows, formed by the test.
#pragma once

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "comm/local_communicator.hpp"
#include "comm/mpi_communicator.hpp"
#include "data/sampler.hpp"
#include "train/regression.hpp"
#include "train/saved_state.hpp"
#include "train/update.hpp"
#include "train/update_attempt.hpp"

namespace lorascale::train::test {

inline constexpr std::int64_t kSamples = 150;  // of an update, of 301 rows
inline constexpr std::int64_t kLeaf = 16;

// A run in `world`, from its start.
struct Training {
  World& world;
  Session session;
  FaultInjector faults;
  Updater updater;
  data::LeafStream leaves;
  Ballot ballot;
  coordinator::StepPlan rates;  // of every update

  Training(World& where, const config::RunConfig& config)
      : world(where),
        session(regression_session(config)),
        faults(config.faults, where.host.rank()),
        updater(where, session, faults),
        leaves(session.leaves()) {
    rates.lr = 0.125;
    rates.beta1 = config.optimizer.name == config::OptimizerName::kAdamW ? 0.9 : 0;
    rates.beta2 = 0.999;
    rates.eps = 1e-8;
  }

  UpdateResult update(std::int64_t step, std::int64_t leaf_size = kLeaf,
                      std::int64_t samples = kSamples) {
    auto plan = rates;
    plan.step = step;
    plan.first_position = (step - 1) % 2 * samples;  // of an epoch, in turns
    plan.samples = samples;
    plan.leaf_size = leaf_size;
    plan.leaves = (samples + leaf_size - 1) / leaf_size;
    return run_update(world, leaves, updater, faults, plan, [&] { return ballot; });
  }
  RegressionModel& model() { return dynamic_cast<RegressionModel&>(session.model()); }
  [[nodiscard]] const RegressionData& data() const {
    return dynamic_cast<const RegressionData&>(session.workload->train());
  }
  [[nodiscard]] at::Tensor weights() const { return session.parameters().master().clone(); }
  [[nodiscard]] std::string digest() const { return state_digest(session.state()); }
};

// What follows from an update's rows, in fp64. The flat vector is the weight, then the bias.
struct Expected {
  double loss = 0, targets = 0;
  at::Tensor gradient;  // of the mean loss
  at::Tensor mean_x;
  double near = 0, above = 0;
  double loss_error = 0;

  Expected(const RegressionData& data, const at::Tensor& weights, const at::Tensor& rows,
           std::int64_t leaf_size) {
    const at::Tensor x = data.x().index_select(0, rows).to(at::kDouble);
    const at::Tensor counts = data.targets().index_select(0, rows).to(at::kDouble);
    const at::Tensor w = weights.to(at::kDouble);
    const at::Tensor error = at::mv(x, w.narrow(0, 0, kWidth)) + w[kWidth] -
                             data.y().index_select(0, rows).to(at::kDouble);
    const at::Tensor losses = error.square() / 2 * counts;
    targets = counts.sum().item<double>();
    loss = losses.sum().item<double>() / targets;
    const at::Tensor counted = error * counts / targets;
    gradient = at::cat({at::mv(x.t(), counted), counted.sum().unsqueeze(0)});
    mean_x = x.mean(0);
    near = ((error.abs() < 0.5).to(at::kDouble) * counts).sum().item<double>() / targets;
    above = (error > 0).to(at::kDouble).mean().item<double>();
    double scatter = 0, leaves = 0;
    for (std::int64_t first = 0; first < rows.size(0); first += leaf_size, ++leaves) {
      const auto count = std::min(leaf_size, rows.size(0) - first);
      const double difference = losses.narrow(0, first, count).sum().item<double>() -
                                loss * counts.narrow(0, first, count).sum().item<double>();
      scatter += difference * difference;
    }
    loss_error = std::sqrt(leaves / (leaves - 1) * scatter) / targets;
  }
};

inline at::Tensor rows_of_update(const Training& training, std::int64_t first, std::int64_t count) {
  const data::EpochOrder order(training.data().rows(), training.session.config.run.seed, 0);
  std::vector<std::int64_t> rows;
  for (auto i = first; i < first + count; ++i) {
    rows.push_back(order.row_at(i));
  }
  return at::tensor(rows, at::kLong);
}

class UpdateTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { spdlog::set_level(spdlog::level::off); }
  UpdateTest() {
    config_.run.seed = 5;
    config_.optimizer.name = config::OptimizerName::kSgd;
    config_.optimizer.clip_norm = 0;
  }
  [[nodiscard]] std::string last_rank() const { return std::to_string(host_.size() - 1); }
  // The same run with faults.
  [[nodiscard]] config::RunConfig with(const std::string& fault) const {
    auto config = config_;
    config.faults = {fault};
    return config;
  }

  comm::MpiCommunicator host_{30};
  comm::LocalCommunicator local_;
  World world_{host_, host_, at::kCPU, "here"};
  World alone_{local_, local_, at::kCPU, "here"};
  config::RunConfig config_;
};

}  // namespace lorascale::train::test
