#include "train/update.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "base/heartbeat.hpp"

namespace lorascale::train {
namespace {

class Stopwatch {
 public:
  // Milliseconds since the last call.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double, std::milli> elapsed = now - last_;
    last_ = now;
    return elapsed.count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Places in the facts that travel with the gradient.
enum Fact : std::int64_t { kLoss, kTargets, kTokens, kFacts };

}  // namespace

Updater::Updater(World& world, models::Model& model, adapters::TrainableParameters& parameters,
                 optim::Optimizer& optimizer, std::uint64_t seed, double clip_norm)
    : world_(world),
      model_(model),
      parameters_(parameters),
      optimizer_(optimizer),
      seed_(seed),
      clip_norm_(clip_norm) {}

void Updater::accumulate(std::int64_t leaves, const NextLeaf& next_leaf, at::Tensor& sums,
                         UpdateTimes& times) {
  for (std::int64_t i = 0; i < leaves; ++i) {
    Stopwatch watch;
    beat("forward and backward");
    const data::TokenLeaf leaf = next_leaf();
    times.data_wait += watch.lap();
    const auto result = model_.accumulate(leaf, seed_);
    sums[kLoss].add_(result.loss_sum);
    sums[kTargets].add_(static_cast<double>(result.targets));
    sums[kTokens].add_(static_cast<double>(result.tokens));
    times.compute += watch.lap();
  }
}

UpdateResult Updater::run(const coordinator::StepPlan& plan, std::int64_t leaves,
                          const NextLeaf& next_leaf, const std::function<Ballot()>& ballot) {
  const at::NoGradGuard no_grad;
  Stopwatch total;
  set_current_step(plan.step);
  UpdateResult result;
  at::Tensor gradient = parameters_.gradient();
  gradient.zero_();
  at::Tensor sums = at::zeros({kFacts}, gradient.options().dtype(at::kDouble));
  const auto error = attempt([&] { accumulate(leaves, next_leaf, sums, result.times); });
  Stopwatch watch;
  const Ballot agreed = vote(world_.host, ballot(), error);
  result.stop_requested = agreed.stop_requested;
  result.times.vote = watch.lap();

  world_.device.group_begin();
  all_reduce_sum(world_, gradient);
  all_reduce_sum(world_, sums);
  world_.device.group_end();
  result.times.reduce = watch.lap();

  // An update without a single target leaves everything as it is, by a gradient of zero.
  const at::Tensor count = sums[kTargets].clamp_min(1.0);
  const auto facts = optim::gradient_facts(gradient, count, clip_norm_);
  at::Tensor master = parameters_.master();
  optimizer_.step(master, gradient, {plan.lr, plan.beta1, plan.beta2, plan.eps, plan.weight_decay},
                  facts);
  parameters_.refresh();
  // Only here does the host wait for the device, and with a deadline: the copy itself has none.
  world_.device.wait();
  const at::Tensor host = at::stack({sums[kLoss] / count, sums[kTargets], sums[kTokens],
                                     facts.norm.to(at::kDouble), facts.skip.to(at::kDouble)})
                              .cpu();
  const double* values = host.const_data_ptr<double>();
  result.facts = {plan.step, values[0], values[3], values[4] == 0.0, agreed.elapsed_minutes};
  result.targets = static_cast<std::int64_t>(values[1]);
  result.tokens = static_cast<std::int64_t>(values[2]);
  result.times.optimizer = watch.lap();
  result.times.total = total.lap();
  return result;
}

}  // namespace lorascale::train
