#include "coordinator/record/replay.hpp"

#include <limits>

#include "coordinator/record/decision_log.hpp"
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
      if (plan->step == 15) {
        using Task = AsideMemoryFacts::Task;
        for (const AsideMemoryFacts memory :
             {AsideMemoryFacts{15, Task::kValidation, 2, 1, 4}, {15, Task::kSampling, 1, 0, 0}}) {
          coordinator.on_aside_out_of_memory(memory);
          run.events.push_back(recorder.record(memory));
        }
      }
      coordinator.on_evaluation(evaluation);
      run.events.push_back(recorder.record(evaluation));
      const PreviewFacts preview{plan->step,
                                 {{"seeds_distance", 0.1 + 0.2, "a \"cat\""}, {"b", 1}}};
      coordinator.on_preview(preview);
      run.events.push_back(recorder.record(preview));
    }
    if (plan->step == 23) {
      keep(run.decisions, coordinator.take_decisions());
      Recipe recipe = small_recipe();
      recipe.leaf_size = 8;
      recipe.budget_minutes = 100;
      coordinator = Coordinator::restore(recipe, 2, coordinator.state());
      recorder = Recorder(recorder.chain());
      run.events.push_back(recorder.record(resume_facts(coordinator)));
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
  ASSERT_EQ(run.events.size(), 48U + 9 + 9 + 1 + 2 + 2 + 1);
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
          } else if constexpr (requires { facts.state; }) {
            facts.state += " ";
          } else {
            facts.step += 1;
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
  refuse("runs out of memory beside step 3 after step 0",
         {AsideMemoryFacts{3, AsideMemoryFacts::Task::kSampling, 1, 0, 0}});
  refuse("resumes after step 3 instead of 0", {ResumeFacts{3, 1, 1, 64, 0}});
}

// A run that is never finite from update 13 to 22, is back at its checkpoint of step 8, and then
// goes on; the next trouble takes it back to the same place, for the checkpoint of step 16 is lost.
RecordedRun recorded_recovery(std::vector<std::string>* states) {
  Recipe recipe = small_recipe();
  recipe.max_recoveries = 2;
  recipe.recovery_warmup_samples = 200;
  RecordedRun run;
  Coordinator coordinator(recipe, 4);
  Recorder recorder(recipe);
  std::string saved;
  while (const auto plan = coordinator.next_step()) {
    StepFacts facts = facts_of(plan->step);
    facts.applied = plan->step < 13 || plan->step > 22 || coordinator.recoveries() == 2;
    coordinator.on_step(facts);
    run.events.push_back(recorder.record(facts));
    if (plan->step == 8 && coordinator.recoveries() == 0) {
      saved = coordinator.state();
    }
    if (coordinator.recovery_due()) {
      coordinator.recover(saved);
      run.events.push_back(recorder.record(RecoveryFacts{8, saved}));
      saved = coordinator.state();
      states->push_back(saved);
    }
  }
  keep(run.decisions, coordinator.take_decisions());
  run.state_hash = coordinator.state_hash();
  run.state = coordinator.state();
  return run;
}

// V25 over recoveries, and through lines of text.
TEST(Replay, V25RecoveriesAreReplayed) {
  Recipe recipe = small_recipe();
  recipe.max_recoveries = 2;
  recipe.recovery_warmup_samples = 200;
  std::vector<std::string> states;
  const RecordedRun run = recorded_recovery(&states);
  ASSERT_EQ(states.size(), 2U);
  std::vector<RecordedEvent> read;
  for (const RecordedEvent& event : run.events) {
    read.push_back(event_from_json_line(to_json_line(event)));
  }
  const ReplayResult again = replay(recipe, 4, read);
  EXPECT_EQ(again.state_hash, run.state_hash);
  EXPECT_EQ(again.state, run.state);
  EXPECT_EQ(text_of(again.decisions), text_of(run.decisions));
  EXPECT_FALSE(first_broken_link(again.decisions));
}

// Correctly chained records of recoveries that cannot have been.
TEST(Replay, RefusesRecoveriesThatCannotHaveBeen) {
  Recipe recipe = small_recipe();
  recipe.max_recoveries = 1;
  const auto refuse = [&](const char* words, bool diverged, std::int64_t step,
                          const std::string& state) {
    Recorder recorder(recipe);
    std::vector<RecordedEvent> events;
    for (std::int64_t i = 1; i <= 10; ++i) {
      StepFacts facts = facts_of(i);
      facts.applied = !diverged;
      events.push_back(recorder.record(facts));
    }
    events.push_back(recorder.record(RecoveryFacts{step, state}));
    expect_error(ExitCode::kBadInput, {"event 11 of the record", words},
                 [&] { replay(recipe, 1, events); });
  };
  Coordinator coordinator(recipe, 1);
  StepFacts facts = facts_of(1);
  facts.applied = false;
  coordinator.on_step(facts);
  const std::string first = coordinator.state();
  refuse("had no cause to", false, 1, first);
  refuse("where the run was not", true, 12, first);
  refuse("did not have there", true, 2, first);
  facts = facts_of(2);
  coordinator.on_step(facts);
  refuse("did not have there", true, 2, coordinator.state());
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
