#include "coordinator/replay.hpp"

#include <limits>

#include "coordinator/decision_log.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::expect_error;
using testing::facts_of;
using testing::small_recipe;

std::string text_of(const std::vector<Decision>& decisions) {
  std::string text;
  for (const Decision& decision : decisions) {
    text += to_json_line(decision) + "\n";
  }
  return text;
}

struct RecordedRun {
  std::vector<RecordedEvent> events;
  std::vector<Decision> decisions;
  std::uint64_t state_hash = 0;
  std::string state;
};

void keep(std::vector<Decision>& all, std::vector<Decision> more) {
  all.insert(all.end(), more.begin(), more.end());
}

// A run with skipped updates, validations, and a stop after which it goes on with other ranks and
// leaves.
RecordedRun recorded_run() {
  RecordedRun run;
  Coordinator coordinator(small_recipe(), 4);
  Recorder recorder(small_recipe());
  const LeafFacts leaf{0, small_recipe().leaf_size, 16, 2, 3e7, 2.5e7, 1.1e7, 0.1, 1e6};
  coordinator.on_leaf_measured(leaf);
  run.events.push_back(recorder.record(leaf));
  while (const auto plan = coordinator.next_step()) {
    if (plan->step == 11 || plan->step == 30) {
      const MemoryFacts memory{plan->step, 2, 1};
      coordinator.on_out_of_memory(memory);
      run.events.push_back(recorder.record(memory));
    }
    StepFacts facts = facts_of(plan->step);
    if (plan->step % 9 == 0) {
      facts.applied = false;
      facts.loss = std::numeric_limits<double>::quiet_NaN();
      facts.grad_norm = std::numeric_limits<double>::infinity();
    }
    coordinator.on_step(facts);
    run.events.push_back(recorder.record(facts));
    if (plan->step % 5 == 0) {
      const EvaluationFacts evaluation{plan->step, facts_of(plan->step).loss};
      coordinator.on_evaluation(evaluation);
      run.events.push_back(recorder.record(evaluation));
    }
    if (plan->step == 23) {
      keep(run.decisions, coordinator.take_decisions());
      Recipe recipe = small_recipe();
      recipe.leaf_size = 8;
      recipe.budget_minutes = 100;
      coordinator = Coordinator::restore(recipe, 2, coordinator.state());
      recorder = Recorder(recorder.chain());
      run.events.push_back(recorder.record(ResumeFacts{23, 2, 8, recipe.budget_samples, 100}));
    }
  }
  keep(run.decisions, coordinator.take_decisions());
  run.state_hash = coordinator.state_hash();
  run.state = coordinator.state();
  return run;
}

// V25, I11: the recorded facts give the same state and the same log, byte for byte.
TEST(Replay, V25SameStateAndSameLog) {
  const RecordedRun run = recorded_run();
  ASSERT_EQ(run.events.size(), 48U + 9 + 1 + 2 + 1);
  const ReplayResult again = replay(small_recipe(), 4, run.events);
  EXPECT_EQ(again.state_hash, run.state_hash);
  EXPECT_EQ(again.state, run.state);
  EXPECT_EQ(text_of(again.decisions), text_of(run.decisions));
  EXPECT_FALSE(first_broken_link(again.decisions));
}

TEST(Replay, V25ThroughLinesOfText) {
  const RecordedRun run = recorded_run();
  std::vector<RecordedEvent> read;
  for (const RecordedEvent& event : run.events) {
    const std::string line = to_json_line(event);
    read.push_back(event_from_json_line(line));
    EXPECT_EQ(to_json_line(read.back()), line);
  }
  EXPECT_EQ(text_of(replay(small_recipe(), 4, read).decisions), text_of(run.decisions));
}

// V25: any event changed by the least amount, left out, doubled or moved is found, and named.
TEST(Replay, V25TamperingIsDetected) {
  const RecordedRun run = recorded_run();
  for (std::size_t i = 0; i < run.events.size(); ++i) {
    auto changed = run.events;
    std::visit(
        [](auto& facts) {
          if constexpr (requires { facts.loss; }) {
            facts.loss = facts.loss > 0 ? std::nextafter(facts.loss, 9) : 1;
          } else if constexpr (requires { facts.world_size; }) {
            facts.world_size += 1;
          } else {
            facts.rank += 1;
          }
        },
        changed[i].event);
    const std::string name = "event " + std::to_string(i + 1) + " of the record does not follow";
    expect_error(ExitCode::kBadInput, {name.c_str()}, [&] { replay(small_recipe(), 4, changed); });
    auto missing = run.events;
    missing.erase(missing.begin() + static_cast<std::ptrdiff_t>(i));
    if (i + 1 < run.events.size()) {
      expect_error(ExitCode::kBadInput, {name.c_str()},
                   [&] { replay(small_recipe(), 4, missing); });
      auto swapped = run.events;
      std::swap(swapped[i], swapped[i + 1]);
      expect_error(ExitCode::kBadInput, {name.c_str()},
                   [&] { replay(small_recipe(), 4, swapped); });
    } else {  // cut off at the end: the chain cannot show it, the state hash does
      EXPECT_NE(replay(small_recipe(), 4, missing).state_hash, run.state_hash);
    }
  }
}

TEST(Replay, ARecordBelongsToItsRecipe) {
  const RecordedRun run = recorded_run();
  Recipe recipe = small_recipe();
  recipe.lr *= 2;
  expect_error(ExitCode::kBadInput, {"event 1 of the record", "another run"},
               [&] { replay(recipe, 4, run.events); });
}

// Events that are chained correctly and yet cannot have happened.
TEST(Replay, RefusesImpossibleEvents) {
  const auto refuse = [](const char* words, std::initializer_list<Event> events) {
    Recipe recipe = small_recipe();
    recipe.budget_samples = 64;
    recipe.warmup_samples = 0;
    Recorder recorder(recipe);
    std::vector<RecordedEvent> recorded;
    for (const Event& event : events) {
      recorded.push_back(recorder.record(event));
    }
    expect_error(ExitCode::kBadInput, {words}, [&] { replay(recipe, 1, recorded); });
  };
  refuse("reports step 2 where step 1 was due", {facts_of(2)});
  refuse("reports step 2 of a run that is over", {facts_of(1), facts_of(2)});
  refuse("evaluates step 1 after step 0", {EvaluationFacts{1, 2.0}});
  refuse("resumes after step 3 instead of 0", {ResumeFacts{3, 1, 1, 64, 0}});
}

TEST(Replay, RefusesDamagedLines) {
  for (const char* line : {"", "{}", "{\"event\":\"step\",\"step\":1}", "{\"event\":1}"}) {
    expect_error(ExitCode::kBadInput, {"event record is damaged"},
                 [&] { event_from_json_line(line); });
  }
  expect_error(ExitCode::kBadInput, {"'party'"},
               [] { event_from_json_line("{\"event\":\"party\",\"step\":1}"); });
}

}  // namespace
}  // namespace lorascale::coordinator
