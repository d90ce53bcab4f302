#include "train/evaluator.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/heartbeat.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"

namespace lorascale::train {
namespace {

// A leaf's row of the table; pairs of sums for the measures follow.
enum Column : std::int64_t { kLossColumn, kTargetsColumn, kMeasureColumns };

std::int64_t rows_to_validate(const Session& session) {
  const auto rows = session.workload->validation()->rows();
  const auto most = session.config.evaluate.max_samples;
  return most > 0 ? std::min(most, rows) : rows;
}

// Sums over all leaves, or nothing where ranks ran out of memory, as then agreed on.
std::optional<at::Tensor> sums_of(World& world, const Session& session, std::int64_t leaf_size,
                                  FaultInjector& faults, Agreement* agreed) {
  auto& model = session.model();
  const auto measures = static_cast<std::int64_t>(model.measure_names().size());
  const auto rows = rows_to_validate(session);
  const auto leaves = (rows + leaf_size - 1) / leaf_size;
  const auto mine = coordinator::leaves_of_rank(leaves, world.host.rank(), world.host.size());
  // A row per leaf, zero for those of other ranks: their sum is exact, whatever their number.
  at::Tensor facts;
  Ballot ballot;
  const auto error = attempt(
      [&] {
        facts = at::zeros({leaves, kMeasureColumns + 2 * measures},
                          at::TensorOptions().dtype(at::kDouble).device(world.place));
        for (auto leaf = mine.begin; leaf < mine.end; ++leaf) {
          beat("validation");
          faults.reach(Phase::kEvaluation);
          const auto first = leaf * leaf_size;
          const auto result =
              model.evaluate(*data::leaf_in_order(*session.workload->validation(), session.key(),
                                                  first, std::min(leaf_size, rows - first)));
          at::Tensor row = facts[leaf];
          row[kLossColumn].copy_(result.loss_sum);
          row[kTargetsColumn].fill_(static_cast<double>(result.targets));
          if (measures > 0) {
            row.narrow(0, kMeasureColumns, 2 * measures).copy_(result.measures.flatten());
          }
        }
      },
      &ballot.out_of_memory);
  *agreed = vote(world.host, ballot, error);
  if (agreed->out_of_memory > 0) {
    return std::nullopt;
  }
  all_reduce_sum(world, facts);
  world.device.wait();
  return facts.sum(0).cpu();
}

Evaluation evaluation_of(const at::Tensor& sums, const Session& session) {
  const double* values = sums.const_data_ptr<double>();
  if (values[kTargetsColumn] == 0) {
    throw_bad_input(session.workload->validation()->path() + ": " +
                    session.workload->words().no_targets);
  }
  Evaluation result{values[kLossColumn] / values[kTargetsColumn], {}};
  if (std::isnan(result.loss)) {
    result.loss = std::numeric_limits<double>::quiet_NaN();  // without its sign
  }
  const double* sum = values + kMeasureColumns;
  for (const auto& name : session.model().measure_names()) {
    result.measures.emplace_back(name, sum[0] / sum[1]);
    sum += 2;
  }
  return result;
}

}  // namespace

std::optional<Evaluation> evaluate(
    World& world, const Session& session, std::int64_t& leaf_size, FaultInjector& faults,
    const std::function<void(const coordinator::AsideMemoryFacts&)>& report) {
  const at::NoGradGuard no_grad;
  Agreement agreed;
  auto sums = sums_of(world, session, leaf_size, faults, &agreed);
  while (!sums) {
    const bool smallest = leaf_size == 1;
    leaf_size = smallest ? 0 : (leaf_size + 1) / 2;
    report({0, coordinator::AsideMemoryFacts::Task::kValidation, agreed.out_of_memory,
            agreed.first_rank, leaf_size});
    release_cached_memory(world.place);
    if (smallest) {
      return std::nullopt;
    }
    sums = sums_of(world, session, leaf_size, faults, &agreed);
  }
  return evaluation_of(*sums, session);
}

}  // namespace lorascale::train
