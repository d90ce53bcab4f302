// Measured noise moves the batch: gradients drawn for a known noise scale, from the norms of their
// leaves to the batch of the next update, with memory running out on the way.
#include "batch_support.hpp"
#include "coordinator/batch/batch_policy.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/recipe_check.hpp"
#include "coordinator/record/json_number.hpp"
#include "coordinator/record/replay.hpp"
#include "simulation/gradient_draws.hpp"

namespace lorascale::coordinator {
namespace {

using testing::advice;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using testing::growing_recipe;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::of_kind;

constexpr double kNoiseScale = 160;
constexpr std::int64_t kOutOfMemory = 40;  // the update that meets too little memory

Recipe measured_recipe() {
  Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  recipe.critical_batch = 0;
  recipe.noise_horizon_samples = 8000;
  recipe.batch_dwell_samples = 1000;
  recipe.surge_cap = true;
  return recipe;
}

// Depends on the update and its leaves alone.
StepFacts drawn_facts(const StepPlan& plan) {
  static const simulation::Population population = simulation::population_of(256, kNoiseScale);
  simulation::Normal normal(static_cast<std::uint64_t>(plan.step));
  std::vector<double> weights(static_cast<std::size_t>(plan.leaves),
                              static_cast<double>(plan.leaf_size));
  weights.back() = static_cast<double>(plan.samples - (plan.leaves - 1) * plan.leaf_size);
  StepFacts facts = testing::facts_of(plan.step);
  facts.noise.push_back({"all",
                         plan.leaves,
                         static_cast<double>(plan.samples),
                         simulation::draw_update(normal, population, weights).norms,
                         {}});
  return facts;
}

struct WholeRun {
  std::vector<StepPlan> plans;  // [update]
  std::vector<RecordedEvent> events;
  std::vector<Decision> decisions;
  std::string state;
  std::uint64_t hash = 0;
};

WholeRun whole_run() {
  const Recipe recipe = measured_recipe();
  Coordinator coordinator(recipe, 4);
  Recorder recorder(recipe);
  WholeRun run;
  while (const auto plan = coordinator.next_step()) {
    if (plan->step == kOutOfMemory && plan->leaf_size == recipe.leaf_size) {
      const MemoryFacts facts{plan->step, 1, 2};
      EXPECT_TRUE(coordinator.on_out_of_memory(facts));
      run.events.push_back(recorder.record(facts));
      continue;
    }
    run.plans.push_back(*plan);
    const StepFacts facts = drawn_facts(*plan);
    coordinator.on_step(facts);
    run.events.push_back(recorder.record(facts));
  }
  run.decisions = coordinator.take_decisions();
  run.state = coordinator.state();
  run.hash = coordinator.state_hash();
  return run;
}

void expect_same(const StepPlan& plan, const StepPlan& expected) {
  EXPECT_EQ(plan.first_position, expected.first_position);
  EXPECT_EQ(plan.samples, expected.samples);
  EXPECT_EQ(plan.leaf_size, expected.leaf_size);
  EXPECT_EQ(plan.leaves, expected.leaves);
  EXPECT_EQ(plan.lr, expected.lr);
  EXPECT_EQ(plan.weight_decay, expected.weight_decay);
}

TEST(BatchNoise, TheBatchGrowsToTheMeasuredNoiseScale) {
  const WholeRun run = whole_run();
  std::int64_t batch = 32;
  std::int64_t changed_at = 0;
  const auto changes = of_kind(run.decisions, "batch");
  ASSERT_GE(changes.size(), 3U);
  for (const Decision& change : changes) {
    const Json inputs = Json::parse(change.inputs);
    const auto next = inputs.at("batch").at(1).get<std::int64_t>();
    EXPECT_EQ(inputs.at("batch").at(0), batch);
    EXPECT_GT(next, batch);
    EXPECT_LE(next, 2 * batch);
    EXPECT_GE(change.samples - changed_at, 1000);
    const double reading = inputs.at("policy_inputs").at("critical_batch").get<double>();
    const double sd = inputs.at("policy_inputs").at("relative_sd").get<double>();
    EXPECT_LE(static_cast<double>(next), reading);
    EXPECT_GT(sd, 0);
    EXPECT_LT(sd, 0.25);
    EXPECT_NEAR(reading / kNoiseScale, 1, 3 * sd);
    EXPECT_EQ(inputs.at("peak_batch"), reading);  // scale.cap bends where the noise scale is
    const auto first = inputs.at("effective_step").get<std::size_t>();
    EXPECT_EQ(inputs.at("leaf_size"), run.plans.at(first - 1).leaf_size);
    batch = next;
    changed_at = change.samples;
  }
  EXPECT_NEAR(static_cast<double>(batch), kNoiseScale, 0.15 * kNoiseScale);
  std::printf("[ seen     ] noise scale %g: batch %lld after %zu changes\n", kNoiseScale,
              static_cast<long long>(batch), changes.size());

  // Memory ran out once: from there on smaller leaves, and each batch is made of whole ones.
  EXPECT_EQ(of_kind(run.decisions, "memory").front().step, kOutOfMemory);
  std::int64_t position = 0;
  for (const StepPlan& plan : run.plans) {
    EXPECT_EQ(plan.first_position, position);
    EXPECT_EQ(plan.leaves, (plan.samples - 1) / plan.leaf_size + 1);
    const bool grown_back = plan.step >= kOutOfMemory + LeafSizer::kPatience;
    EXPECT_EQ(plan.leaf_size, plan.step < kOutOfMemory || grown_back ? 4 : 2) << plan.step;
    position += plan.samples;
  }
  EXPECT_EQ(position, measured_recipe().budget_samples);
}

TEST(BatchNoise, V25ReplayGivesTheSameHash) {
  const WholeRun run = whole_run();
  std::vector<RecordedEvent> read;
  for (const RecordedEvent& event : run.events) {
    read.push_back(event_from_json_line(to_json_line(event)));
  }
  const ReplayResult again = replay(measured_recipe(), 4, read);
  EXPECT_EQ(again.state_hash, run.hash);
  EXPECT_EQ(again.state, run.state);
  ASSERT_EQ(again.decisions.size(), run.decisions.size());
  EXPECT_EQ(again.decisions.back().chain, run.decisions.back().chain);
}

TEST(BatchNoise, V15ResumesWithTheSameBits) {
  const WholeRun run = whole_run();
  const Recipe recipe = measured_recipe();
  Coordinator going(recipe, 4);
  std::int64_t updates = 0;
  for (const RecordedEvent& event : run.events) {
    if (const auto* memory = std::get_if<MemoryFacts>(&event.event)) {
      going.on_out_of_memory(*memory);
      continue;
    }
    const auto& facts = std::get<StepFacts>(event.event);
    expect_same(*going.next_step(), run.plans[static_cast<std::size_t>(updates)]);
    going.on_step(facts);
    if (++updates % 7 == 0) {
      const std::uint64_t hash = going.state_hash();
      going = Coordinator::restore(recipe, updates % 2 == 0 ? 4 : 3, going.state());
      ASSERT_EQ(going.state_hash(), hash) << updates;
    }
  }
  EXPECT_FALSE(going.next_step());
  EXPECT_EQ(going.state_hash(), run.hash);
}

TEST(BatchNoise, WhatNothingTellsIsRefused) {
  const auto refused = [](const Recipe& recipe, const char* who) {
    EXPECT_THAT(contradictions(recipe, 2),
                Contains(AllOf(HasSubstr(who), HasSubstr("neither given nor measured"),
                               HasSubstr("set noise.horizon"), HasSubstr("such as 3200"),
                               HasSubstr("give batch.critical"))));
    Recipe remedied = recipe;
    remedied.noise_horizon_samples = 3200;
    EXPECT_TRUE(contradictions(remedied, 2).empty());
    remedied = recipe;
    remedied.critical_batch = 100;
    EXPECT_TRUE(contradictions(remedied, 2).empty());
  };
  for (const BatchPolicyKind policy : {BatchPolicyKind::kNoiseScale, BatchPolicyKind::kGoodput}) {
    Recipe recipe = growing_recipe(policy);
    recipe.critical_batch = 0;
    refused(recipe, policy == BatchPolicyKind::kGoodput ? "batch.policy goodput needs"
                                                        : "batch.policy noise-scale needs");
  }
  for (const BatchPolicyKind policy : {BatchPolicyKind::kRamp, BatchPolicyKind::kSeesaw}) {
    Recipe recipe = growing_recipe(policy);
    recipe.critical_batch = 0;
    EXPECT_TRUE(contradictions(recipe, 2).empty());
    recipe.surge_cap = true;
    refused(recipe, "scale.cap needs");
  }
}

TEST(BatchNoise, AdaScaleGoesWithAFixedBatchAndWithoutACap) {
  for (const BatchPolicyKind policy : testing::kGrowing) {
    Recipe recipe = growing_recipe(policy);
    recipe.rule = ScaleRule::kAdascale;
    recipe.noise_horizon_samples = 3200;
    EXPECT_THAT(contradictions(recipe, 2),
                Contains(AllOf(HasSubstr("adascale does not go with batch.policy " +
                                         std::string(name_of(policy))),
                               HasSubstr("measured gain"), HasSubstr("use batch.policy fixed"))));
  }
  Recipe recipe = growing_recipe(BatchPolicyKind::kFixed);
  recipe.rule = ScaleRule::kAdascale;
  recipe.noise_horizon_samples = 3200;
  EXPECT_TRUE(contradictions(recipe, 2).empty());
  recipe.surge_cap = true;
  EXPECT_THAT(contradictions(recipe, 2),
              Contains(AllOf(HasSubstr("adascale does not go with scale.cap"),
                             HasSubstr("use scale.cap: false"))));
}

// A horizon that suffices for the first batch but not for the largest.
TEST(BatchNoise, AdvisesALongEnoughHorizon) {
  Recipe recipe = measured_recipe();
  EXPECT_THAT(advice(recipe, 2), Each(Not(HasSubstr("horizon"))));
  recipe.noise_horizon_samples = 600;  // 6 updates of 100
  EXPECT_THAT(advice(recipe, 2),
              Contains(AllOf(HasSubstr("noise.horizon of 600 samples averages over too few updates "
                                       "of more than 100"),
                             HasSubstr("the largest batch of 256; use 25600, at least 1536"))));
  recipe.noise_horizon_samples = 100;
  EXPECT_THAT(advice(recipe, 2),
              Contains(HasSubstr("batch.policy noise-scale never changes the batch")));
}

}  // namespace
}  // namespace lorascale::coordinator
