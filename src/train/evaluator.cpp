#include "train/evaluator.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "base/heartbeat.hpp"
#include "coordinator/coordinator.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

double evaluate(World& world, models::Model& model, TokenSource& source, std::int64_t leaf_size,
                std::int64_t max_samples) {
  const at::NoGradGuard no_grad;
  const auto rows = max_samples > 0 ? std::min(max_samples, source.rows()) : source.rows();
  const auto leaves = (rows + leaf_size - 1) / leaf_size;
  const auto mine = coordinator::leaves_of_rank(leaves, world.host.rank(), world.host.size());
  // A row per leaf, zero for those of other ranks: the sum over ranks is exact, whatever their
  // number.
  at::Tensor facts =
      at::zeros({leaves, 2}, at::TensorOptions().dtype(at::kDouble).device(world.place));
  together(world.host, [&] {
    for (auto leaf = mine.begin; leaf < mine.end; ++leaf) {
      beat("validation");
      const auto first = leaf * leaf_size;
      const auto result = model.evaluate(source.leaf(first, std::min(leaf_size, rows - first)));
      facts[leaf][0].copy_(result.loss_sum);
      facts[leaf][1].fill_(static_cast<double>(result.targets));
    }
  });
  all_reduce_sum(world, facts);
  world.device.wait();
  const at::Tensor host = facts.sum(0).cpu();
  const double* values = host.const_data_ptr<double>();
  if (values[1] == 0) {
    throw_bad_input(source.path().string() +
                    ": no token of it counts as a target; check its loss_mask");
  }
  return values[0] / values[1];
}

}  // namespace lorascale::train
