#include "train/update.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "train/first_time.hpp"
#include "train/stopwatch.hpp"
#include "train/tensor_memory.hpp"

namespace lorascale::train {
namespace {

// What a leaf is known by: a row of a table over all leaves. Rows of other ranks are zero until the
// ranks' tables are added up, which is exact, so no fact depends on the number of ranks.
enum Fact : std::int64_t { kLoss, kTargets, kUnits, kFacts };

bool measures_noise(const config::RunConfig& config) {
  return config.noise.horizon.value > 0;
}

bool measures_times(const config::RunConfig& config) {
  return config.batch.policy == coordinator::BatchPolicyKind::kGoodput;
}

// Sum over leaves of (loss - mean * targets)^2, a scalar on the device.
at::Tensor leaf_scatter(const at::Tensor& leaf_facts, const at::Tensor& mean) {
  return (leaf_facts.select(1, kLoss) - mean * leaf_facts.select(1, kTargets)).square().sum();
}

// Standard error of a ratio of two sums over K random leaves, loss over targets (Cochran 1977,
// chapter 6): sqrt(K / (K - 1) * scatter) / targets.
double loss_error(double scatter, double leaves, double targets) {
  return leaves > 1 ? std::sqrt(leaves / (leaves - 1) * scatter) / targets : 0;
}

constexpr std::int64_t kSmall = 4096;          // floats of all that is small
constexpr std::int64_t kSmallBlock = 1 << 18;  // floats: the largest that libtorch calls small

optim::AverageShare average_share(const coordinator::StepPlan& plan) {
  if (plan.swa) {
    return {1, 1};
  }
  return plan.ema_rho > 0 ? optim::AverageShare{plan.ema_rho, 1 - plan.ema_rho}
                          : optim::AverageShare{};
}

}  // namespace

Updater::Updater(World& world, const Session& session, FaultInjector& faults)
    : world_(world),
      model_(session.model()),
      adapter_(*session.adapter),
      parameters_(session.parameters()),
      optimizer_(*session.optimizer),
      faults_(faults),
      measures_times_(measures_times(session.config)),
      gradient_sum_(make_gradient_sum(session.config.run.reduction, measures_noise(session.config),
                                      world, parameters_.gradient())),
      clip_norm_(session.config.optimizer.clip_norm) {
  if (measures_noise(session.config)) {
    noise_.emplace(parameters_, optimizer_);
    columns_.noise = noise_->columns();
  }
  columns_.measures = 2 * static_cast<std::int64_t>(model_.measure_names().size());
  const at::Tensor statistics = model_.statistics();
  columns_.statistics = statistics.defined() ? statistics.numel() : 0;
}

// Leaf `index` of the update.
void Updater::accumulate(const data::Leaf& leaf, std::int64_t index, at::Tensor& leaf_facts,
                         UpdateTimes& times) {
  Stopwatch watch;
  const auto result = model_.accumulate(leaf);
  if (faults_.reach(Phase::kBackward)) {
    at::Tensor(parameters_.gradient()).fill_(std::numeric_limits<float>::quiet_NaN());
  }
  times.compute += watch.lap();
  at::Tensor facts = leaf_facts[index];
  const auto [noise, measures, statistics] = columns_;
  if (noise_) {
    facts.narrow(0, kFacts, noise).copy_(noise_->squares(parameters_.gradient()));
  }
  gradient_sum_->take(index);
  (noise_ ? times.noise : times.compute) += watch.lap();
  facts[kLoss].copy_(result.loss_sum);
  facts[kTargets].fill_(static_cast<double>(result.targets));
  facts[kUnits].fill_(static_cast<double>(leaf.units));
  if (measures > 0) {
    facts.narrow(0, kFacts + noise, measures).copy_(result.measures.flatten());
  }
  if (statistics > 0) {
    facts.narrow(0, kFacts + noise + measures, statistics).copy_(result.statistics);
  }
  times.compute += watch.lap();
}

void Updater::accumulate_all(const coordinator::LeafRange& mine, const NextLeaf& next_leaf,
                             at::Tensor& leaf_facts, UpdateTimes& times) {
  for (auto index = mine.begin; index < mine.end; ++index) {
    Stopwatch watch;
    beat("forward and backward");
    const auto leaf = next_leaf();
    times.data_wait += watch.lap();
    if (faults_.reach(Phase::kForward)) {
      leaf->drop_targets();
    }
    accumulate(*leaf, index, leaf_facts, times);
  }
  if (measures_times_) {
    Stopwatch watch;
    world_.device.wait();  // or the time would be that of launching kernels
    times.compute += watch.lap();
  }
}

// Of the slowest rank, which the others wait for.
void Updater::agree_on_times(const coordinator::LeafRange& mine, const UpdateTimes& times,
                             coordinator::StepFacts* facts) {
  const auto leaves = static_cast<double>(mine.end - mine.begin);
  const double of_leaves = (times.compute + times.noise) / 1000;
  std::array<double, 2> seconds = {times.total / 1000, leaves > 0 ? of_leaves / leaves : 0};
  world_.host.all_reduce(std::span(seconds), comm::ReduceOp::kMax);
  if (!first_) {
    facts->step_seconds = seconds[0];
    facts->leaf_seconds = seconds[1];
  }
  first_ = false;
}

// What stays for the whole update: the gradient and its sums at zero, the metric, and a table with
// a row for each leaf, which it returns.
at::Tensor Updater::begin(std::int64_t leaves, const optim::Hyperparameters& hyper,
                          std::int64_t updates) {
  gradient_sum_->begin(leaves);
  if (noise_) {
    noise_->begin(hyper, updates);
  }
  const auto [noise, measures, statistics] = columns_;
  return at::zeros({leaves, kFacts + noise + measures + statistics},
                   parameters_.gradient().options().dtype(at::kDouble));
}

// After the vote nothing may fail on one rank alone: the optimizer would have moved on the others.
// What the sum over ranks, the noise of the whole and the optimizer need for a moment is asked for
// now, and given back to whoever comes next.
void Updater::reserve_for_the_rest() {
  const auto gradient = parameters_.gradient();
  const at::Tensor reserved = at::empty(
      {optim::kStepTemporaries * gradient.numel() + gradient_sum_->temporary_elements() + kSmall},
      gradient.options());
  if (!gradient.is_cpu()) {
    // The device's allocator takes small tensors from blocks of their own.
    const at::Tensor scalars = at::empty({kSmallBlock}, gradient.options());
  }
}

std::vector<coordinator::GroupNorms> Updater::noise_facts(const at::Tensor& table,
                                                          const at::Tensor& whole) const {
  std::vector<std::vector<double>> rows;
  std::vector<double> targets;
  for (std::int64_t leaf = 0; leaf < table.size(0); ++leaf) {
    const double* row = table.const_data_ptr<double>() + leaf * table.size(1);
    targets.push_back(row[kTargets]);
    rows.emplace_back(row + kFacts, row + kFacts + noise_->columns());
  }
  const double* first = whole.const_data_ptr<double>();
  return noise_->facts(rows, targets, {first, first + whole.numel()});
}

void Updater::read_measures(const at::Tensor& sums, UpdateResult* result) const {
  const auto names = model_.measure_names();
  if (names.empty() || result->targets == 0) {
    return;
  }
  const at::Tensor host = sums.narrow(0, kFacts + columns_.noise, columns_.measures).cpu();
  const double* sum = host.const_data_ptr<double>();
  for (const auto& name : names) {
    result->measures.emplace_back(name, sum[0] / sum[1]);
    sum += 2;
  }
}

Rehearsal Updater::rehearse(const data::Leaf& leaf, std::int64_t leaves,
                            const coordinator::LeafRange& mine) {
  LS_ASSERT(mine.begin < mine.end && mine.end <= leaves);
  const at::NoGradGuard no_grad;
  struct Forget {
    Updater& updater;
    ~Forget() {
      updater.gradient_sum_->begin(0);
      if (updater.noise_) {
        updater.noise_->forget_metric();
      }
    }
  } const forget{*this};
  const auto options = parameters_.gradient().options();
  Rehearsal result;
  at::Tensor leaf_facts = begin(leaves, {}, NoiseMeter::kHistory);
  std::int64_t most = 0;  // kept of the leaves before, while the fullest one is computed
  for (auto end = mine.begin; end < mine.end; ++end) {
    most = std::max(most, gradient_sum_->kept_elements(mine.begin, end));
  }
  {
    const at::Tensor kept = at::empty({most}, options);
    reset_peak_memory(world_.place);
    UpdateTimes times;
    beat("forward and backward");
    faults_.reach(Phase::kForward);
    accumulate(leaf, mine.begin, leaf_facts, times);
    Stopwatch watch;
    const at::Tensor done = leaf_facts[mine.begin].cpu();  // waits for the device
    result.seconds = (times.compute + times.noise + watch.lap()) / 1000;
    result.compute = static_cast<double>(tensor_memory(world_.place).peak);
  }
  // The first of them has been taken and is there already.
  const at::Tensor kept = at::empty({gradient_sum_->kept_elements(mine.begin, mine.end) -
                                     gradient_sum_->kept_elements(mine.begin, mine.begin + 1)},
                                    options);
  reset_peak_memory(world_.place);
  faults_.reach(Phase::kOptimizer);
  reserve_for_the_rest();
  result.rest = static_cast<double>(tensor_memory(world_.place).peak);
  return result;
}

UpdateResult Updater::run(const coordinator::StepPlan& plan, const coordinator::LeafRange& mine,
                          const NextLeaf& next_leaf, const std::function<Ballot()>& ballot) {
  const at::NoGradGuard no_grad;
  Stopwatch total;
  set_current_step(plan.step);
  std::optional<FirstTime> first_time;
  if (!world_.place.is_cpu()) {
    warm_up(plan.leaves);
    if (!std::exchange(ran_, true)) {
      first_time.emplace(world_, "first update");
    }
  }
  UpdateResult result;
  at::Tensor gradient = parameters_.gradient();
  const optim::Hyperparameters hyper{plan.lr,  plan.beta1,        plan.beta2,
                                     plan.eps, plan.weight_decay, average_share(plan)};
  at::Tensor leaf_facts;
  Ballot own;
  const auto error = attempt(
      [&] {
        Stopwatch watch;
        leaf_facts = begin(plan.leaves, hyper, plan.step - 1);
        (noise_ ? result.times.noise : result.times.compute) += watch.lap();
        accumulate_all(mine, next_leaf, leaf_facts, result.times);
        faults_.reach(Phase::kOptimizer);
        reserve_for_the_rest();
      },
      &own.out_of_memory);
  Stopwatch watch;
  const Ballot asked = ballot();
  own.stop_requested = asked.stop_requested;
  own.elapsed_minutes = asked.elapsed_minutes;
  const Agreement agreed = vote(world_.host, own, error);
  result.stop_requested = agreed.stop_requested;
  if (agreed.out_of_memory > 0) {
    result.out_of_memory = {plan.step, agreed.out_of_memory, agreed.first_rank};
    return result;
  }
  result.times.vote = watch.lap();

  gradient_sum_->reduce(leaf_facts);
  const at::Tensor sums = leaf_facts.sum(0);
  result.times.reduce = watch.lap();

  // Without a single target the mean loss is no number, and the mean gradient's norm neither: the
  // update is skipped, as one that is not finite.
  const at::Tensor count = sums[kTargets];
  const at::Tensor scatter = leaf_scatter(leaf_facts, sums[kLoss] / count);
  const auto facts = optim::gradient_facts(gradient, count, clip_norm_);
  at::Tensor master = parameters_.master();
  result.times.optimizer = watch.lap();
  const at::Tensor whole = noise_ ? noise_->squares(gradient) : at::Tensor();
  result.times.noise += watch.lap();
  optimizer_.step(master, gradient, hyper, facts);
  adapter_.constrain();
  parameters_.refresh();
  const auto [noise, measures, statistics] = columns_;
  if (statistics > 0) {
    const at::Tensor of_update = sums.narrow(0, kFacts + noise + measures, statistics);
    model_.move_statistics((of_update / static_cast<double>(plan.samples)).to(at::kFloat),
                           facts.skip.to(at::kBool));
  }
  // Running means that are no numbers never become any again: the run has diverged, whatever the
  // loss.
  const at::Tensor means = model_.statistics();
  const at::Tensor finite = means.defined() ? means.isfinite().all() : at::ones_like(facts.skip);
  // Only here does the host wait for the device, and with a deadline: the copy itself has none.
  world_.device.wait();
  const at::Tensor host =
      at::stack({sums[kLoss] / count, sums[kTargets], sums[kUnits], facts.norm.to(at::kDouble),
                 facts.skip.to(at::kDouble), scatter, leaf_facts.select(1, kTargets).gt(0).sum(),
                 finite.to(at::kDouble)})
          .cpu();
  const double* values = host.const_data_ptr<double>();
  result.facts.step = plan.step;
  result.facts.loss = values[7] != 0.0 ? values[0] : std::numeric_limits<double>::quiet_NaN();
  result.facts.grad_norm = values[3];
  result.facts.applied = values[4] == 0.0;
  result.facts.elapsed_minutes = agreed.elapsed_minutes;
  result.facts.loss_error = loss_error(values[5], values[6], values[1]);
  result.targets = static_cast<std::int64_t>(values[1]);
  result.facts.without_targets = result.targets == 0;
  result.units = static_cast<std::int64_t>(values[2]);
  read_measures(sums, &result);
  result.times.optimizer += watch.lap();
  if (noise_) {
    result.facts.noise = noise_facts(leaf_facts.cpu(), whole.cpu());
    result.times.noise += watch.lap();
  }
  result.times.total = total.lap();
  if (measures_times_) {
    agree_on_times(mine, result.times, &result.facts);
  }
  return result;
}

}  // namespace lorascale::train
