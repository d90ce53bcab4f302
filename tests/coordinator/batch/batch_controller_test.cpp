// Batch policies inside a whole run: saved, restored, recorded and replayed like everything else.
#include "coordinator/batch/batch_controller.hpp"

#include "batch_support.hpp"
#include "coordinator/coordinator_impl.hpp"
#include "coordinator/rates/rates.hpp"
#include "coordinator/record/recipe_json.hpp"
#include "coordinator/record/replay.hpp"
#include "simulation/gradient_draws.hpp"

namespace lorascale::coordinator {
namespace {

using testing::expect_error;
using testing::growing_recipe;
using ::testing::HasSubstr;
using testing::kGrowing;
using testing::of_kind;
using testing::small_recipe;
using testing::timed_facts;
using testing::true_times;

struct Trace {
  std::vector<StepPlan> plans;
  std::vector<RecordedEvent> events;
};

Trace run_to(Coordinator& coordinator, std::int64_t end, std::uint64_t noise_seed = 1) {
  Trace trace;
  Recorder recorder(coordinator.recipe());
  while (coordinator.steps_done() < end) {
    const auto plan = coordinator.next_step();
    if (!plan) {
      break;
    }
    trace.plans.push_back(*plan);
    // The same times whatever ranks take part: what is saved must not depend on more.
    StepFacts facts = timed_facts(*plan, 4, true_times(), 0.02, noise_seed);
    facts.applied = plan->step % 11 != 0;
    coordinator.on_step(facts);
    trace.events.push_back(recorder.record(facts));
  }
  return trace;
}

// Numbers of the version that knew no policies: under policy fixed nothing may have changed.
TEST(BatchController, FixedIsWhatItWasBefore) {
  Coordinator coordinator(small_recipe(), 4);
  while (const auto plan = coordinator.next_step()) {
    StepFacts facts;  // without functions of the C library, whose last bits differ
    facts.step = plan->step;
    const auto t = static_cast<double>(plan->step);
    facts.loss = 1 + 1 / (1 + 0.05 * t);
    facts.grad_norm = 0.5;
    facts.elapsed_minutes = 0.01 * t;
    facts.applied = plan->step % 11 != 0;
    coordinator.on_step(facts);
  }
  EXPECT_EQ(coordinator.state_hash(), 0x3b21179f23bc6d67U);
  EXPECT_EQ(recipe_fingerprint(small_recipe()), 0x059577c1ebc93b31U);
  EXPECT_EQ(coordinator.take_decisions().back().chain, 0xe2a285f8ce8cda4aU);
  EXPECT_THAT(coordinator.state(), ::testing::Not(HasSubstr("\"batch\":")));
}

// V15, I6, I11: stopped after any update, on other ranks and leaves, the run goes on with the same
// bits. Goodput looks at ranks and leaves and gets the same ones.
TEST(BatchController, V15ResumesWithTheSameBits) {
  for (const BatchPolicyKind policy : kGrowing) {
    const Recipe recipe = growing_recipe(policy);
    const bool goodput = policy == BatchPolicyKind::kGoodput;
    Coordinator whole(recipe, 4);
    const auto plans = run_to(whole, 10000).plans;
    EXPECT_GE(of_kind(whole.take_decisions(), "batch").size(), 2U);
    const auto steps = static_cast<std::int64_t>(plans.size());
    for (std::int64_t stop = 0; stop <= steps; stop += goodput ? 9 : 1) {
      Coordinator first(recipe, 4);
      run_to(first, stop);
      Recipe other = recipe;
      other.leaf_size = goodput ? 4 : 8;
      Coordinator second = Coordinator::restore(other, goodput ? 4 : 7, first.state());
      ASSERT_EQ(second.state_hash(), first.state_hash()) << stop;
      ASSERT_EQ(second.batch(), first.batch());
      const auto rest = run_to(second, 10000).plans;
      ASSERT_EQ(rest.size(), plans.size() - static_cast<std::size_t>(stop));
      for (std::size_t i = 0; i < rest.size(); ++i) {
        const StepPlan& expected = plans[i + static_cast<std::size_t>(stop)];
        ASSERT_EQ(rest[i].first_position, expected.first_position);
        ASSERT_EQ(rest[i].samples, expected.samples);
        ASSERT_EQ(rest[i].lr, expected.lr);
        ASSERT_EQ(rest[i].eps, expected.eps);
      }
      ASSERT_EQ(second.state_hash(), whole.state_hash()) << stop;
    }
  }
}

// I8, I13: the batch grows, the clock counts samples, and every sample of the run is used once.
TEST(BatchController, I13SamplesAreCountedOnce) {
  for (const BatchPolicyKind policy : kGrowing) {
    Coordinator coordinator(growing_recipe(policy), 4);
    std::int64_t position = 0;
    for (const StepPlan& plan : run_to(coordinator, 10000).plans) {
      ASSERT_EQ(plan.first_position, position);
      position += plan.samples;
    }
    EXPECT_EQ(position, 3 * 5003);
    EXPECT_EQ(coordinator.samples_seen(), position);
    EXPECT_GT(coordinator.batch(), 32);
  }
}

// I12: world size, leaf size and time change nothing but under goodput.
TEST(BatchController, I12SpeedDoesNotShow) {
  for (const BatchPolicyKind policy :
       {BatchPolicyKind::kRamp, BatchPolicyKind::kNoiseScale, BatchPolicyKind::kSeesaw}) {
    Coordinator one(growing_recipe(policy), 1);
    Recipe other = growing_recipe(policy);
    other.leaf_size = 1;
    Coordinator many(other, 100);
    run_to(one, 10000, 1);
    run_to(many, 10000, 2);
    EXPECT_EQ(one.state_hash(), many.state_hash());
  }
  Coordinator one(growing_recipe(BatchPolicyKind::kGoodput), 4);
  Coordinator other(growing_recipe(BatchPolicyKind::kGoodput), 4);
  run_to(one, 40, 1);
  run_to(other, 40, 2);
  EXPECT_NE(one.state_hash(), other.state_hash());
}

// The recorded facts, times among them, give the same decisions, log and state.
TEST(BatchController, V25ReplayReproducesEveryPolicy) {
  for (const BatchPolicyKind policy : kGrowing) {
    const Recipe recipe = growing_recipe(policy);
    Coordinator coordinator(recipe, 4);
    const Trace trace = run_to(coordinator, 10000, 5);
    std::vector<RecordedEvent> read;
    for (const RecordedEvent& event : trace.events) {
      const std::string line = to_json_line(event);
      read.push_back(event_from_json_line(line));
      ASSERT_EQ(to_json_line(read.back()), line);
    }
    const ReplayResult again = replay(recipe, 4, read);
    EXPECT_EQ(again.state_hash, coordinator.state_hash());
    EXPECT_EQ(again.state, coordinator.state());
    const auto decisions = coordinator.take_decisions();
    ASSERT_EQ(again.decisions.size(), decisions.size());
    EXPECT_EQ(again.decisions.back().chain, decisions.back().chain);
    // A time changed by the least amount is found.
    std::get<StepFacts>(read[7].event).leaf_seconds *= 1 + 1e-15;
    expect_error(ExitCode::kBadInput, {"event 8 of the record does not follow"},
                 [&] { replay(recipe, 4, read); });
  }
}

// What the user gave counts before what was measured.
TEST(BatchController, NoiseIsGivenOrMeasured) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  recipe.noise_horizon_samples = 3200;
  const auto after = [](const Recipe& of, int updates) {
    RunState state(of, 2);
    for (int i = 0; i < updates; ++i) {
      const StepPlan plan = *state.next_step();
      StepFacts facts = testing::facts_of(plan.step);
      const auto samples = static_cast<double>(plan.samples);
      facts.noise.push_back(simulation::exact_group("all", samples, 2, 2 / 77.0));
      state.monitors.noise.on_step(plan, facts, state.log);
    }
    return state.critical_batch();
  };
  EXPECT_EQ(after(recipe, 30).samples, 1000);
  EXPECT_EQ(after(recipe, 30).relative_sd, 0);
  recipe.critical_batch = 0;
  EXPECT_FALSE(after(recipe, 9).known);
  const CriticalBatch measured = after(recipe, 30);
  EXPECT_TRUE(measured.usable());
  EXPECT_NEAR(measured.samples, 77, 1e-9);
}

// A measured critical batch bends the rate from the next change of the batch on, not at each
// reading.
TEST(BatchController, CapTakesTheReadingAtAChange) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  recipe.critical_batch = 0;
  recipe.surge_cap = true;
  recipe.ramp_samples = 0;
  BatchController controller(recipe);
  DecisionLog log;
  StepPlan plan;
  plan.samples = 1000;
  const auto peak_after = [&](const CriticalBatch& noise) {
    controller.decide(recipe, plan, {2, LeafSizer(recipe.leaf_size)}, noise, log);
    plan.first_position += plan.samples;
    return controller.state().peak_batch;
  };
  EXPECT_EQ(peak_after({20, 0.1, true}), 0);     // no reason to grow: the cap stays away
  EXPECT_EQ(peak_after({100, 0.3, true}), 0);    // not known well enough
  EXPECT_EQ(peak_after({100, 0.1, true}), 100);  // 32 -> 64
  EXPECT_EQ(rates_in_force(recipe, controller.state(), 9000, 64).multiplier,
            surge_cap(64, 16, 100));
  EXPECT_EQ(peak_after({60, 0.1, true}), 100);
  EXPECT_EQ(peak_after({500, 0.1, true}), 500);  // 64 -> 128
}

TEST(BatchController, RefusesDamagedStates) {
  const Recipe recipe = growing_recipe(BatchPolicyKind::kGoodput);
  Coordinator first(recipe, 4);
  run_to(first, 60);
  const Json good = Json::parse(first.state());
  const auto refuse = [&](const std::function<void(Json&)>& change) {
    Json state = good;
    change(state);
    expect_error(ExitCode::kBadInput, {"damaged"},
                 [&] { Coordinator::restore(recipe, 4, state.dump()); });
  };
  for (const char* which : {"next", "last"}) {
    refuse([&](Json& s) { s["batch"][which]["batch"] = 0; });
    refuse([&](Json& s) { s["batch"][which]["batch"] = 36; });
    refuse([&](Json& s) { s["batch"][which]["changed_at"] = -1; });
    refuse([&](Json& s) { s["batch"][which]["changed_at"] = 1000000; });
    refuse([&](Json& s) { s["batch"][which]["multiplier_before"] = -1.0; });
    for (const auto& [key, unused] : good["batch"][which].items()) {
      refuse([&, &key = key](Json& s) { s["batch"][which].erase(key); });
    }
  }
  refuse([](Json& s) { s.erase("batch"); });
  refuse([](Json& s) { s["batch"].erase("policy"); });
  refuse([](Json& s) { s["batch"]["policy"].erase("timings"); });
  refuse([](Json& s) { s["batch"]["policy"]["timings"][0]["updates"] = 0; });
  refuse([](Json& s) { s["batch"]["policy"]["timings"][0]["log_step"] = 1e9; });
  // The last update was made under another batch than the state says.
  refuse([](Json& s) { s["batch"]["last"]["batch"] = 8; });
}

// Any option that decides about results, changed alone, is named; a checkpoint from before there
// were options belongs to their defaults.
TEST(BatchController, OptionsBelongToTheRecipe) {
  struct Change {
    const char* words;
    std::function<void(Recipe&)> apply;
  };
  const Change changes[] = {
      {"batch.policy was \"ramp\" and is \"seesaw\"",
       [](Recipe& r) { r.batch_policy = BatchPolicyKind::kSeesaw; }},
      {"batch.increment was 8 and is 4", [](Recipe& r) { r.batch_increment = 4; }},
      {"batch.min was 0 and is 16", [](Recipe& r) { r.batch_min = 16; }},
      {"batch.max was 256 and is 128", [](Recipe& r) { r.batch_max = 128; }},
      {"batch.min_steps was 50 and is 51", [](Recipe& r) { r.batch_min_steps = 51; }},
      {"batch.dwell_samples was 500 and is 0", [](Recipe& r) { r.batch_dwell_samples = 0; }},
      {"batch.ramp_samples", [](Recipe& r) { r.batch_ramp_samples = 9001; }},
      {"batch.critical_fraction was 1.0 and is 2.0", [](Recipe& r) { r.critical_fraction = 2; }},
      {"batch.critical was 1000.0 and is 999.0", [](Recipe& r) { r.critical_batch = 999; }},
      {"scale.ramp_samples was 700 and is 0", [](Recipe& r) { r.ramp_samples = 0; }},
      {"scale.cap was false and is true", [](Recipe& r) { r.surge_cap = true; }},
      {"average.half_life_samples was 0 and is 9", [](Recipe& r) { r.ema_half_life_samples = 9; }},
      {"average.start_samples was", [](Recipe& r) { r.swa_start_samples = 9; }},
  };
  const Recipe recipe = growing_recipe(BatchPolicyKind::kRamp);
  Coordinator first(recipe, 2);
  run_to(first, 30);
  for (const Change& change : changes) {
    Recipe other = recipe;
    change.apply(other);
    EXPECT_NE(recipe_fingerprint(other), recipe_fingerprint(recipe)) << change.words;
    const Recipe back = recipe_from_json(Json::parse(recipe_to_json(other).dump()));
    EXPECT_TRUE(forbidden_changes(other, back, 0).empty());
    expect_error(ExitCode::kBadConfig, {"another recipe", change.words},
                 [&] { Coordinator::restore(other, 2, first.state()); });
  }
  EXPECT_FALSE(recipe_to_json(small_recipe()).contains("batch.policy"));
}

}  // namespace
}  // namespace lorascale::coordinator
