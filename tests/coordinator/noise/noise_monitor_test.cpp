#include "coordinator/noise/noise_monitor.hpp"

#include <limits>
#include <nlohmann/json.hpp>

#include "coordinator/record/recipe_json.hpp"
#include "coordinator/record/replay.hpp"
#include "simulation/gradient_draws.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using simulation::draw_update;
using simulation::exact_group;
using simulation::exact_norms;
using simulation::Normal;
using simulation::population_of;
using testing::expect_error;
using testing::facts_of;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::of_kind;
using testing::small_recipe;

Recipe noise_recipe() {
  Recipe recipe = small_recipe();
  recipe.noise_horizon_samples = 6400;
  recipe.budget_samples = 10000;
  return recipe;
}

// LoRA's two groups, with Adam's second moments at the variance of one sample.
struct LoraFacts {
  Normal normal{21};
  double gauge = 1;  // A times this, B divided by it: gradients the other way round

  StepFacts operator()(const StepPlan& plan) {
    StepFacts facts = facts_of(plan.step);
    const std::vector<double> weights(4, static_cast<double>(plan.samples) / 4);
    facts.noise.push_back(group("lora_A", population_of(24, 100), weights, 1 / gauge));
    facts.noise.push_back(group("lora_B", population_of(32, 400), weights, gauge));
    return facts;
  }

  GroupNorms group(const std::string& name, const simulation::Population& population,
                   const std::vector<double>& weights, double factor) {
    const SquareNorms plain = draw_update(normal, population, weights).norms;
    const double square = factor * factor;
    // sqrt(v) has the factor too, and takes it out: only rounding is left of it.
    const double v = square * population.trace();
    return {name,
            4,
            4 * weights[0],
            {square * plain.weighted_leaf_square, square * plain.mean_square},
            SquareNorms{square * plain.weighted_leaf_square / v, square * plain.mean_square / v}};
  }
};

template <typename Source>
void advance(Coordinator& coordinator, Source&& source, std::int64_t steps) {
  for (std::int64_t i = 0; i < steps; ++i) {
    const auto plan = coordinator.next_step();
    ASSERT_TRUE(plan);
    coordinator.on_step(source(*plan));
  }
}

NoiseReport report_at(double gauge, bool preconditioned) {
  Coordinator coordinator(noise_recipe(), 1);
  LoraFacts source;
  source.gauge = gauge;
  advance(
      coordinator,
      [&](const StepPlan& plan) {
        StepFacts facts = source(plan);
        for (GroupNorms& norms : facts.noise) {
          if (!preconditioned) {
            norms.preconditioned.reset();
          }
        }
        return facts;
      },
      120);
  return coordinator.noise();
}

// V5: A times c and B divided by c is the same model. Readings of groups and the combined ones stay
// to 1e-9; the ratio of sums over groups does not.
TEST(NoiseMonitor, V5GaugeOfTheFactors) {
  for (const bool preconditioned : {false, true}) {
    const NoiseReport plain = report_at(1, preconditioned);
    const auto pooled = [](const NoiseReport& report) {
      const NoiseReading& a = report.groups[0].raw;
      const NoiseReading& b = report.groups[1].raw;
      return (a.trace + b.trace) / (a.gradient_square + b.gradient_square);
    };
    for (const double c : {0.1, 10.0}) {
      const NoiseReport other = report_at(c, preconditioned);
      ASSERT_EQ(other.groups.size(), 2U);
      for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_NEAR(other.groups[i].raw.b_simple / plain.groups[i].raw.b_simple, 1, 1e-9);
        EXPECT_NEAR(other.groups[i].raw.relative_sd / plain.groups[i].raw.relative_sd, 1, 1e-6);
        EXPECT_EQ(other.groups[i].preconditioned.has_value(), preconditioned);
      }
      ASSERT_TRUE(other.combined.known) << other.combined.unknown_because;
      EXPECT_NEAR(other.combined.b_simple / plain.combined.b_simple, 1, 1e-9);
      EXPECT_GT(std::abs(pooled(other) / pooled(plain) - 1), 0.2);
      std::printf("[ seen     ] V5 c = %g: combined %.1f -> %.1f, pooled raw %.1f -> %.1f\n", c,
                  plain.combined.b_simple, other.combined.b_simple, pooled(plain), pooled(other));
    }
  }
}

// One vector of all groups where the metric allows it, else the smallest known group.
TEST(NoiseMonitor, TheCombinedReading) {
  const NoiseReport raw = report_at(1, false);
  EXPECT_EQ(raw.source, "group lora_A, the smallest known");
  EXPECT_EQ(raw.combined.b_simple, raw.groups[0].raw.b_simple);
  EXPECT_LT(raw.groups[0].raw.b_simple, raw.groups[1].raw.b_simple);

  const NoiseReport metric = report_at(1, true);
  EXPECT_EQ(metric.source, "all groups in the preconditioned metric");
  const NoiseReading& a = *metric.groups[0].preconditioned;
  const NoiseReading& b = *metric.groups[1].preconditioned;
  EXPECT_NEAR(metric.combined.trace, a.trace + b.trace, 1e-12);
  EXPECT_NEAR(metric.combined.gradient_square, a.gradient_square + b.gradient_square, 1e-12);
  // (1 + 1) / (1/100 + 1/400) = 160, within three of the stated standard deviations.
  EXPECT_NEAR(metric.combined.b_simple, 160, 3 * 160 * metric.combined.relative_sd);
  EXPECT_LT(metric.combined.relative_sd, a.relative_sd);
}

StepFacts exact_facts(const StepPlan& plan, double noise_scale) {
  StepFacts facts = facts_of(plan.step);
  const auto samples = static_cast<double>(plan.samples);
  facts.noise.push_back(exact_group("lora_A", samples, 2, 2 / noise_scale));
  return facts;
}

// Known after ten effective updates; then only a change by a factor of two is worth a line.
TEST(NoiseMonitor, LogsTheFirstKnownReadingAndTwofoldChanges) {
  Recipe recipe = noise_recipe();
  recipe.noise_horizon_samples = 1000;
  recipe.budget_samples = 20000;
  Coordinator coordinator(recipe, 1);
  const auto feed = [&](double noise_scale, int steps) {
    advance(
        coordinator, [&](const StepPlan& plan) { return exact_facts(plan, noise_scale); }, steps);
    return of_kind(coordinator.take_decisions(), "noise");
  };
  EXPECT_TRUE(feed(100, 9).empty());
  EXPECT_THAT(std::string(coordinator.noise().combined.unknown_because), HasSubstr("too few"));
  auto decisions = feed(100, 60);
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].step, 11);
  EXPECT_THAT(decisions[0].reason, HasSubstr("noise scale is 100 samples"));
  EXPECT_THAT(decisions[0].reason, HasSubstr("group lora_A, the smallest known"));
  EXPECT_THAT(decisions[0].reason, HasSubstr("for the first time"));
  EXPECT_EQ(nlohmann::json::parse(decisions[0].inputs).at("groups").size(), 1U);
  EXPECT_TRUE(feed(150, 60).empty());
  decisions = feed(300, 100);
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_THAT(decisions[0].reason, HasSubstr("it was 100"));
  EXPECT_GE(coordinator.noise().combined.b_simple, 200);
}

TEST(NoiseMonitor, ReadsTheSameAtAnotherBatch) {  // S is per sample: nothing to rescale
  for (const std::int64_t batch : {16, 64, 256}) {
    Recipe recipe = noise_recipe();
    recipe.global_batch = batch;
    Coordinator coordinator(recipe, 1);
    advance(
        coordinator, [](const StepPlan& plan) { return exact_facts(plan, 100); }, 20);
    EXPECT_NEAR(coordinator.noise().combined.b_simple, 100, 1e-9) << batch;
  }
}

// V4: skipped updates and updates without norms, or with one leaf, leave every average alone.
TEST(NoiseMonitor, V4SkippedUpdatesChangeNothing) {
  Coordinator coordinator(noise_recipe(), 1);
  advance(
      coordinator, [](const StepPlan& plan) { return exact_facts(plan, 100); }, 30);
  const auto saved = [&] {
    return nlohmann::json::parse(coordinator.state()).at("monitors").at("noise").dump();
  };
  const std::string before = saved();
  advance(
      coordinator,
      [](const StepPlan& plan) {
        StepFacts facts = exact_facts(plan, 1e6);
        facts.applied = false;
        facts.noise[0].raw.mean_square = std::numeric_limits<double>::quiet_NaN();
        return facts;
      },
      1);
  advance(
      coordinator, [](const StepPlan& plan) { return facts_of(plan.step); }, 1);
  EXPECT_EQ(saved(), before);
  const double b_simple = coordinator.noise().combined.b_simple;
  advance(
      coordinator,
      [](const StepPlan& plan) {
        StepFacts facts = exact_facts(plan, 1e6);
        facts.noise[0].leaves = 1;
        return facts;
      },
      1);
  EXPECT_EQ(coordinator.noise().combined.b_simple, b_simple);
  EXPECT_TRUE(coordinator.noise().combined.known);
}

// 1.9 (b): LoRA's B begins at 0, so A has no gradient in the first update, and no noise scale.
TEST(NoiseMonitor, AGroupWithoutGradientHasNoNoiseScale) {
  Coordinator coordinator(noise_recipe(), 1);
  advance(
      coordinator,
      [](const StepPlan& plan) {
        StepFacts facts = exact_facts(plan, 100);
        facts.noise.push_back(facts.noise[0]);
        facts.noise[0].raw = {0, 0};
        facts.noise[1].group = "lora_B";
        return facts;
      },
      20);
  const NoiseReport report = coordinator.noise();
  EXPECT_THAT(std::string(report.groups[0].raw.unknown_because), HasSubstr("gradient is 0"));
  EXPECT_TRUE(report.groups[1].raw.known);
  EXPECT_EQ(report.source, "group lora_B, the smallest known");
}

TEST(NoiseMonitor, GoesOnWithTheSameBitsAfterAResume) {
  LoraFacts source;
  std::vector<StepFacts> all;
  Coordinator whole(noise_recipe(), 1);
  advance(
      whole,
      [&](const StepPlan& plan) {
        all.push_back(source(plan));
        return all.back();
      },
      60);
  for (const std::int64_t stop : {0, 1, 11, 40}) {
    Coordinator first(noise_recipe(), 1);
    const auto recorded = [&](const StepPlan& plan) {
      return all[static_cast<std::size_t>(plan.step - 1)];
    };
    advance(first, recorded, stop);
    Coordinator second = Coordinator::restore(noise_recipe(), 3, first.state());
    advance(second, recorded, 60 - stop);
    EXPECT_EQ(second.state_hash(), whole.state_hash());
    EXPECT_EQ(second.noise().combined.b_simple, whole.noise().combined.b_simple);
  }
}

// V25 with norms in the facts: state and log are the same, and a changed norm is found.
TEST(NoiseMonitor, V25NormsAreRecordedAndReplayed) {
  LoraFacts source;
  Coordinator coordinator(noise_recipe(), 1);
  Recorder recorder(noise_recipe());
  std::vector<RecordedEvent> events;
  for (int i = 0; i < 40; ++i) {
    StepFacts facts = source(*coordinator.next_step());
    if (i == 7) {
      facts.noise[0].raw.weighted_leaf_square = std::numeric_limits<double>::infinity();
      facts.noise[1].preconditioned.reset();
    }
    coordinator.on_step(facts);
    const RecordedEvent event = recorder.record(facts);
    events.push_back(event_from_json_line(to_json_line(event)));
    EXPECT_EQ(to_json_line(events.back()), to_json_line(event));
  }
  const ReplayResult again = replay(noise_recipe(), 1, events);
  EXPECT_EQ(again.state, coordinator.state());
  EXPECT_EQ(again.decisions.size(), coordinator.take_decisions().size());
  auto& norms = std::get<StepFacts>(events[20].event).noise[1];
  norms.preconditioned->mean_square = std::nextafter(norms.preconditioned->mean_square, 9);
  expect_error(ExitCode::kBadInput, {"event 21 of the record does not follow"},
               [&] { replay(noise_recipe(), 1, events); });
}

// What was written before there was a noise scale stays valid: same lines, same state, and the
// digests that version 1 gave.
TEST(NoiseMonitor, ARunWithoutItIsWrittenAsBefore) {
  EXPECT_EQ(hex64(recipe_fingerprint(small_recipe())), "059577c1ebc93b31");
  EXPECT_FALSE(recipe_to_json(small_recipe()).contains("noise.horizon_samples"));
  EXPECT_EQ(recipe_from_json(recipe_to_json(small_recipe())).noise_horizon_samples, 0);
  EXPECT_EQ(recipe_from_json(recipe_to_json(noise_recipe())).noise_horizon_samples, 6400);
  Coordinator coordinator(small_recipe(), 1);
  advance(
      coordinator,
      [](const StepPlan& plan) {
        StepFacts facts = exact_facts(plan, 100);
        facts.loss = 2 - static_cast<double>(plan.step) / 64;
        return facts;
      },
      20);
  EXPECT_EQ(hex64(coordinator.state_hash()), "a1b88fef10a466fa");
  EXPECT_EQ(hex64(coordinator.take_decisions().back().chain), "d8b9e31a5e388cec");
  EXPECT_THAT(coordinator.state(), Not(HasSubstr("noise")));
  EXPECT_FALSE(coordinator.noise().combined.known);
  Recorder recorder(small_recipe());
  EXPECT_THAT(to_json_line(recorder.record(facts_of(1))), Not(HasSubstr("noise")));
}

TEST(NoiseMonitor, TheHorizonBelongsToTheRecipe) {
  Coordinator first(noise_recipe(), 1);
  Recipe other = noise_recipe();
  other.noise_horizon_samples = 0;
  expect_error(ExitCode::kBadConfig, {"noise.horizon_samples was 6400 and is 0"},
               [&] { Coordinator::restore(other, 1, first.state()); });
}

}  // namespace
}  // namespace lorascale::coordinator
