#include "coordinator/recipe_check.hpp"

#include <limits>

#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using testing::advice;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::small_recipe;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct BadRecipe {
  const char* key_words;
  const char* remedy;
  std::function<void(Recipe&)> change;
};

// Each of these alone, out of a sound recipe: exactly one line, with the key and what to do.
const BadRecipe kBadRecipes[] = {
    {"batch.global is 0", "use 1 or more", [](Recipe& r) { r.global_batch = 0; }},
    {"batch.global is -64", "use 1 or more", [](Recipe& r) { r.global_batch = -64; }},
    {"batch.reference is 0", "tuned at", [](Recipe& r) { r.reference_batch = 0; }},
    {"batch.micro is 0", "auto", [](Recipe& r) { r.leaf_size = 0; }},
    {"batch.micro 6 does not divide batch.global 64", "60 or 66",
     [](Recipe& r) { r.leaf_size = 6; }},
    {"batch.micro 100 does not divide", "batch.global 100, or batch.micro 64",
     [](Recipe& r) { r.leaf_size = 100; }},
    {"training set's number of samples is 0", "data.train",
     [](Recipe& r) { r.samples_per_epoch = 0; }},
    {"budget in samples is 0", "budget of 1 sample", [](Recipe& r) { r.budget_samples = 0; }},
    {"budget in minutes is -1", "0 (no limit)", [](Recipe& r) { r.budget_minutes = -1; }},
    {"budget in minutes is nan", "0 (no limit)", [](Recipe& r) { r.budget_minutes = kNan; }},
    {"optimizer.lr is 0", "above 0", [](Recipe& r) { r.lr = 0; }},
    {"optimizer.lr is -0.1", "above 0", [](Recipe& r) { r.lr = -0.1; }},
    {"optimizer.lr is nan", "above 0", [](Recipe& r) { r.lr = kNan; }},
    {"optimizer.lr is inf", "above 0", [](Recipe& r) { r.lr = kInfinity; }},
    {"optimizer.lr 1e+308 scaled by rule sqrt", "smaller rate", [](Recipe& r) { r.lr = 1e308; }},
    {"optimizer.betas[0] is 1", "less than 1", [](Recipe& r) { r.beta1 = 1; }},
    {"optimizer.betas[0] is -0.1", "less than 1", [](Recipe& r) { r.beta1 = -0.1; }},
    {"optimizer.betas[1] is 1.5", "less than 1", [](Recipe& r) { r.beta2 = 1.5; }},
    {"optimizer.betas[1] is nan", "less than 1", [](Recipe& r) { r.beta2 = kNan; }},
    {"optimizer.eps is 0", "more than 0", [](Recipe& r) { r.eps = 0; }},
    {"optimizer.weight_decay is -1", "0 or more", [](Recipe& r) { r.weight_decay = -1; }},
    {"scale.power is 2", "0 (none) to 1 (linear)", [](Recipe& r) { r.power = 2; }},
    {"schedule.floor is 1.5", "0 to 1", [](Recipe& r) { r.floor = 1.5; }},
    {"schedule.floor is -0.5", "0 to 1", [](Recipe& r) { r.floor = -0.5; }},
    {"schedule.warmup in samples is -1", "0 or more", [](Recipe& r) { r.warmup_samples = -1; }},
    {"schedule.decay in samples is -1", "0 or more", [](Recipe& r) { r.decay_samples = -1; }},
    {"schedule.warmup of 3001 samples is longer than the budget of 3000", "shorten",
     [](Recipe& r) { r.warmup_samples = 3001; }},
    {"schedule.warmup of 300 and schedule.decay of 2701 samples do not both fit", "shorten",
     [](Recipe& r) {
       r.schedule = ScheduleKind::kWsd;
       r.decay_samples = 2701;
     }},
    {"k (1 - beta) = 1.28", "batch.global 49 or less",
     [](Recipe& r) {
       r.scale_betas = true;
       r.beta1 = 0.68;
     }},
    {"k (1 - beta) = 4", "use batch.global 15 or less, a larger beta, or scale.betas: false",
     [](Recipe& r) {
       r.scale_betas = true;
       r.beta1 = 0;
     }},
    {"average.half_life in samples is -1", "0 (off)",
     [](Recipe& r) { r.ema_half_life_samples = -1; }},
    {"average.start in samples is -1", "0 or more", [](Recipe& r) { r.swa_start_samples = -1; }},
    {"average.start of 3000 samples leaves no update of the budget of 3000", "75%",
     [](Recipe& r) { r.swa_start_samples = 3000; }},
    {"patience is -1", "0 (off)", [](Recipe& r) { r.patience = -1; }},
    {"min_delta is -1", "0 or more", [](Recipe& r) { r.min_delta = -1; }},
    {"divergence_z is nan", "0 (off)", [](Recipe& r) { r.divergence_z = kNan; }},
    {"divergence_patience is -1", "0 (off)", [](Recipe& r) { r.divergence_patience = -1; }},
    {"max_skipped_in_row is -1", "0 (off)", [](Recipe& r) { r.max_skipped_in_row = -1; }},
};

TEST(RecipeCheck, EachContradictionHasOneLineWithItsRemedy) {
  ASSERT_THAT(contradictions(small_recipe(), 8), IsEmpty());
  for (const BadRecipe& bad : kBadRecipes) {
    Recipe recipe = small_recipe();
    bad.change(recipe);
    EXPECT_THAT(contradictions(recipe, 8),
                ElementsAre(::testing::AllOf(HasSubstr(bad.key_words), HasSubstr(bad.remedy))));
    testing::expect_error(ExitCode::kBadConfig, {bad.key_words}, [&] { Coordinator(recipe, 8); });
  }
}

TEST(RecipeCheck, TellsAllContradictionsAtOnce) {
  Recipe recipe = small_recipe();
  recipe.lr = -1;
  recipe.global_batch = 0;
  recipe.floor = 2;
  try {
    check_recipe(recipe, 8);
    ADD_FAILURE() << "no error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    EXPECT_THAT(error.what(), ::testing::MatchesRegex("batch.global is 0.*\noptimizer.lr is -1.*\n"
                                                      "schedule.floor is 2.*"));
  }
  testing::expect_error(ExitCode::kBadConfig, {"the world size is 0", "1 rank"},
                        [] { Coordinator(small_recipe(), 0); });
}

TEST(RecipeCheck, TheTrueSizeOfTheLargestUpdateDecidesAboutBetas) {
  Recipe recipe = small_recipe();
  recipe.scale_betas = true;
  recipe.global_batch = 400;  // k = 25 is refused for beta1 = 0.9
  EXPECT_THAT(contradictions(recipe, 1), ElementsAre(HasSubstr("batch.global 159 or less")));
  recipe.samples_per_epoch = 100;  // but no update has more than 100 samples
  EXPECT_THAT(contradictions(recipe, 1), IsEmpty());
}

// Long enough that nothing is to be said.
Recipe long_recipe() {
  Recipe recipe = small_recipe();
  recipe.samples_per_epoch = 6400;
  recipe.budget_samples = 12800;
  return recipe;
}

TEST(Advice, SaysNothingWhereNothingIsWrong) {
  EXPECT_THAT(advice(long_recipe(), 8), IsEmpty());
  EXPECT_THAT(advice(long_recipe(), 1), IsEmpty());
}

TEST(Advice, OnTheNumberOfUpdates) {
  Recipe recipe = long_recipe();
  recipe.budget_samples = 6399;
  recipe.global_batch = 80;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(::testing::AllOf(
                                     HasSubstr("only 80 updates in the whole run"),
                                     HasSubstr("longer budget, or batch.global 63 or less"))));
  recipe.budget_in_steps = true;  // then smaller batches make a shorter run, not more updates
  EXPECT_THAT(advice(recipe, 1),
              ElementsAre(::testing::AllOf(HasSubstr("use a longer budget"),
                                           ::testing::Not(HasSubstr("batch.global")))));
  recipe = long_recipe();
  recipe.samples_per_epoch = 640;
  EXPECT_THAT(advice(recipe, 1),
              ElementsAre(::testing::AllOf(HasSubstr("only 10 updates per epoch of 640"),
                                           HasSubstr("use 32 or less"))));
  recipe.documents = 2000;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(::testing::Not(HasSubstr("packing"))));
  recipe.packed = true;
  EXPECT_THAT(
      advice(recipe, 1),
      ElementsAre(HasSubstr("packing made 640 rows of 2000 documents: data.packing: false")));
  recipe.packed = false;
  recipe.samples_per_epoch = 40;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(HasSubstr("more than the 40 samples of an epoch")));
  recipe.samples_per_epoch = 1;
  recipe.budget_samples = 50;
  recipe.global_batch = 4;
  recipe.warmup_samples = 0;
  EXPECT_THAT(advice(recipe, 1), Contains(HasSubstr("use a longer budget")));
}

TEST(Advice, OnTheSchedule) {
  Recipe recipe = long_recipe();
  recipe.warmup_samples = 6401;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(HasSubstr("more than half the run")));
  recipe.warmup_samples = 6400;
  EXPECT_THAT(advice(recipe, 1), IsEmpty());
  recipe.schedule = ScheduleKind::kConstant;
  recipe.floor = 0.1;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(HasSubstr("has no effect with schedule constant")));
  recipe.schedule = ScheduleKind::kWsd;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(HasSubstr("set schedule.decay")));
}

TEST(Advice, OnAWarmupOfOneUpdate) {
  Recipe recipe = long_recipe();
  recipe.warmup_samples = 64;
  EXPECT_THAT(advice(recipe, 1),
              ElementsAre(HasSubstr("64 samples is over with the first update of 64")));
  recipe.warmup_samples = 65;
  EXPECT_THAT(advice(recipe, 1), IsEmpty());
  recipe.warmup_samples = 0;
  EXPECT_THAT(advice(recipe, 1), IsEmpty());
  // Under adascale the first update moves the clock by the reference batch, 16.
  recipe.rule = ScaleRule::kAdascale;
  recipe.noise_horizon_samples = 6400;
  recipe.warmup_samples = 16;
  EXPECT_THAT(advice(recipe, 1), Contains(HasSubstr("is over with the first update of 16")));
  recipe.warmup_samples = 17;
  EXPECT_THAT(advice(recipe, 1), Not(Contains(HasSubstr("is over with the first update"))));
}

TEST(Advice, OnARateBeyondAllOptimizers) {
  Recipe recipe = long_recipe();
  recipe.lr = 1e300;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(HasSubstr("optimizer.lr 1e+300 is beyond")));
  recipe.lr = 30;
  EXPECT_THAT(advice(recipe, 1), IsEmpty());
}

TEST(Advice, OnABatchThatFollowsTheRanksWithoutTheRate) {
  Recipe recipe = long_recipe();
  recipe.batch_follows_ranks = true;
  recipe.rule = ScaleRule::kNone;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(HasSubstr("scale.rule none leaves the rate")));
  recipe.rule = ScaleRule::kSqrt;
  EXPECT_THAT(advice(recipe, 1), IsEmpty());
}

TEST(Advice, OnARecoveryThatNeverGetsToItsRate) {
  Recipe recipe = long_recipe();
  recipe.max_recoveries = 1;
  recipe.recovery_warmup_samples = recipe.budget_samples + 1;
  EXPECT_THAT(advice(recipe, 1), ElementsAre(HasSubstr("divergence.warmup of 12801 samples")));
  recipe.recovery_warmup_samples = recipe.budget_samples;
  EXPECT_THAT(advice(recipe, 1), IsEmpty());
}

TEST(Advice, OnRanksWithoutWork) {
  Recipe recipe = long_recipe();
  recipe.leaf_size = 32;
  EXPECT_THAT(advice(recipe, 8),
              ElementsAre(::testing::AllOf(HasSubstr("6 of 8 ranks have nothing to do"),
                                           HasSubstr("use batch.micro 8 or less"))));
  recipe.leaf_size = 1;
  EXPECT_THAT(advice(recipe, 100), ElementsAre(HasSubstr("start at most 64 ranks")));
  recipe.leaf_size = 2;  // 32 leaves on 64 ranks: nothing is less than 1
  EXPECT_THAT(advice(recipe, 64), ElementsAre(::testing::EndsWith("use batch.micro 1")));
  recipe.leaf_size = 16;  // 4 leaves on 3 ranks
  EXPECT_THAT(
      advice(recipe, 3),
      ElementsAre(::testing::AllOf(HasSubstr("67 % busy"), HasSubstr("batch.micro 8 would 89 %"))));
}

}  // namespace
}  // namespace lorascale::coordinator
