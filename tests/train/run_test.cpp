// What the coordinator of a run is told and what is recorded of it are the same.
#include "train/run.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <fstream>
#include <limits>
#include <variant>

#include "comm/mpi_communicator.hpp"
#include "support/rank_folder.hpp"
#include "train/regression.hpp"

namespace lorascale::train {
namespace {

coordinator::Recipe recipe() {
  coordinator::Recipe recipe;
  recipe.seed = 7;
  recipe.samples_per_epoch = 80;
  recipe.global_batch = 8;
  recipe.reference_batch = 8;
  recipe.leaf_size = 4;
  recipe.budget_samples = 240;
  recipe.patience = 3;
  return recipe;
}

class RunTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { spdlog::set_level(spdlog::level::off); }
  RunTest() {
    config::RunConfig config;
    config.run.output_dir = folder_.path();
    session_ = test::regression_session(config);
    run_.emplace(world_, session_);
    run_->coordinator.emplace(recipe(), host_.size());
    run_->record.open(*run_->coordinator, session_.workload->words(), /*resumed=*/false);
  }

  coordinator::StepFacts step() {
    coordinator::StepFacts facts;
    facts.step = run_->coordinator->next_step()->step;
    facts.loss = 1 + 1.0 / static_cast<double>(facts.step);
    facts.grad_norm = 0.5;
    facts.elapsed_minutes = 0.25 * static_cast<double>(facts.step);
    return facts;
  }
  // What is on record; on other ranks than 0 what was told is all there is.
  std::vector<coordinator::RecordedEvent> recorded() {
    std::vector<coordinator::RecordedEvent> events;
    std::ifstream file(folder_ / "events.jsonl");
    for (std::string line; std::getline(file, line);) {
      events.push_back(coordinator::event_from_json_line(line));
    }
    return events;
  }
  // Written lines after everybody has told: rank 0 alone writes them.
  std::size_t lines() {
    host_.barrier();
    const auto count = recorded().size();
    host_.barrier();
    return count;
  }

  comm::MpiCommunicator host_{30};
  World world_{host_, host_, at::kCPU, "here"};
  lorascale::test::RankFolder folder_{host_};
  Session session_;
  std::optional<train::Run> run_;  // testing::Test has a Run of its own
};

// Every kind of event once: it reaches the coordinator and the record, in order, and the record
// leads a coordinator to the same state.
TEST_F(RunTest, TellsAndRecordsEveryEventOnce) {
  auto& coordinator = *run_->coordinator;
  const std::string state_of_start = coordinator.state();
  EXPECT_TRUE(run_->tell(coordinator::LeafFacts{0, 4, 4, 0, 1e9, 1e8, 1e7, 1e6, 1e5, {}}));
  EXPECT_TRUE(run_->tell(coordinator::EvaluationFacts{0, 2.5})) << "the first is the best";
  EXPECT_TRUE(run_->tell(step()));
  EXPECT_EQ(coordinator.steps_done(), 1);
  EXPECT_TRUE(run_->tell(coordinator::MemoryFacts{2, 1, 0}));
  EXPECT_EQ(coordinator.next_step()->leaf_size, 2);
  EXPECT_TRUE(run_->tell(step()));
  EXPECT_TRUE(run_->tell(coordinator::MovementFacts{2, 0.01}));
  EXPECT_FALSE(run_->tell(coordinator::EvaluationFacts{2, 3.5})) << "no better";
  EXPECT_EQ(coordinator.best_validation_step(), 0);
  run_->tell_aside_out_of_memory({77, coordinator::AsideMemoryFacts::Task::kSampling, 1, 0, 0});
  EXPECT_EQ(coordinator.events(), 8);
  EXPECT_EQ(lines(), 8U);

  const auto events = recorded();
  std::vector<std::size_t> kinds;
  for (const auto& [event, chain] : events) {
    kinds.push_back(event.index());
  }
  const auto index = [](const coordinator::Event& event) { return event.index(); };
  EXPECT_EQ(kinds,
            (std::vector<std::size_t>{
                index(coordinator::LeafFacts{}), index(coordinator::EvaluationFacts{}),
                index(coordinator::StepFacts{}), index(coordinator::MemoryFacts{}),
                index(coordinator::StepFacts{}), index(coordinator::MovementFacts{}),
                index(coordinator::EvaluationFacts{}), index(coordinator::AsideMemoryFacts{})}));
  EXPECT_EQ(std::get<coordinator::AsideMemoryFacts>(events.back().event).step, 2)
      << "filled in by the run";
  EXPECT_EQ(std::get<coordinator::StepFacts>(events[4].event).loss, 1.5);
  const auto replayed = coordinator::replay(recipe(), host_.size(), events);
  EXPECT_EQ(replayed.state_hash, coordinator.state_hash());
  EXPECT_EQ(replayed.state, coordinator.state());
  EXPECT_NE(replayed.state, state_of_start);
}

// The run ends by it, so it is no part of what a replay has to go through.
TEST_F(RunTest, DoesNotRecordWhatCannotBeActedUpon) {
  EXPECT_TRUE(run_->tell(coordinator::MemoryFacts{1, 1, 0}));  // leaf 4 -> 2
  EXPECT_TRUE(run_->tell(coordinator::MemoryFacts{1, 1, 0}));  // -> 1
  EXPECT_TRUE(run_->tell(coordinator::MemoryFacts{1, 1, 0}));  // once more in leaves of one
  EXPECT_EQ(lines(), 3U);
  const auto hash = run_->coordinator->state_hash();
  EXPECT_FALSE(run_->tell(coordinator::MemoryFacts{1, 1, 0}));
  EXPECT_EQ(run_->coordinator->events(), 3);
  EXPECT_EQ(lines(), 3U);
  EXPECT_EQ(run_->coordinator->state_hash(), hash);
  const auto events = recorded();
  EXPECT_EQ(coordinator::replay(recipe(), host_.size(), events).state, run_->coordinator->state());
}

// A run that has diverged goes back to a checkpoint: the state in it is told, and on record.
TEST_F(RunTest, RecordsAWayBackWithItsState) {
  auto chosen = recipe();
  chosen.max_recoveries = 1;
  chosen.max_skipped_in_row = 2;
  run_->coordinator.emplace(chosen, host_.size());
  run_->record.open(*run_->coordinator, session_.workload->words(), /*resumed=*/false);
  run_->tell(step());
  const std::string checkpoint = run_->coordinator->state();
  while (!run_->coordinator->recovery_due()) {
    auto facts = step();
    facts.applied = false;
    facts.grad_norm = std::numeric_limits<double>::quiet_NaN();
    ASSERT_TRUE(run_->tell(facts));
    ASSERT_LT(run_->coordinator->steps_done(), 10);
  }
  EXPECT_TRUE(run_->tell(coordinator::RecoveryFacts{1, checkpoint}));
  EXPECT_EQ(run_->coordinator->steps_done(), 1);
  EXPECT_EQ(run_->coordinator->recoveries(), 1);
  run_->tell(step());
  EXPECT_EQ(lines(), static_cast<std::size_t>(run_->coordinator->events()));
  const auto events = recorded();
  EXPECT_EQ(coordinator::replay(chosen, host_.size(), events).state_hash,
            run_->coordinator->state_hash());
}

TEST_F(RunTest, KnowsHowFarItIs) {
  run_->tell(step());
  run_->tell(step());
  const auto progress = run_->progress();
  EXPECT_EQ(progress.steps, 2);
  EXPECT_EQ(progress.samples, 16);
  EXPECT_EQ(progress.elapsed_minutes, 0.5);
}

}  // namespace
}  // namespace lorascale::train
