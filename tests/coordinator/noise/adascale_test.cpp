#include "coordinator/noise/adascale.hpp"

#include <limits>
#include <nlohmann/json.hpp>

#include "coordinator/plan_report.hpp"
#include "coordinator/rates/schedule.hpp"
#include "coordinator/recipe_check.hpp"
#include "simulation/gradient_draws.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using simulation::draw_update;
using simulation::exact_group;
using simulation::Normal;
using simulation::population_of;
using testing::advice;
using ::testing::ElementsAre;
using testing::expect_error;
using testing::facts_of;
using ::testing::HasSubstr;
using testing::of_kind;
using testing::small_recipe;
using Json = nlohmann::ordered_json;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Recipe gain_recipe() {
  Recipe recipe = small_recipe();
  recipe.rule = ScaleRule::kAdascale;
  recipe.power = 1;
  recipe.noise_horizon_samples = 2000;
  return recipe;
}

// A noise scale that wanders between 4 and 400 samples.
double wandering(std::int64_t step) {
  return 40 * std::pow(10.0, std::sin(0.05 * static_cast<double>(step)));
}

StepFacts facts_at(const StepPlan& plan, double noise_scale) {
  StepFacts facts = facts_of(plan.step);
  const auto samples = static_cast<double>(plan.samples);
  facts.noise.push_back(exact_group("all", samples, 2, 2 / noise_scale));
  return facts;
}

std::vector<StepPlan> run(Coordinator& coordinator, std::int64_t end = 100000) {
  std::vector<StepPlan> plans;
  while (coordinator.steps_done() < end) {
    const auto plan = coordinator.next_step();
    if (!plan) {
      break;
    }
    plans.push_back(*plan);
    coordinator.on_step(facts_at(*plan, wandering(plan->step)));
  }
  return plans;
}

// V6: the gain from smoothed estimates of real draws, against the formula in sigma^2 and mu^2.
// About 200 effective updates of 4 leaves with 128 coordinates.
TEST(AdaScale, V6GainFromSmoothedEstimates) {
  constexpr double kReference = 16;
  double worst_mean = 0;
  double worst_sd = 0;
  Normal normal(31);
  for (const double s_over_m : {0.1, 1.0, 10.0, 100.0}) {
    for (const double scale : {4.0, 16.0, 64.0}) {
      const double samples = scale * kReference;
      const auto truth = population_of(128, s_over_m * kReference);
      NoiseTracker tracker;
      double sum = 0;
      double squares = 0;
      constexpr int kReadings = 20;
      for (int i = 0; i < 100 * kReadings; ++i) {
        const auto drawn = draw_update(normal, truth, std::vector<double>(4, samples / 4));
        tracker.add(measure_noise(drawn.norms, 4, samples, samples), samples, 100 * samples);
        if (i % 100 == 99) {
          const NoiseMoments moments = tracker.moments();
          const double square = std::max(0.0, moments.gradient_square);
          const double phi = square > 0 ? moments.trace / square : kInfinity;
          const double gain = adascale_gain(phi, samples, kReference);
          EXPECT_GE(gain, 1);
          EXPECT_LE(gain, scale);
          EXPECT_LT(gain_relative_sd(moments, samples, kReference), 0.04);
          sum += gain;
          squares += gain * gain;
        }
      }
      const double expected = (s_over_m + 1) / (s_over_m / scale + 1);
      const double mean = sum / kReadings;
      const double sd = std::sqrt(std::max(0.0, squares / kReadings - mean * mean)) / mean;
      EXPECT_NEAR(mean / expected, 1, 0.01) << s_over_m << " " << scale;
      EXPECT_LT(sd, 0.03) << s_over_m << " " << scale;
      worst_mean = std::max(worst_mean, std::abs(mean / expected - 1));
      worst_sd = std::max(worst_sd, sd);
    }
  }
  std::printf("[ seen     ] V6 mean within %.4f, sd at most %.4f\n", worst_mean, worst_sd);
}

// V7: no noise 1, nothing but noise S, monotone between, exact to 1e-12.
TEST(AdaScale, V7Limits) {
  for (const double scale : {1.0, 1.5, 4.0, 64.0, 0.25}) {
    EXPECT_EQ(adascale_gain(0, 16 * scale, 16), 1);
    EXPECT_EQ(adascale_gain(kInfinity, 16 * scale, 16), scale);
    EXPECT_NEAR(adascale_gain(1e-15, 16 * scale, 16), 1, 1e-12);
    EXPECT_NEAR(adascale_gain(1e18, 16 * scale, 16) / scale, 1, 1e-12);
  }
  for (const double phi : {0.01, 1.0, 16.0, 1e4}) {
    double before = 0;
    for (double scale = 0.25; scale < 200; scale *= 1.3) {
      const double gain = adascale_gain(phi, 16 * scale, 16);
      EXPECT_GT(gain, before);
      EXPECT_GE(gain, std::min(1.0, scale));
      EXPECT_LE(gain, std::max(1.0, scale));
      const double s = phi / 16;
      EXPECT_NEAR(gain / ((s + 1) / (s / scale + 1)), 1, 1e-12);
      before = gain;
    }
    EXPECT_NEAR(adascale_gain(phi, 16, 16), 1, 1e-12);
  }
}

// The stated error of the gain against differences of the gain itself.
TEST(AdaScale, ErrorOfTheGain) {
  const NoiseMoments at{2, 0.03, 0.04, 0.0001, -0.0005, 100};
  const auto gain = [](double s, double m) { return std::log(adascale_gain(s / m, 256, 16)); };
  const double h = 1e-6;
  const double by_s = (gain(2 + h, 0.03) - gain(2 - h, 0.03)) / (2 * h);
  const double by_m = (gain(2, 0.03 + h) - gain(2, 0.03 - h)) / (2 * h);
  const double expected =
      std::sqrt(by_s * by_s * 0.04 - 2 * by_s * by_m * 0.0005 + by_m * by_m * 0.0001);
  EXPECT_NEAR(gain_relative_sd(at, 256, 16) / expected, 1, 1e-6);
}

// V8: tau is the sum of gains times B0, schedule and warmup are read there, and the run ends with
// the update that reaches the budget.
TEST(AdaScale, V8TauIsTheClock) {
  for (const double power : {1.0, 0.5}) {
    Recipe recipe = gain_recipe();
    recipe.power = power;
    recipe.floor = 0.1;
    Coordinator coordinator(recipe, 2);
    const auto plans = run(coordinator);
    EXPECT_EQ(coordinator.stop_reason(), StopReason::kBudget);
    double tau = 0;
    std::int64_t position = 0;
    double low = 100;
    double high = 0;
    for (const StepPlan& plan : plans) {
      EXPECT_LT(tau, 3000);
      EXPECT_EQ(plan.tau, tau);
      EXPECT_EQ(plan.first_position, position);
      EXPECT_EQ(plan.samples, std::min<std::int64_t>(64, 1000 - position % 1000));
      const double gain = plan.tau_advance / 16;
      EXPECT_GE(gain, 1);
      EXPECT_LE(gain, static_cast<double>(plan.samples) / 16);
      low = std::min(low, gain);
      high = std::max(high, gain);
      EXPECT_NEAR(plan.lr_multiplier / std::pow(gain, power), 1, 1e-14);
      EXPECT_EQ(plan.lr, recipe.lr * plan.lr_multiplier *
                             schedule_multiplier(recipe, tau, plan.tau_advance));
      tau += plan.tau_advance;
      position += plan.samples;
    }
    EXPECT_EQ(low, 1);
    EXPECT_GT(high, 3);
    EXPECT_GE(tau, 3000);
    EXPECT_LT(tau - plans.back().tau_advance, 3000);
    EXPECT_EQ(coordinator.tau(), tau);
    EXPECT_GT(coordinator.samples_seen(), 3000);
    const auto decisions = coordinator.take_decisions();
    EXPECT_GE(of_kind(decisions, "gain").size(), 2U);
    const auto budget = of_kind(decisions, "budget");
    ASSERT_EQ(budget.size(), 1U);
    EXPECT_THAT(budget[0].reason, HasSubstr("3000 gain-adjusted samples (gain x 16"));
    EXPECT_EQ(Json::parse(budget[0].inputs).at("tau"), tau);
    std::printf("[ seen     ] V8 %zu updates, gains %.2f to %.2f, tau %.2f of 3000, %lld samples\n",
                plans.size(), low, high, tau, static_cast<long long>(position));
  }
}

// A constant noise scale: the run takes budget / (gain B0) updates, S times fewer where there is
// nothing but noise, as many as at the reference batch where there is none.
TEST(AdaScale, TheNumberOfUpdatesFollowsTheGain) {
  for (const double noise_scale : {0.01, 64.0, 1e9}) {
    Recipe recipe = gain_recipe();
    recipe.global_batch = 50;  // divides the epoch: no short update
    recipe.reference_batch = 10;
    recipe.leaf_size = 10;
    recipe.noise_horizon_samples = 5000;
    recipe.budget_samples = 100000;
    Coordinator coordinator(recipe, 1);
    EXPECT_EQ(coordinator.steps_expected(), 10000);
    std::int64_t steps = 0;
    while (const auto plan = coordinator.next_step()) {
      coordinator.on_step(facts_at(*plan, noise_scale));
      ++steps;
      if (steps == 20) {
        EXPECT_NEAR(static_cast<double>(coordinator.steps_expected()),
                    100000 / (10 * (noise_scale / 10 + 1) / (noise_scale / 50 + 1)), 12);
      }
    }
    const double gain = (noise_scale / 10 + 1) / (noise_scale / 50 + 1);
    EXPECT_NEAR(static_cast<double>(steps), 10000 / gain, 12);  // the first ones have gain 1
  }
}

// Nothing measured: gain 1, and the plan has said so. A negative average of |G|^2 is noise alone.
TEST(AdaScale, NothingMeasuredIsGainOne) {
  Coordinator coordinator(gain_recipe(), 1);
  const auto plan_line = of_kind(coordinator.take_decisions(), "plan").at(0).reason;
  EXPECT_THAT(plan_line, HasSubstr("188 steps at gain 1, down to 47 at gain 4"));
  EXPECT_THAT(plan_line, HasSubstr("gain 1 until the noise scale is measured"));
  EXPECT_THAT(plan_line, HasSubstr("gain-adjusted samples of the budget of 3000"));
  std::int64_t steps = 0;
  while (const auto plan = coordinator.next_step()) {
    EXPECT_EQ(plan->lr_multiplier, 1);
    coordinator.on_step(facts_of(plan->step));
    ++steps;
  }
  EXPECT_EQ(steps, 188);
  EXPECT_TRUE(of_kind(coordinator.take_decisions(), "gain").empty());

  Coordinator noisy(gain_recipe(), 1);
  for (int i = 0; i < 20; ++i) {
    const auto plan = noisy.next_step();
    StepFacts facts = facts_of(plan->step);
    facts.noise.push_back(exact_group("all", static_cast<double>(plan->samples), 2, -1e-4));
    noisy.on_step(facts);
  }
  EXPECT_EQ(noisy.next_step()->lr_multiplier, 4);
  EXPECT_FALSE(noisy.noise().combined.known);
  // Below the reference batch the unmeasured gain is that of nothing but noise: n / B0.
  Recipe small = gain_recipe();
  small.global_batch = 8;
  EXPECT_EQ(Coordinator(small, 1).next_step()->lr_multiplier, 0.5);
}

// A gain that is not known well enough is not taken over; the one before it goes on.
TEST(AdaScale, HoldsTheGainWhileTheEstimateIsWide) {
  Recipe recipe = gain_recipe();
  recipe.budget_samples = 30000;
  recipe.reference_batch = 1;  // S = 64: the gain follows the noise scale closely
  Coordinator coordinator(recipe, 1);
  const auto feed = [&](double ripple, int steps) {
    for (int i = 0; i < steps; ++i) {
      const auto plan = coordinator.next_step();
      StepFacts facts = facts_of(plan->step);
      const double square = 1 + (i % 2 == 0 ? ripple : -ripple);
      facts.noise.push_back(exact_group("all", static_cast<double>(plan->samples), 8, square));
      coordinator.on_step(facts);
    }
    return coordinator.next_step()->lr_multiplier;
  };
  EXPECT_EQ(feed(3, 40), 1);  // relative sd of |G|^2 over about 40 updates: 0.5
  EXPECT_NEAR(feed(0, 300), 9 / (8 / 64.0 + 1), 0.1);
}

void expect_equal(const StepPlan& a, const StepPlan& b) {
  EXPECT_EQ(a.first_position, b.first_position);
  EXPECT_EQ(a.samples, b.samples);
  EXPECT_EQ(a.tau, b.tau);
  EXPECT_EQ(a.tau_advance, b.tau_advance);
  EXPECT_EQ(a.lr, b.lr);
  EXPECT_EQ(a.weight_decay, b.weight_decay);
}

// I6, V15: stopped after any update, it goes on with the same bits, past the nominal budget too.
TEST(AdaScale, I6GoesOnWithTheSameBits) {
  Recipe recipe = gain_recipe();
  recipe.weight_decay = 0.1;
  recipe.scale_weight_decay = true;
  Coordinator whole(recipe, 4);
  const auto plans = run(whole);
  const auto steps = static_cast<std::int64_t>(plans.size());
  for (std::int64_t stop = 0; stop <= steps; ++stop) {
    Coordinator first(recipe, 4);
    run(first, stop);
    Coordinator second = Coordinator::restore(recipe, 7, first.state());
    ASSERT_EQ(second.state_hash(), first.state_hash());
    const auto rest = run(second);
    ASSERT_EQ(rest.size(), plans.size() - static_cast<std::size_t>(stop));
    for (std::size_t i = 0; i < rest.size(); ++i) {
      expect_equal(rest[i], plans[i + static_cast<std::size_t>(stop)]);
    }
    ASSERT_EQ(second.state_hash(), whole.state_hash()) << stop;
  }
}

// I6: rates of the last update that do not follow from the clock it had.
TEST(AdaScale, I6ComputesTheLastGainAgain) {
  Recipe recipe = gain_recipe();
  Coordinator coordinator(recipe, 1);
  run(coordinator, 60);
  const Json good = Json::parse(coordinator.state());
  const auto refuse = [&](const char* words, const std::function<void(Json&)>& change) {
    Json state = good;
    change(state);
    expect_error(ExitCode::kBadInput, {words, "earlier checkpoint"},
                 [&] { Coordinator::restore(recipe, 1, state.dump()); });
  };
  const auto up = [](Json& value) { value = value.get<double>() * 1.001; };
  refuse("ends at tau", [&](Json& s) { up(s["monitors"]["adascale"]["now"]["tau"]); });
  refuse("ends at tau", [&](Json& s) { up(s["monitors"]["adascale"]["last"]["tau"]); });
  refuse("ends at tau", [&](Json& s) { up(s["monitors"]["adascale"]["last"]["noise_scale"]); });
  refuse("lr of step 60", [&](Json& s) { up(s["last_step"]["lr"]); });
  refuse("damaged", [](Json& s) { s["monitors"].erase("adascale"); });
  refuse("damaged", [](Json& s) { s["monitors"].erase("noise"); });
}

TEST(AdaScale, SkippedUpdatesAdvanceTheClockWithTheirSamples) {
  Coordinator coordinator(gain_recipe(), 1);
  run(coordinator, 25);
  const auto plan = coordinator.next_step();
  StepFacts facts = facts_at(*plan, 1e6);
  facts.applied = false;
  coordinator.on_step(facts);
  EXPECT_EQ(coordinator.tau(), plan->tau + plan->tau_advance);
  EXPECT_EQ(coordinator.next_step()->lr_multiplier, plan->lr_multiplier);
}

TEST(AdaScale, WhatTheRecipeNeeds) {
  Recipe recipe = gain_recipe();
  recipe.samples_per_epoch = 6400;
  recipe.budget_samples = 30000;
  EXPECT_TRUE(contradictions(recipe, 1).empty());
  EXPECT_TRUE(advice(recipe, 1).empty());
  recipe.noise_horizon_samples = 300;
  EXPECT_THAT(advice(recipe, 1),
              ElementsAre(AllOf(HasSubstr("noise.horizon of 300 samples averages over too few"),
                                HasSubstr("gain stays 1"), HasSubstr("6400, at least 384"))));
  recipe.noise_horizon_samples = 6400;
  recipe.leaf_size = 64;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(AllOf(HasSubstr("single leaf of batch.micro 64"),
                                                   HasSubstr("use batch.micro 32 or less"))));
  recipe.leaf_size = 4;
  recipe.noise_horizon_samples = 0;
  EXPECT_THAT(contradictions(recipe, 1),
              ElementsAre(AllOf(HasSubstr("scale.rule adascale needs"),
                                HasSubstr("noise.horizon is 0"), HasSubstr("such as 6400"))));
  recipe.noise_horizon_samples = -1;
  EXPECT_THAT(contradictions(recipe, 1),
              ElementsAre(HasSubstr("noise.horizon in samples is -1; use 0 (off) or more")));
}

}  // namespace
}  // namespace lorascale::coordinator
