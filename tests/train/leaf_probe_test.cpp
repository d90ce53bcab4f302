// Leaves are measured under limits that differ between ranks, on 1 to 3 ranks: nobody hangs,
// nothing that training starts from changes, and what was measured is what an update takes.
#include "train/leaf_probe.hpp"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <fstream>

#include "comm/local_communicator.hpp"
#include "comm/mpi_communicator.hpp"
#include "coordinator/coordinator.hpp"
#include "support/rank_folder.hpp"
#include "train/first_time.hpp"
#include "train/tensor_memory.hpp"

namespace lorascale::train {
namespace {

constexpr std::int64_t kBatch = 24;
constexpr std::int64_t kLength = 96;
constexpr auto kAll = coordinator::LeafAim::kAll;

class LeafProbeTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { count_cpu_tensors(); }
  LeafProbeTest() {
    const std::string folder = folder_.path().string();
    if (host_.rank() == 0) {
      const auto script = folder_ / "make.py";
      std::ofstream(script) << "import h5py, numpy as np\n"
                               "with h5py.File(r'"
                            << folder
                            << "/train.h5', 'w') as f:\n"
                               "  f.attrs.update({'format': 'lorascale-tokens', 'version': 1,\n"
                               "                  'vocab_size': 256, 'eos_id': -1})\n"
                               "  n = np.array([60 + 5 * i % 60 for i in range(60)])\n"
                               "  f['tokens'] = np.arange(n.sum()).astype(np.uint16) % 256\n"
                               "  f['offsets'] = np.append([0], np.cumsum(n)).astype(np.int64)\n";
      EXPECT_EQ(std::system((std::string(LORASCALE_PYTHON) + " " + script.string()).c_str()), 0);
    }
    host_.barrier();
    config_.run.output_dir = folder + "/run";
    config_.model.path = std::string(LORASCALE_SOURCE_DIR) + "/scripts/demo/base-model";
    config_.model.dtype = "fp32";
    config_.data.train = folder + "/train.h5";
    config_.data.sequence_length = kLength;
    config_.data.packing = false;
    config_.batch.global = kBatch;
    config_.budget = {10, Unit::kSteps};
  }
  ~LeafProbeTest() override { limit_cpu_tensors(0); }

  void open() {
    session_.emplace(open_session(world_, config_, prepare::as_named(config_)));
    faults_.emplace(config_.faults, host_.rank());
    updater_.emplace(world_, *session_, *faults_);
  }
  coordinator::LeafTable measure(std::vector<std::int64_t> usable,
                                 coordinator::LeafAim aim = coordinator::LeafAim::kLargest) {
    return measure_leaves(world_, *session_, *updater_, session_->recipe,
                          {std::move(usable), aim, host_.size()});
  }
  // An update of the longest rows on every rank, as rehearsed.
  UpdateResult update(std::int64_t leaf_size, std::int64_t step) {
    coordinator::StepPlan plan;
    plan.step = step;
    plan.samples = config_.batch.global;
    plan.leaf_size = leaf_size;
    plan.leaves = config_.batch.global / leaf_size;
    plan.lr = 1e-3;
    plan.beta1 = 0.9;
    plan.beta2 = 0.999;
    plan.eps = 1e-8;
    return updater_->run(
        plan, coordinator::leaves_of_rank(plan.leaves, host_.rank(), host_.size()),
        [&] {
          return data::heaviest_leaf(session_->workload->train(), session_->key(), leaf_size);
        },
        [] { return Ballot{}; });
  }
  bool last() { return host_.rank() == host_.size() - 1; }

  comm::MpiCommunicator host_{30};
  World world_{host_, host_, at::kCPU, "here"};
  test::RankFolder folder_{host_};
  config::RunConfig config_;
  std::optional<Session> session_;
  std::optional<FaultInjector> faults_;
  std::optional<Updater> updater_;
};

// Every kind of state, and every way to add up: not a bit changes, and an update that follows is
// the one that would have been.
TEST_F(LeafProbeTest, WarmingUpChangesNothing) {
  for (const bool all : {false, true}) {
    config_.run.reduction = all ? config::Reduction::kExact : config::Reduction::kFast;
    config_.average.name = all ? config::Average::kEma : config::Average::kNone;
    config_.noise.horizon = {all ? 48.0 : 0.0, Unit::kSamples};
    std::vector<at::Tensor> cold, warm;
    for (auto* states : {&cold, &warm}) {
      open();
      EXPECT_FALSE(update(4, 1).out_of_memory);
      if (states == &warm) {
        updater_->warm_up(kBatch / 4);
      }
      EXPECT_FALSE(update(4, 2).out_of_memory);
      states->push_back(session_->parameters().master().clone());
      for (const auto& state : session_->optimizer->state()) {
        states->push_back(state.tensor.clone());
      }
    }
    ASSERT_EQ(cold.size(), warm.size());
    for (std::size_t i = 0; i < cold.size(); ++i) {
      EXPECT_TRUE(at::equal(cold[i], warm[i])) << "tensor " << i << (all ? ", exact" : ", fast");
    }
  }
}

TEST_F(LeafProbeTest, TheFirstTimeIsWaitedForLonger) {
  {
    comm::LocalCommunicator device;
    device.set_deadline(20);
    World world{host_, device, at::kCPU, "here"};
    {
      const FirstTime first_time(world, "warming up");
      EXPECT_EQ(host_.deadline_seconds(), 150);
      EXPECT_EQ(device.deadline_seconds(), 100);
    }
    EXPECT_EQ(device.deadline_seconds(), 20);
    const FirstTime first_time(world_, "warming up");  // one way for both
    EXPECT_EQ(host_.deadline_seconds(), 150);
    EXPECT_STREQ(last_heartbeat().phase, "warming up");
  }
  EXPECT_EQ(host_.deadline_seconds(), 30);
}

// Where one rank has no memory for what follows the vote, all say so before the first update.
TEST_F(LeafProbeTest, WarmingUpWithoutMemoryIsRefusedOnAllRanks) {
  open();
  if (last()) {
    limit_cpu_tensors(tensor_memory(at::kCPU).now + session_->parameters().size());
  }
  testing::internal::CaptureStderr();
  try {
    updater_->warm_up(kBatch);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    EXPECT_THAT(error.what(), testing::HasSubstr("out of memory"));
  }
  testing::internal::GetCapturedStderr();
  limit_cpu_tensors(0);
}

// Collectives as a device has them, on the host: what they wait for takes a while.
class SlowDevice : public comm::MpiCommunicator {
 public:
  using MpiCommunicator::MpiCommunicator;
  void wait() override {
    ++waits;
    timespec pause{0, 200'000'000};
    nanosleep(&pause, nullptr);
  }
  int waits = 0;
};

// The host only asks for kernels; goodput follows the time that they take.
TEST_F(LeafProbeTest, TimesOfLeavesAreThoseOfTheDevice) {
  SlowDevice device(30);
  World slow{host_, device, at::kCPU, "here"};
  config_.batch.policy = coordinator::BatchPolicyKind::kGoodput;
  open();
  updater_.emplace(slow, *session_, *faults_);
  const auto result = update(4, 1);
  EXPECT_EQ(device.waits, 2) << "after the leaves and at the end";
  EXPECT_GE(result.times.compute, 200);
  EXPECT_GE(result.times.total, 400);
  updater_.reset();  // before the world that it works in
}

TEST_F(LeafProbeTest, TheRankWithTheLeastMemoryDecidesForAll) {
  open();
  const auto free = measure({1, 2, 4, 8}, kAll);
  EXPECT_EQ(free.chosen, coordinator::fastest_leaf(free.speeds()));
  EXPECT_EQ(free.speeds().size(), 4U);
  ASSERT_EQ(free.ranks.size(), static_cast<std::size_t>(host_.size()));
  if (last()) {  // more than a leaf of 4 takes, less than one of 8
    limit_cpu_tensors(static_cast<std::int64_t>((*free.peak(4) + *free.peak(8)) / 2));
  }
  for (const auto aim : {coordinator::LeafAim::kLargest, kAll}) {
    auto tight = measure({1, 2, 4, 8}, aim);
    EXPECT_EQ(tight.speeds().back().leaf_size, 4);
    EXPECT_LE(tight.chosen, 4);
    tight.chosen = 4;
    EXPECT_EQ(tight.tightest(), static_cast<std::size_t>(host_.size() - 1));
    EXPECT_LE(tight.ranks.back().of(4)->peak(), tight.ranks.back().budget);
    EXPECT_FALSE(tight.ranks.back().of(8));
  }
}

TEST_F(LeafProbeTest, NotEvenOneSampleIsAnErrorOfAllRanks) {
  open();
  if (last()) {
    limit_cpu_tensors(tensor_memory(at::kCPU).now + 1000);
  }
  testing::internal::CaptureStderr();
  try {
    static_cast<void>(choose_leaf(world_, *session_, *updater_, session_->recipe, host_.size()));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    EXPECT_THAT(error.what(), testing::HasSubstr("rank " + std::to_string(host_.size() - 1)));
    EXPECT_THAT(error.what(), testing::HasSubstr("model.recompute"));
  }
  testing::internal::GetCapturedStderr();
}

TEST_F(LeafProbeTest, LeavesEverythingAsItWas) {
  config_.adapter.dropout = 0.1;
  config_.noise.horizon = {1000, Unit::kSamples};
  for (const auto reduction : {config::Reduction::kFast, config::Reduction::kExact}) {
    config_.run.reduction = reduction;
    open();
    EXPECT_TRUE(update(2, 1).facts.applied);  // so that the optimizer's state is not zero
    const auto before = session_->parameters().master().clone();
    std::vector<at::Tensor> state;
    for (const auto& [name, tensor] : session_->optimizer->state()) {
      state.push_back(tensor.clone());
    }
    const auto held = tensor_memory(at::kCPU).now;
    const auto peaks = measure({1, 2, 4, 8}, kAll);
    if (last()) {
      limit_cpu_tensors(static_cast<std::int64_t>(*peaks.peak(4)));
    }
    EXPECT_GE(measure({1, 2, 4, 8}).chosen, 2);
    limit_cpu_tensors(0);
    EXPECT_TRUE(at::equal(before, session_->parameters().master()));
    for (std::size_t i = 0; i < state.size(); ++i) {
      EXPECT_TRUE(at::equal(state[i], session_->optimizer->state()[i].tensor));
    }
    EXPECT_LE(tensor_memory(at::kCPU).now, held);  // the metric of the last update is let go
    updater_.reset();
    session_.reset();
  }
}

// Allocations of an update, counted, against those of its rehearsal.
TEST_F(LeafProbeTest, SaysWhatAnUpdateTakes) {
  config_.batch.global = 8;
  for (const std::string kind : {"lora", "full"}) {
    for (const auto reduction : {config::Reduction::kFast, config::Reduction::kExact}) {
      for (const double horizon : {0.0, 1000.0}) {
        config_.adapter.type = kind;
        config_.run.reduction = reduction;
        config_.noise.horizon = {horizon, Unit::kSamples};
        open();
        for (const std::int64_t leaf : {1, 2}) {
          const double expected = *measure({leaf}).peak(leaf);
          EXPECT_TRUE(update(leaf, NoiseMeter::kHistory).facts.applied);  // and then a metric
          // Within exactly that, nothing of an update fails, before or after its vote.
          limit_cpu_tensors(static_cast<std::int64_t>(expected));
          reset_peak_memory(at::kCPU);
          EXPECT_FALSE(update(leaf, NoiseMeter::kHistory + 1).out_of_memory)
              << kind << static_cast<int>(reduction) << horizon;
          const auto peak = static_cast<double>(tensor_memory(at::kCPU).peak);
          EXPECT_LE(peak, expected)
              << kind << static_cast<int>(reduction) << horizon << " leaf " << leaf;
          EXPECT_GE(peak, 0.9 * expected)
              << kind << static_cast<int>(reduction) << horizon << " leaf " << leaf;
          limit_cpu_tensors(0);
        }
        updater_.reset();
        session_.reset();
      }
    }
  }
}

// What an update makes before its first leaf, such as Adam's metric, fails like a leaf: all ranks
// learn of it.
TEST_F(LeafProbeTest, AnUpdateThatRunsOutBeforeItsFirstLeafIsVotedOn) {
  config_.noise.horizon = {1000, Unit::kSamples};
  open();
  if (last()) {
    limit_cpu_tensors(tensor_memory(at::kCPU).now + session_->parameters().size());
  }
  const auto result = update(1, NoiseMeter::kHistory + 1);
  ASSERT_TRUE(result.out_of_memory);
  EXPECT_EQ(result.out_of_memory->ranks, 1);
  EXPECT_EQ(result.out_of_memory->rank, host_.size() - 1);
  limit_cpu_tensors(0);
  EXPECT_TRUE(update(1, NoiseMeter::kHistory + 1).facts.applied);
}

// By memory alone, so that what is chosen is known; by speed it is some leaf that fits.
TEST_F(LeafProbeTest, ARunThatGoesOnKeepsItsLeafWhereItFits) {
  config_.run.reduction = config::Reduction::kExact;
  open();
  auto& recipe = session_->recipe;
  const auto free = measure({1, 2, 4, 8}, kAll);
  recipe.leaf_size = 8;
  const auto state = coordinator::Coordinator(recipe, host_.size()).state();
  recipe.leaf_size = 1;
  EXPECT_FALSE(settle_leaf(world_, *session_, *updater_, &state));
  EXPECT_EQ(recipe.leaf_size, 8);  // no limit
  limit_cpu_tensors(static_cast<std::int64_t>(*free.peak(8)));
  recipe.leaf_size = 1;
  EXPECT_FALSE(settle_leaf(world_, *session_, *updater_, &state));
  EXPECT_EQ(recipe.leaf_size, 8);
  if (last()) {
    limit_cpu_tensors(static_cast<std::int64_t>((*free.peak(4) + *free.peak(8)) / 2));
  }
  const auto chosen = settle_leaf(world_, *session_, *updater_, &state);
  ASSERT_TRUE(chosen);
  EXPECT_EQ(chosen->leaf_size, recipe.leaf_size);
  EXPECT_EQ(chosen->rank, host_.size() - 1);
  EXPECT_TRUE(recipe.leaf_size == 4 || recipe.leaf_size == 6) << recipe.leaf_size;
  EXPECT_TRUE(chosen->speeds.empty());
}

TEST_F(LeafProbeTest, AutoTakesTheFastestThatFitsAndAllRanksAgree) {
  open();
  const auto free = measure({1, 2, 4, 8});
  limit_cpu_tensors(static_cast<std::int64_t>(*free.peak(8)));
  for (const bool limited : {true, false}) {
    limit_cpu_tensors(limited ? static_cast<std::int64_t>(*free.peak(8)) : 0);
    const auto chosen = settle_leaf(world_, *session_, *updater_, nullptr);
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->leaf_size, coordinator::fastest_leaf(chosen->speeds));
    EXPECT_EQ(session_->recipe.leaf_size, chosen->leaf_size);
    EXPECT_EQ(chosen->budget > 0, limited);
    std::array<std::int64_t, 2> all = {chosen->leaf_size, -chosen->leaf_size};
    host_.all_reduce(std::span(all), comm::ReduceOp::kMax);
    EXPECT_EQ(all[0], -all[1]);
    for (const auto& speed : chosen->speeds) {
      EXPECT_TRUE(!limited || speed.leaf_size <= 8);
      EXPECT_GT(speed.samples_per_second, 0);
      EXPECT_GE(speed.noise, 0);
    }
  }
}

}  // namespace
}  // namespace lorascale::train
