// The advisor on made-up courses of a run: healthy ones of many seeds, and one for each symptom.
// Facts have what a real update has: a level that follows the parameters, the choice of samples on
// top of it, and the standard error that the leaves show of that choice, itself an estimate.
#include "coordinator/advisor.hpp"

#include <cmath>
#include <functional>
#include <limits>

#include "coordinator/record/replay.hpp"
#include "simulation/gradient_draws.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using simulation::exact_group;
using simulation::Normal;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::of_kind;

// 20 epochs of 40 updates of 16 samples in 8 leaves, tuned at 16: nothing to object to.
Recipe healthy_recipe() {
  Recipe recipe;
  recipe.samples_per_epoch = 640;
  recipe.global_batch = 16;
  recipe.reference_batch = 16;
  recipe.leaf_size = 2;
  recipe.budget_samples = 800 * 16;
  recipe.warmup_samples = 40 * 16;
  recipe.advise = true;
  recipe.adapter_rank = 8;
  recipe.trainable_parameters = 100'000;
  recipe.targets_per_epoch = 100'000;
  return recipe;
}

// A course of a run, as functions of the step.
struct Course {
  std::function<double(std::int64_t)> level;            // training loss of the parameters
  std::function<double(std::int64_t)> validation = {};  // none: no validations
  std::function<double(std::int64_t)> movement = [](std::int64_t step) {
    return 1e-5 * static_cast<double>(step);
  };
  double sampling = 0.5;  // standard deviation of one sample's loss
  double noise_of_validation = 0.002;
  double noise_scale = 0;  // 0: not measured
  std::function<bool(std::int64_t)> finite = [](std::int64_t) { return true; };
};

constexpr std::int64_t kValidateEvery = 40;

class Source {
 public:
  Source(const Course& course, std::uint64_t seed) : course_(course), normal_(seed) {}

  StepFacts operator()(const StepPlan& plan) {
    StepFacts facts;
    facts.step = plan.step;
    facts.grad_norm = 0.5 + 0.05 * normal_();
    const auto samples = static_cast<double>(plan.samples);
    const auto freedom = static_cast<double>(plan.leaves - 1);
    const double error = course_.sampling / std::sqrt(samples);
    facts.loss = course_.level(plan.step) + error * normal_();
    double square = 0;
    for (int i = 0; i < plan.leaves - 1; ++i) {
      const double draw = normal_();
      square += draw * draw / freedom;
    }
    facts.loss_error = plan.leaves > 1 ? error * std::sqrt(square) : 0;
    facts.applied = course_.finite(plan.step);
    if (!facts.applied) {
      facts.loss = std::numeric_limits<double>::quiet_NaN();
    }
    if (course_.noise_scale > 0) {
      const double trace = 1 + 0.1 * normal_();
      facts.noise.push_back(exact_group("lora_B", samples, trace, trace / course_.noise_scale));
    }
    return facts;
  }
  double validation_noise() { return course_.noise_of_validation * normal_(); }

 private:
  const Course& course_;
  Normal normal_;
};

struct Outcome {
  std::vector<Decision> advice;
  std::vector<Advice> given;
  std::vector<RecordedEvent> events;
  std::vector<Decision> decisions;
  std::string state;
  std::uint64_t hash = 0;

  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const Advice& one : given) {
      names.push_back(one.finding);
    }
    return names;
  }
  [[nodiscard]] Json inputs() const { return Json::parse(advice.at(0).inputs); }
};

// `resume_at`: the run is stopped after this update and goes on with `ranks_after` ranks.
Outcome run_course(const Recipe& recipe, const Course& course, std::uint64_t seed = 1,
                   int world_size = 1, std::int64_t resume_at = -1, int ranks_after = 1) {
  Coordinator coordinator(recipe, world_size);
  Recorder recorder(recipe);
  Source source(course, seed);
  Outcome outcome;
  const auto record = [&](const Event& event) { outcome.events.push_back(recorder.record(event)); };
  const auto keep = [&] {
    for (Decision& decision : coordinator.take_decisions()) {
      outcome.decisions.push_back(std::move(decision));
    }
  };
  const auto validate = [&](std::int64_t step) {
    if (course.validation) {
      const EvaluationFacts facts{step, course.validation(step) + source.validation_noise()};
      coordinator.on_evaluation(facts);
      record(facts);
    }
    const MovementFacts facts{step, course.movement(step)};
    coordinator.on_movement(facts);
    record(facts);
  };
  validate(0);
  while (const auto plan = coordinator.next_step()) {
    const StepFacts facts = source(*plan);
    coordinator.on_step(facts);
    record(facts);
    if (plan->step % kValidateEvery == 0) {
      validate(plan->step);
    }
    if (plan->step == resume_at) {
      keep();
      coordinator = Coordinator::restore(recipe, ranks_after, coordinator.state());
      record(ResumeFacts{plan->step, ranks_after, recipe.leaf_size, recipe.budget_samples,
                         recipe.budget_minutes, recipe.advise});
    }
  }
  keep();
  outcome.advice = of_kind(outcome.decisions, "advice");
  outcome.given = coordinator.advice_given();
  outcome.state = coordinator.state();
  outcome.hash = coordinator.state_hash();
  return outcome;
}

double falling(std::int64_t step) {
  return 1.2 + 1.3 * std::exp(-static_cast<double>(step) / 150);
}

// Courses of all kinds that an engineer would leave alone: fast and slow descents, to a plateau or
// not, with a slow random walk on top, from quiet to very noisy batches, of few and many leaves,
// noise scales on both sides of the batch, validations that follow at a distance.
TEST(Advisor, SaysNothingOfHealthyRuns) {
  constexpr int kSeeds = 300;
  int alarms = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Normal draw(1000 + seed);
    Recipe recipe = healthy_recipe();
    recipe.leaf_size = std::int64_t{1} << (seed % 4);  // 16, 8, 4 or 2 leaves
    recipe.noise_horizon_samples = seed % 2 == 0 ? 1600 : 0;
    const double floor = std::exp(0.7 * draw());
    const double drop = floor * std::exp(draw() - 0.5);
    const double length = 200 * std::exp(draw());
    std::vector<double> walk = {0};
    for (int i = 0; i < 1000; ++i) {
      walk.push_back(0.99 * walk.back() + 0.002 * floor * draw());
    }
    Course course;
    course.level = [&](std::int64_t step) {
      return floor + drop * std::exp(-static_cast<double>(step) / length) +
             walk[static_cast<std::size_t>(step)];
    };
    course.validation = [&](std::int64_t step) { return 1.05 * course.level(step); };
    course.sampling = floor * std::exp(draw() - 0.5);
    course.noise_scale = recipe.noise_horizon_samples > 0 ? 16 * std::exp(0.5 + 0.5 * draw()) : 0;
    const Outcome outcome = run_course(recipe, course, seed);
    alarms += outcome.given.empty() ? 0 : 1;
    for (const Decision& decision : outcome.advice) {
      ADD_FAILURE() << "seed " << seed << ": " << decision.reason;
    }
  }
  std::printf("[ seen     ] %d of %d healthy runs were given advice\n", alarms, kSeeds);
}

// A level that jumps between two heights every few updates; the parameters, not the samples.
double jumping(std::int64_t step) {
  return step < 60 ? falling(step) : 1.6 + ((step / 3) % 2 == 0 ? 0.35 : -0.35);
}

TEST(Advisor, TheNoiseScaleTellsAHighRateFromASmallBatch) {
  Recipe recipe = healthy_recipe();
  Course course{jumping};
  const auto said = [&](double noise_scale) {
    course.noise_scale = noise_scale;
    recipe.noise_horizon_samples = noise_scale > 0 ? 1600 : 0;
    const Outcome outcome = run_course(recipe, course);
    EXPECT_THAT(outcome.names(), ElementsAre("loss_oscillates")) << noise_scale;
    return outcome;
  };
  EXPECT_EQ(said(10).inputs().at("cause"), "rate");
  EXPECT_THAT(said(10).advice.at(0).reason, HasSubstr("lower optimizer.lr"));
  EXPECT_EQ(said(100).inputs().at("cause"), "batch");
  EXPECT_THAT(said(100).advice.at(0).reason, HasSubstr("raise batch.global to 32"));
  EXPECT_EQ(said(0).inputs().at("cause"), "unknown");
  EXPECT_THAT(said(0).advice.at(0).reason, HasSubstr("noise.horizon of 1600 samples would tell"));
}

// The same jumps are nothing where the choice of samples alone explains them, where it is not known
// what explains them, and where rows come in the order of the file.
TEST(Advisor, AScatterThatTheSamplesExplainIsNoOscillation) {
  Recipe recipe = healthy_recipe();
  Course course{[](std::int64_t step) { return falling(std::min<std::int64_t>(step, 300)); }};
  course.sampling = 0.35 * 4;  // as the jumps, for a batch of 16
  EXPECT_THAT(run_course(recipe, course).names(), IsEmpty());
  recipe.leaf_size = 16;
  EXPECT_THAT(run_course(recipe, {jumping}).names(), IsEmpty());
  recipe = healthy_recipe();
  recipe.shuffled = false;
  EXPECT_THAT(run_course(recipe, {jumping}).names(), IsEmpty());
}

TEST(Advisor, SeesARisingLoss) {
  const Course course{[](std::int64_t step) {
    return step < 200 ? falling(step) : falling(200) + 0.005 * static_cast<double>(step - 200);
  }};
  const Outcome outcome = run_course(healthy_recipe(), course);
  ASSERT_THAT(outcome.names(), ElementsAre("loss_rises"));
  const Json inputs = outcome.inputs();
  EXPECT_GT(inputs.at("now").at("mean").get<double>(),
            1.1 * inputs.at("before").at("mean").get<double>());
  EXPECT_GE(inputs.at("standard_errors").get<double>(), 6);
  EXPECT_THAT(outcome.advice[0].reason, HasSubstr("lower optimizer.lr about threefold"));
}

// A rate a hundred times too high: the loss jumps within the first updates and stays up.
TEST(Advisor, SeesALossThatRisesAtOnce) {
  const Course course{[](std::int64_t step) { return step <= 3 ? 2.5 : 7.0; }};
  const Outcome outcome = run_course(healthy_recipe(), course);
  ASSERT_THAT(outcome.names(), ElementsAre("loss_rises"));
  EXPECT_EQ(outcome.given[0].step, 48);  // the first block has losses from before the jump
}

TEST(Advisor, SeesUpdatesThatAreNotFinite) {
  Course course{falling};
  course.finite = [](std::int64_t step) { return step != 50 && step != 70; };
  EXPECT_THAT(run_course(healthy_recipe(), course).names(), IsEmpty());  // two are nothing
  course.finite = [](std::int64_t step) { return step % 60 != 0; };
  const Outcome outcome = run_course(healthy_recipe(), course);
  EXPECT_THAT(outcome.names(), IsEmpty());  // three in 121 updates
  course.finite = [](std::int64_t step) { return step % 40 != 0; };
  const Outcome often = run_course(healthy_recipe(), course);
  ASSERT_THAT(often.names(), ElementsAre("not_finite"));
  EXPECT_EQ(often.inputs().at("skipped_steps"), Json({40, 80, 120}));
}

TEST(Advisor, SeesOverFitting) {
  Course course{falling};
  course.validation = [](std::int64_t step) {
    return step <= 160 ? falling(step) + 0.05 : 1.7 + 0.001 * static_cast<double>(step - 160);
  };
  const Outcome outcome = run_course(healthy_recipe(), course);
  ASSERT_THAT(outcome.names(), ElementsAre("over_fitting"));
  EXPECT_EQ(outcome.inputs().at("best_step"), 160);
  EXPECT_GE(outcome.inputs().at("validations_above").get<int>(), 3);
  EXPECT_THAT(outcome.advice[0].reason, HasSubstr("4 of 7 epochs so far"));

  // A validation loss that rises while the training loss stays is no over-fitting; nor is it within
  // the first epoch.
  course.level = [](std::int64_t step) { return falling(std::min<std::int64_t>(step, 160)); };
  EXPECT_THAT(run_course(healthy_recipe(), course).names(), IsEmpty());
  course.level = falling;
  Recipe one_epoch = healthy_recipe();
  one_epoch.samples_per_epoch = one_epoch.budget_samples;
  EXPECT_THAT(run_course(one_epoch, course).names(), IsEmpty());
}

// Pictures: each sample is at a time of its own, so losses scatter by as much as they are large,
// and a level of 16 updates tells nothing.
TEST(Advisor, SeesOverFittingOfPictures) {
  Course course;
  course.level = [](std::int64_t step) {
    return 0.12 - 0.03 * static_cast<double>(std::max<std::int64_t>(0, step - 160)) / 640;
  };
  course.validation = [](std::int64_t step) {
    const double past = static_cast<double>(step - 160);
    return 0.14 + (past < 0 ? -1e-4 : 3e-5) * past;
  };
  course.sampling = 0.12;
  course.noise_of_validation = 0.0002;  // always the same times and noise
  int seen = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Outcome outcome = run_course(healthy_recipe(), course, seed);
    seen += outcome.names() == std::vector<std::string>{"over_fitting"} ? 1 : 0;
  }
  EXPECT_GE(seen, 8);
  // A training loss that stays where it is: none of it, whatever the validation does.
  course.level = [](std::int64_t) { return 0.12; };
  int alarms = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    alarms += run_course(healthy_recipe(), course, seed).names().empty() ? 0 : 1;
  }
  EXPECT_LE(alarms, 3);
}

TEST(Advisor, SeesAnAdapterThatDoesNotMove) {
  Recipe recipe = healthy_recipe();
  Course course{[](std::int64_t) { return 2.5; }};
  course.movement = [](std::int64_t step) { return 1e-9 * static_cast<double>(step); };
  recipe.lr = 1e-9;
  Outcome outcome = run_course(recipe, course);
  ASSERT_THAT(outcome.names(), ElementsAre("no_movement"));
  EXPECT_EQ(outcome.inputs().at("cause"), "rate");
  EXPECT_EQ(outcome.given[0].step, 80);  // 40 updates of warmup and 30 more, at a validation

  recipe.lr = 2e-4;  // as small a movement, but not because of the rate
  outcome = run_course(recipe, course);
  ASSERT_THAT(outcome.names(), ElementsAre("no_movement"));
  EXPECT_EQ(outcome.inputs().at("cause"), "scale");

  // A loss that falls, or an adapter that began elsewhere and goes on from there, has moved.
  recipe.lr = 1e-9;
  course.level = falling;
  EXPECT_THAT(run_course(recipe, course).names(), IsEmpty());
  course.level = [](std::int64_t) { return 2.5; };
  course.movement = [](std::int64_t step) { return 0.01 + 1e-6 * static_cast<double>(step); };
  EXPECT_THAT(run_course(recipe, course).names(), IsEmpty());
}

TEST(Advisor, SeesAnAdapterThatOverwhelmsTheModel) {
  Course course{falling};
  course.movement = [](std::int64_t step) { return 0.0025 * static_cast<double>(step); };
  EXPECT_THAT(run_course(healthy_recipe(), course).names(), IsEmpty());  // 2 at the end
  course.movement = [](std::int64_t step) { return 0.05 * static_cast<double>(step); };
  const Outcome outcome = run_course(healthy_recipe(), course);
  ASSERT_THAT(outcome.names(), ElementsAre("adapter_overwhelms"));
  EXPECT_EQ(outcome.given[0].step, 80);
  EXPECT_EQ(outcome.inputs().at("times_lower"), 7);  // 4 / 0.1 = 40, of which the root
  EXPECT_THAT(outcome.given[0].text, Not(HasSubstr("nothing of this run")));
  // A loss that only stays where it was does not rise, but it is no result either.
  course.level = [](std::int64_t) { return 2.5; };
  const Outcome still = run_course(healthy_recipe(), course);
  ASSERT_THAT(still.names(), ElementsAre("adapter_overwhelms"));
  EXPECT_THAT(still.given[0].text, HasSubstr("nothing of this run is worth keeping"));
  // Where the loss rises, that is the word, and one is enough.
  course.level = [](std::int64_t step) { return step <= 3 ? 2.5 : 7.0; };
  EXPECT_THAT(run_course(healthy_recipe(), course).names(), ElementsAre("loss_rises"));
}

TEST(Advisor, SeesABatchAboveTheMeasuredNoiseScale) {
  Recipe recipe = healthy_recipe();
  recipe.noise_horizon_samples = 1600;
  Course course{falling};
  course.noise_scale = 2;
  const Outcome outcome = run_course(recipe, course);
  ASSERT_THAT(outcome.names(), ElementsAre("batch_above_critical"));
  EXPECT_EQ(outcome.given[0].step, 201);  // after a quarter of the budget
  EXPECT_NEAR(outcome.inputs().at("samples_factor").get<double>(), 1 + 16 / 2.0, 0.5);
}

TEST(Advisor, OfTheRecipeAlone) {
  const auto names = [](const Recipe& recipe, int world_size = 1) {
    std::vector<std::string> found;
    const Coordinator coordinator(recipe, world_size);
    for (const Advice& advice : coordinator.advice_given()) {
      found.push_back(advice.finding);
    }
    return found;
  };
  EXPECT_THAT(names(healthy_recipe()), IsEmpty());
  EXPECT_THAT(names(healthy_recipe(), 8), IsEmpty());
  Recipe recipe = healthy_recipe();
  recipe.rule = ScaleRule::kNone;
  EXPECT_THAT(names(recipe), IsEmpty());
  recipe.reference_batch = 4;
  EXPECT_THAT(names(recipe), ElementsAre("rate_not_rescaled"));

  recipe = healthy_recipe();
  recipe.patience = 3;
  EXPECT_THAT(names(recipe), IsEmpty());
  recipe.samples_per_epoch = 160;
  EXPECT_THAT(names(recipe), ElementsAre("early_stop", "updates"));

  recipe = healthy_recipe();
  recipe.targets_per_epoch = 200;
  EXPECT_THAT(names(recipe), IsEmpty());  // 500 parameters a target
  recipe.targets_per_epoch = 199;
  EXPECT_THAT(names(recipe), ElementsAre("rank_too_high"));
  recipe.adapter_rank = 1;
  EXPECT_THAT(names(recipe), IsEmpty());  // there is no lower one

  recipe = healthy_recipe();
  recipe.critical_batch = 16;
  EXPECT_THAT(names(recipe), IsEmpty());
  recipe.critical_batch = 15;
  EXPECT_THAT(names(recipe), ElementsAre("batch_above_critical"));
  // A policy that follows the critical batch stays below it by itself, whatever it may reach.
  recipe.critical_batch = 16;
  recipe.batch_policy = BatchPolicyKind::kNoiseScale;
  EXPECT_THAT(names(recipe), IsEmpty());
  recipe.batch_policy = BatchPolicyKind::kRamp;
  recipe.batch_max = 64;
  recipe.batch_ramp_samples = 6400;
  EXPECT_THAT(names(recipe), ElementsAre("batch_above_critical"));

  recipe = healthy_recipe();
  recipe.leaf_size = 8;
  EXPECT_THAT(names(recipe, 2), IsEmpty());
  EXPECT_THAT(names(recipe, 4), ElementsAre("ranks"));
  recipe.advise = false;
  EXPECT_THAT(names(recipe, 4), IsEmpty());
}

// Early stopping at a batch that the plan did not foresee is told when it happens.
TEST(Advisor, OfAnEarlyStopWithFewUpdatesAnEpoch) {
  Recipe recipe = healthy_recipe();
  recipe.samples_per_epoch = 640;
  recipe.patience = 2;
  Advisor advisor(recipe);
  DecisionLog log;
  advisor.on_evaluation({{120, 2.0}, 1920, true}, 16, true, log);
  EXPECT_THAT(advisor.given(), IsEmpty());
  advisor.on_evaluation({{160, 2.0}, 5120, true}, 64, true, log);
  ASSERT_EQ(advisor.given().size(), 1U);
  EXPECT_THAT(
      advisor.given()[0].text,
      ::testing::AllOf(HasSubstr("ended the run after 160 updates"),
                       HasSubstr("has 10 updates of 64"), HasSubstr("batch.global 32 or less")));
}

// Once over the whole run, whatever is stopped and resumed; idle ranks are seen when they come. The
// state hash knows nothing of it, and the record leads to the same words again.
TEST(Advisor, SaysEverythingOnceOverResumesAndReplays) {
  const Course course{jumping};
  Recipe recipe = healthy_recipe();
  const Outcome whole = run_course(recipe, course);
  for (const std::int64_t at : {1, 70, 150, 400}) {
    const Outcome resumed = run_course(recipe, course, 1, 1, at, 16);
    EXPECT_THAT(resumed.names(), ::testing::UnorderedElementsAre("loss_oscillates", "ranks")) << at;
    EXPECT_EQ(resumed.advice.size(), 2U);
    for (const Advice& advice : resumed.given) {
      if (advice.finding == "loss_oscillates") {
        EXPECT_EQ(advice.text, whole.given.at(0).text) << at;
      }
    }
    EXPECT_EQ(resumed.hash, whole.hash);
    const ReplayResult again = replay(recipe, 1, resumed.events);
    EXPECT_EQ(again.state, resumed.state);
    ASSERT_EQ(again.decisions.size(), resumed.decisions.size());
    EXPECT_EQ(again.decisions.back().chain, resumed.decisions.back().chain);
  }
  recipe.advise = false;
  const Outcome silent = run_course(recipe, course);
  EXPECT_THAT(silent.given, IsEmpty());
  EXPECT_EQ(silent.hash, whole.hash);
}

// A checkpoint from before there was an advisor goes on, with advice from there.
TEST(Advisor, RestoresAStateThatKnowsNothingOfIt) {
  Recipe recipe = healthy_recipe();
  recipe.advise = false;
  recipe.adapter_rank = recipe.trainable_parameters = recipe.targets_per_epoch = 0;
  Coordinator before(recipe, 1);
  testing::advance(before, 10);
  Json state = Json::parse(before.state());
  EXPECT_FALSE(state.at("recipe").contains("advice"));
  state.at("log").erase("advice");
  state.at("log").erase("events");
  Coordinator after = Coordinator::restore(healthy_recipe(), 4, state.dump());
  EXPECT_TRUE(after.recipe().advise);
  EXPECT_EQ(after.steps_done(), 10);
  testing::advance(after, 1000);
  EXPECT_FALSE(after.next_step());
}

// The state is JSON that reads back to the same bytes, whatever the facts were.
TEST(Advisor, StateReadsBackBitForBit) {
  Course course{jumping};
  course.validation = falling;
  course.finite = [](std::int64_t step) { return step % 40 != 0; };
  const Recipe recipe = healthy_recipe();
  Coordinator coordinator(recipe, 1);
  Source source(course, 5);
  while (const auto plan = coordinator.next_step()) {
    StepFacts facts = source(*plan);
    if (plan->step % 17 == 0) {
      facts.loss = 1e200;
      facts.loss_error = std::numeric_limits<double>::infinity();
    }
    coordinator.on_step(facts);
    if (plan->step % 97 == 0) {
      const std::string advice = Json::parse(coordinator.state()).at("log").at("advice").dump();
      const auto restored = Coordinator::restore(recipe, 1, coordinator.state());
      EXPECT_EQ(Json::parse(restored.state()).at("log").at("advice").dump(), advice);
    }
  }
}

}  // namespace
}  // namespace lorascale::coordinator
