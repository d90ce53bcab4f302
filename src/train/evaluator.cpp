#include "train/evaluator.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <optional>

#include "base/heartbeat.hpp"
#include "coordinator/facts.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

namespace {

// Loss and targets of all leaves, or nothing where ranks ran out of memory, as then agreed on.
std::optional<at::Tensor> sums_of(World& world, models::Model& model, TokenSource& source,
                                  std::int64_t rows, std::int64_t leaf_size, FaultInjector& faults,
                                  Agreement* agreed) {
  const auto leaves = (rows + leaf_size - 1) / leaf_size;
  const auto mine = coordinator::leaves_of_rank(leaves, world.host.rank(), world.host.size());
  // A row per leaf, zero for those of other ranks: their sum is exact, whatever their number.
  at::Tensor facts;
  Ballot ballot;
  const auto error = attempt(
      [&] {
        facts = at::zeros({leaves, 2}, at::TensorOptions().dtype(at::kDouble).device(world.place));
        for (auto leaf = mine.begin; leaf < mine.end; ++leaf) {
          beat("validation");
          faults.reach(Phase::kEvaluation);
          const auto first = leaf * leaf_size;
          const auto result = model.evaluate(source.leaf(first, std::min(leaf_size, rows - first)));
          facts[leaf][0].copy_(result.loss_sum);
          facts[leaf][1].fill_(static_cast<double>(result.targets));
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

}  // namespace

std::optional<double> evaluate(
    World& world, models::Model& model, TokenSource& source, std::int64_t max_samples,
    std::int64_t& leaf_size, FaultInjector& faults,
    const std::function<void(const coordinator::AsideMemoryFacts&)>& report) {
  const at::NoGradGuard no_grad;
  const auto rows = max_samples > 0 ? std::min(max_samples, source.rows()) : source.rows();
  Agreement agreed;
  auto sums = sums_of(world, model, source, rows, leaf_size, faults, &agreed);
  while (!sums) {
    const bool smallest = leaf_size == 1;
    leaf_size = smallest ? 0 : (leaf_size + 1) / 2;
    report({0, coordinator::AsideMemoryFacts::Task::kValidation, agreed.out_of_memory,
            agreed.first_rank, leaf_size});
    release_cached_memory(world.place);
    if (smallest) {
      return std::nullopt;
    }
    sums = sums_of(world, model, source, rows, leaf_size, faults, &agreed);
  }
  const double* values = sums->const_data_ptr<double>();
  if (values[1] == 0) {
    throw_bad_input(source.path().string() +
                    ": no token of it counts as a target; check its loss_mask");
  }
  const double loss = values[0] / values[1];
  return std::isnan(loss) ? std::numeric_limits<double>::quiet_NaN() : loss;  // without its sign
}

}  // namespace lorascale::train
