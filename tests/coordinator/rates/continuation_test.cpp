#include "coordinator/rates/continuation.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>

#include "coordinator/rates/schedule.hpp"
#include "coordinator/record/decision_log.hpp"
#include "coordinator/record/recipe_json.hpp"
#include "coordinator/record/replay.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::expect_error;
using testing::facts_of;
using ::testing::HasSubstr;
using testing::of_kind;
using testing::small_recipe;

constexpr ScheduleKind kAll[] = {ScheduleKind::kConstant, ScheduleKind::kLinear,
                                 ScheduleKind::kCosine, ScheduleKind::kWsd};

Recipe recipe_of(ScheduleKind kind) {
  Recipe recipe = small_recipe();
  recipe.schedule = kind;
  recipe.decay_samples = kind == ScheduleKind::kWsd ? 600 : 0;
  return recipe;
}

// At most `steps` updates; their plans.
std::vector<StepPlan> updates(Coordinator& run, std::int64_t steps = 100000) {
  std::vector<StepPlan> plans;
  while (static_cast<std::int64_t>(plans.size()) < steps) {
    const auto plan = run.next_step();
    if (!plan) {
      break;
    }
    plans.push_back(*plan);
    run.on_step(facts_of(plan->step));
  }
  return plans;
}

void expect_equal(const std::vector<StepPlan>& some, const std::vector<StepPlan>& others,
                  std::size_t first = 0) {
  ASSERT_EQ(some.size() + first, others.size());
  for (std::size_t i = 0; i < some.size(); ++i) {
    const StepPlan& a = some[i];
    const StepPlan& b = others[i + first];
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.first_position, b.first_position);
    EXPECT_EQ(a.samples, b.samples);
    EXPECT_EQ(a.lr, b.lr) << "update " << a.step;  // bit for bit
  }
}

Coordinator with_more(const Coordinator& run, std::int64_t samples,
                      LegStart start = LegStart::kAuto, int ranks = 2) {
  const Leg leg = leg_for_more(run.recipe(), run.tau(), samples, start, 100, samples / 10);
  return Coordinator::restore(with_leg(run.recipe(), leg), ranks, run.state());
}

// Closed forms: a leg is a schedule of its own, counted from where it begins.
TEST(Continuation, ALegCountsFromItsBeginning) {
  Recipe recipe = recipe_of(ScheduleKind::kCosine);
  recipe.floor = 0.1;
  const double there = schedule_multiplier(recipe, 1650, 0);  // halfway of 300 to 3000
  EXPECT_DOUBLE_EQ(there, 0.1 + 0.9 * 0.5);
  const Leg present = leg_for_more(recipe, 1650, 650, LegStart::kAuto, 100, 0);
  const Recipe longer = with_leg(recipe, present);
  EXPECT_EQ(longer.budget_samples, 3650);
  EXPECT_EQ(longer.first_leg_end, 3000);
  EXPECT_EQ(schedule_multiplier(longer, 1649, 64), schedule_multiplier(recipe, 1649, 64));
  EXPECT_EQ(schedule_multiplier(longer, 1650, 64), there);
  for (const double position : {1700.0, 2000.0, 2650.0, 3600.0}) {
    const double shape = 0.5 * (1 + std::cos(std::numbers::pi * (position - 1650) / 2000));
    EXPECT_NEAR(schedule_multiplier(longer, position, 64), 0.1 + (there - 0.1) * shape, 1e-12);
  }
  const Recipe warm = with_leg(recipe, leg_for_more(recipe, 1650, 650, LegStart::kRewarm, 100, 0));
  EXPECT_DOUBLE_EQ(schedule_multiplier(warm, 1650, 20), there + (1 - there) * 0.2);
  EXPECT_EQ(schedule_multiplier(warm, 1750, 64), 1);
  EXPECT_EQ(schedule_multiplier(warm, 3650, 0), 0.1);
}

// From the present rate where there is one to fall from, else by a rise.
TEST(Continuation, HowALegBeginsUnlessToldOtherwise) {
  const auto starts = [](ScheduleKind kind, double position, double floor = 0) {
    Recipe recipe = recipe_of(kind);
    recipe.floor = floor;
    return leg_for_more(recipe, position, 1000, LegStart::kAuto, 100, 100).warmup > 0;
  };
  for (const ScheduleKind kind : kAll) {
    EXPECT_TRUE(starts(kind, 128)) << "within the first warmup";
    EXPECT_FALSE(starts(kind, 1000));
    EXPECT_EQ(starts(kind, 3000), kind != ScheduleKind::kConstant);
    EXPECT_EQ(starts(kind, 3000, 0.2), kind != ScheduleKind::kConstant);
  }
  EXPECT_FALSE(starts(ScheduleKind::kWsd, 2800)) << "in its decay, above the floor";
}

// What was done keeps its rates; a leg killed anywhere goes on with the same bits on any number of
// ranks; and the record gives the same decisions again.
TEST(Continuation, LegsSurviveKillsAndReplay) {
  for (const ScheduleKind kind : kAll) {
    const Recipe recipe = recipe_of(kind);
    for (const std::int64_t before : {20, 48}) {  // on the way, and at the end
      Coordinator first(recipe, 4);
      Recorder recorder(recipe);
      std::vector<RecordedEvent> events;
      const auto past = updates(first, before);
      for (const StepPlan& plan : past) {
        events.push_back(recorder.record(facts_of(plan.step)));
      }
      auto decisions = first.take_decisions();
      Coordinator whole = with_more(first, 1500);
      events.push_back(recorder.record(resume_facts(whole)));
      const Coordinator begun = with_more(first, 1500);
      const auto leg = updates(whole);
      EXPECT_EQ(whole.samples_seen(), 4500);
      EXPECT_EQ(whole.steps_expected(), whole.steps_done());
      for (const StepPlan& plan : leg) {
        events.push_back(recorder.record(facts_of(plan.step)));
      }
      for (std::size_t kill = 0; kill <= leg.size(); kill += 3) {
        Coordinator killed = Coordinator::restore(begun.recipe(), 2, begun.state());
        updates(killed, static_cast<std::int64_t>(kill));
        Coordinator again = Coordinator::restore(killed.recipe(), 3, killed.state());
        expect_equal(updates(again), leg, kill);
        EXPECT_EQ(again.state_hash(), whole.state_hash());
      }
      for (Decision& decision : whole.take_decisions()) {
        decisions.push_back(std::move(decision));
      }
      const ReplayResult replayed = replay(recipe, 4, events);
      EXPECT_EQ(replayed.state, whole.state());
      ASSERT_EQ(replayed.decisions.size(), decisions.size());
      for (std::size_t i = 0; i < decisions.size(); ++i) {
        EXPECT_EQ(to_json_line(replayed.decisions[i]), to_json_line(decisions[i]));
      }
      EXPECT_EQ(std::ranges::count_if(decisions, [](const Decision& d) { return d.kind == "leg"; }),
                1);
    }
  }
}

TEST(Continuation, LegsFollowLegs) {
  Coordinator run(recipe_of(ScheduleKind::kCosine), 2);
  updates(run);
  run = with_more(run, 1000);
  updates(run, 5);
  run = with_more(run, 500, LegStart::kRewarm);
  ASSERT_EQ(run.recipe().legs.size(), 2U);
  EXPECT_EQ(run.recipe().first_leg_end, 3000);
  EXPECT_EQ(run.recipe().budget_samples, 4500);
  const auto rest = updates(run);
  EXPECT_EQ(rest.front().first_position, 3320);
  EXPECT_EQ(rest.back().first_position + rest.back().samples, 4500);
  // Through text and back.
  EXPECT_EQ(recipe_from_json(Json::parse(recipe_to_json(run.recipe()).dump())).legs,
            run.recipe().legs);
}

// A cooldown from any checkpoint ends like a wsd run that was planned to end there.
TEST(Continuation, ACooldownIsTheDecayOfAShorterWsd) {
  for (const double floor : {0.0, 0.25}) {
    Recipe recipe = recipe_of(ScheduleKind::kWsd);
    recipe.floor = floor;
    for (const std::int64_t steps : {10, 27}) {
      Coordinator first(recipe, 2);
      updates(first, steps);
      const std::int64_t samples = cooldown_samples(first.tau(), 0.1);
      EXPECT_NEAR(static_cast<double>(samples) / (first.tau() + static_cast<double>(samples)), 0.1,
                  1e-3);
      const Leg leg = cooldown_leg(recipe, first.tau(), samples);
      Coordinator cooled = Coordinator::restore(with_leg(recipe, leg), 1, first.state());
      const auto end = updates(cooled);
      Recipe planned = recipe;
      planned.budget_samples = first.samples_seen() + samples;
      planned.decay_samples = samples;
      Coordinator whole(planned, 2);
      expect_equal(end, updates(whole), static_cast<std::size_t>(steps));
    }
  }
}

// constant at any time, wsd until its decay begins: the run grown is the run that was longer from
// the start, with the warmup of the first.
TEST(Continuation, BudgetsGrowWhereNoUsedRateDependsOnThem) {
  for (const ScheduleKind kind : {ScheduleKind::kConstant, ScheduleKind::kWsd}) {
    const Recipe recipe = recipe_of(kind);
    Recipe longer = recipe;
    longer.budget_samples = 6000;
    longer.decay_samples *= 2;
    Coordinator whole(longer, 2);
    const auto plans = updates(whole);
    for (std::int64_t stop = 1; stop <= 47; ++stop) {
      Coordinator first(recipe, 2);
      updates(first, stop);
      // As a start resolves it: 10 % of the new budget for each.
      Recipe anew = longer;
      anew.warmup_samples = 600;
      const Recipe next = continued(recipe, anew, first.tau());
      EXPECT_EQ(next.warmup_samples, 300);
      if (kind == ScheduleKind::kConstant || first.samples_seen() <= 2400) {
        Coordinator grown = Coordinator::restore(next, 3, first.state());
        expect_equal(updates(grown), plans, static_cast<std::size_t>(stop));
        EXPECT_EQ(grown.state_hash(), whole.state_hash());
      } else {
        expect_error(
            ExitCode::kBadConfig,
            {"budget.samples was 3000 and is 6000", "began at sample 2400", "--more", "--at-step"},
            [&] { Coordinator::restore(next, 3, first.state()); });
      }
    }
  }
}

TEST(Continuation, GrownBudgetsReplay) {
  const Recipe recipe = recipe_of(ScheduleKind::kWsd);
  Coordinator run(recipe, 2);
  Recorder recorder(recipe);
  std::vector<RecordedEvent> events;
  for (const StepPlan& plan : updates(run, 20)) {
    events.push_back(recorder.record(facts_of(plan.step)));
  }
  Recipe longer = recipe;
  longer.budget_samples = 5000;
  longer.decay_samples = 1000;
  run = Coordinator::restore(longer, 2, run.state());
  events.push_back(event_from_json_line(to_json_line(recorder.record(resume_facts(run)))));
  for (const StepPlan& plan : updates(run)) {
    events.push_back(recorder.record(facts_of(plan.step)));
  }
  EXPECT_EQ(run.samples_seen(), 5000);
  EXPECT_EQ(replay(recipe, 2, events).state, run.state());
}

TEST(Continuation, ABudgetUnderACosineNamesTheWayOn) {
  Coordinator first(recipe_of(ScheduleKind::kCosine), 2);
  updates(first, 10);
  Recipe longer = first.recipe();
  longer.budget_samples = 6000;
  expect_error(ExitCode::kBadConfig, {"follows the budget", "--more AMOUNT"},
               [&] { Coordinator::restore(longer, 2, first.state()); });
}

// Lengths that were shares of the budget stay what they were, and legs stay while the budget does.
TEST(Continuation, WhatAStartTakesOver) {
  Recipe then = recipe_of(ScheduleKind::kWsd);
  then.ema_half_life_samples = 50;
  then.swa_start_samples = 1000;
  Recipe now = then;
  now.budget_samples = 6000;
  now.decay_samples = 1200;
  now.warmup_samples = 600;
  now.ema_half_life_samples = 100;
  now.swa_start_samples = 2000;
  const Recipe early = continued(then, now, 900);
  EXPECT_EQ(early.warmup_samples, 300);
  EXPECT_EQ(early.ema_half_life_samples, 50);
  EXPECT_EQ(early.decay_samples, 1200);
  EXPECT_EQ(early.swa_start_samples, 2000);
  EXPECT_TRUE(forbidden_changes(then, early, 900).empty());
  const Recipe late = continued(then, now, 1001);
  EXPECT_EQ(late.swa_start_samples, 1000);
  EXPECT_TRUE(forbidden_changes(then, late, 1001).empty());
  EXPECT_EQ(continued(then, now, 2401).decay_samples, 600);

  const Recipe legs = with_leg(then, leg_for_more(then, 3000, 500, LegStart::kAuto, 10, 50));
  EXPECT_EQ(continued(legs, then, 3100).legs, legs.legs);
  EXPECT_EQ(continued(legs, then, 3100).budget_samples, 3500);
  EXPECT_TRUE(forbidden_changes(legs, continued(legs, then, 3100), 3100).empty());
  const auto lines = forbidden_changes(legs, continued(legs, now, 3100), 3100);
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_THAT(lines[0], HasSubstr("budget of 3000"));
}

// A leg may not begin in what was done, nor where the run is not.
TEST(Continuation, LegsLieAhead) {
  Coordinator first(recipe_of(ScheduleKind::kCosine), 2);
  updates(first, 10);  // 640 samples
  for (const double begin : {576.0, 704.0}) {
    const Leg leg = leg_for_more(first.recipe(), begin, 500, LegStart::kPresent, 0, 0);
    const Recipe recipe = with_leg(first.recipe(), leg);
    EXPECT_ANY_THROW(Coordinator::restore(recipe, 2, first.state())) << begin;
  }
}

TEST(Continuation, DamagedLegsAreRefused) {
  const Recipe recipe = recipe_of(ScheduleKind::kCosine);
  const Recipe sound = with_leg(recipe, leg_for_more(recipe, 3000, 500, LegStart::kAuto, 50, 0));
  EXPECT_TRUE(contradictions(sound, 1).empty());
  const auto refuse = [&](const std::function<void(Recipe&)>& change) {
    Recipe damaged = sound;
    change(damaged);
    EXPECT_FALSE(contradictions(damaged, 1).empty());
  };
  refuse([](Recipe& r) { r.legs[0].begin = std::numeric_limits<double>::quiet_NaN(); });
  refuse([](Recipe& r) { r.legs[0].begin = 3500; });
  refuse([](Recipe& r) { r.legs[0].begin = -1; });
  refuse([](Recipe& r) { r.legs[0].from = 1.5; });
  refuse([](Recipe& r) { r.legs[0].peak = -0.1; });
  refuse([](Recipe& r) { r.legs[0].floor = std::numeric_limits<double>::infinity(); });
  refuse([](Recipe& r) { r.legs[0].warmup = 501; });
  refuse([](Recipe& r) { r.legs[0].warmup = -1; });
  refuse([](Recipe& r) { r.legs[0].decay = -1; });
  refuse([](Recipe& r) { r.legs[0].end = 3400; });
  refuse([](Recipe& r) { r.budget_samples = 3600; });
  refuse([](Recipe& r) { r.first_leg_end = 0; });
}

// Gone back to before a leg, updates end where it begins, as they did the first time.
TEST(Continuation, ARecoveryGoesBackBeforeALeg) {
  Recipe recipe = recipe_of(ScheduleKind::kConstant);
  recipe.budget_samples = 1100;  // a budget's last update is short
  recipe.max_recoveries = 1;
  recipe.max_skipped_in_row = 2;
  Coordinator run(recipe, 2);
  updates(run, 16);
  EXPECT_EQ(run.samples_seen(), 1000);
  const std::string before = run.state();
  updates(run);
  run = with_more(run, 1000);
  for (int skipped = 0; skipped < 2; ++skipped) {
    StepFacts facts = facts_of(run.next_step()->step);
    facts.applied = false;
    run.on_step(facts);
  }
  ASSERT_TRUE(run.recovery_due());
  run.recover(before);
  EXPECT_EQ(run.samples_seen(), 1000);
  const auto plans = updates(run);
  EXPECT_EQ(plans[0].samples, 64);
  EXPECT_EQ(plans[1].samples, 36);  // to 1100
  EXPECT_EQ(plans[2].samples, 64);
  EXPECT_EQ(run.samples_seen(), 2100);
}

// Under adascale a leg begins where tau is, which is no whole number of samples.
TEST(Continuation, LegsInTheClockOfAdascale) {
  Recipe recipe = recipe_of(ScheduleKind::kCosine);
  recipe.rule = ScaleRule::kAdascale;
  recipe.noise_horizon_samples = 1280;
  recipe.reference_batch = 48;
  Coordinator run(recipe, 2);
  updates(run);
  EXPECT_GE(run.tau(), 3000);
  const double begin = run.tau();
  run = with_more(run, 777);
  EXPECT_EQ(run.recipe().legs.at(0).begin, begin);
  Coordinator again = Coordinator::restore(run.recipe(), 3, run.state());
  expect_equal(updates(again, 3), updates(run, 3));
  Coordinator third = Coordinator::restore(again.recipe(), 1, again.state());
  expect_equal(updates(third), updates(run));
  EXPECT_GE(run.tau(), 3777);
}

TEST(Continuation, OneLineTellsWhichScheduleThisIs) {
  const auto line = [](ScheduleKind kind, double position) {
    return ways_on(recipe_of(kind), position);
  };
  EXPECT_THAT(line(ScheduleKind::kCosine, 0), HasSubstr("--more AMOUNT"));
  EXPECT_THAT(line(ScheduleKind::kLinear, 3000), HasSubstr("--more AMOUNT"));
  EXPECT_THAT(line(ScheduleKind::kConstant, 3000), HasSubstr("at any time"));
  EXPECT_THAT(line(ScheduleKind::kWsd, 2400), HasSubstr("begins at sample 2400"));
  EXPECT_THAT(line(ScheduleKind::kWsd, 2401), HasSubstr("has begun its decay"));
  for (const ScheduleKind kind : kAll) {
    EXPECT_EQ(line(kind, 3000).find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace lorascale::coordinator
