// What comes after the vote of an update, once beforehand. On a device much of it is made when it
// is first needed: NCCL's connections and buffers in the first collective, kernels when they are
// first launched, workspaces with the first call. Memory that runs out there, after the vote, could
// not be undone; here it is said before anything is trained.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include <limits>

#include "train/first_time.hpp"
#include "train/update.hpp"

namespace lorascale::train {
void Updater::warm_up(std::int64_t leaves) {
  if (warm_) {
    return;
  }
  const at::NoGradGuard no_grad;
  const FirstTime first_time(world_, "warming up");
  at::Tensor gradient = parameters_.gradient();
  at::Tensor facts_of_leaves;
  together(world_.host, [&] {
    facts_of_leaves = begin(leaves, {}, NoiseMeter::kHistory);
    const auto mine = coordinator::leaves_of_rank(leaves, world_.host.rank(), world_.host.size());
    for (auto leaf = mine.begin; leaf < mine.end; ++leaf) {
      gradient_sum_->take(leaf);
    }
    reserve_for_the_rest();
  });
  together(world_.host, [&] {
    gradient_sum_->reduce(facts_of_leaves);
    // A gradient that is not finite is skipped: the optimizer does all its work and changes
    // nothing.
    gradient.fill_(std::numeric_limits<float>::quiet_NaN());
    const at::Tensor sums = facts_of_leaves.sum(0);
    const auto facts =
        optim::gradient_facts(gradient, sums.select(0, 0).clamp_min(1.0), clip_norm_);
    if (noise_) {
      static_cast<void>(noise_->squares(gradient));
      noise_->forget_metric();
    }
    at::Tensor master = parameters_.master();
    optimizer_.step(master, gradient, {}, facts);
    parameters_.refresh();
    world_.device.wait();
    static_cast<void>(at::stack({facts.norm, facts.skip}).cpu());
  });
  gradient_sum_->begin(0);
  warm_ = true;
}

}  // namespace lorascale::train
