#include "coordinator/plan_report.hpp"

#include "coordinator/record/recipe_json.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

using ::testing::HasSubstr;
using testing::small_recipe;

TEST(PlanReport, TellsTheArithmeticOfTheRun) {
  Recipe recipe = small_recipe();
  recipe.budget_samples = 2500;
  recipe.floor = 0.1;
  const PlanReport report = make_plan_report(recipe, 3);
  for (const char* words :
       {"40 steps over 2500 samples", "2.5 epochs of 1000 (16 steps each, the last of 40)",
        "batch 64 = 16 leaves of 4, 5 or 6 on each of 3 ranks",
        "lr 0.0004 = 0.0002 x 2 (rule sqrt, k = 64/16 = 4)", "schedule cosine after 300 samples",
        "down to 4e-05"}) {
    EXPECT_THAT(report.reason, HasSubstr(words));
  }
  const Json& plan = report.inputs.at("plan");
  EXPECT_EQ(plan.at("steps"), 16 + 16 + 8);
  EXPECT_EQ(plan.at("steps_per_epoch"), 16);
  EXPECT_EQ(plan.at("samples_of_broken_epoch"), 500);
  EXPECT_EQ(plan.at("leaves"), 16);
  EXPECT_EQ(plan.at("max_leaves_per_rank"), 6);
  EXPECT_EQ(plan.at("idle_ranks"), 0);
  EXPECT_EQ(plan.at("peak_lr"), 4e-4);
  EXPECT_EQ(report.inputs.at("world_size"), 3);
  EXPECT_FALSE(report.inputs.at("advice").empty());  // 40 updates are few
}

TEST(PlanReport, ShowsTheRateOfAnEpochsLastUpdateAndHowManyItConcerns) {
  Recipe recipe = small_recipe();
  recipe.reference_batch = recipe.global_batch;
  EXPECT_THAT(make_plan_report(recipe, 1).reason,
              HasSubstr("the last update of an epoch, 1 of 16 (6.3 %), has 40 samples and by the "
                        "rule a factor of 0.790569 instead of 1"));
  for (const auto& change : std::vector<std::function<void(Recipe&)>>{
           [](Recipe& r) { r.rule = ScaleRule::kNone; },
           [](Recipe& r) { r.samples_per_epoch = 1024; },
           [](Recipe& r) { r.samples_per_epoch = 4000; }}) {  // the run is over before
    Recipe other = recipe;
    change(other);
    EXPECT_THAT(make_plan_report(other, 1).reason,
                ::testing::Not(HasSubstr("the last update of an epoch")));
  }
}

TEST(PlanReport, NamesTheDecayOfWsd) {
  Recipe recipe = small_recipe();
  recipe.schedule = ScheduleKind::kWsd;
  recipe.decay_samples = 500;
  EXPECT_THAT(make_plan_report(recipe, 1).reason, HasSubstr("decay over the last 500"));
}

TEST(PlanReport, NamesALimitInTimeWhereThereIsOne) {
  Recipe recipe = small_recipe();
  EXPECT_THAT(make_plan_report(recipe, 1).reason, ::testing::Not(HasSubstr("minutes")));
  recipe.budget_minutes = 90;
  EXPECT_THAT(make_plan_report(recipe, 1).reason,
              HasSubstr("stops after 90 minutes if that is sooner"));
}

TEST(PlanReport, SpeaksOfNoStepsWhereTimeAloneEndsTheRun) {
  Recipe recipe = small_recipe();
  recipe.schedule = ScheduleKind::kConstant;
  recipe.budget_minutes = 90;
  recipe.budget_samples = kNoSampleLimit;
  const auto report = make_plan_report(recipe, 1);
  EXPECT_THAT(report.reason, ::testing::StartsWith("90 minutes of epochs of "));
  EXPECT_TRUE(report.inputs.at("plan").at("steps").is_null());
}

TEST(RecipeJson, KeepsEveryField) {
  Recipe recipe = small_recipe();
  recipe.seed = ~std::uint64_t{0};
  recipe.lr = 0.1 + 0.2;
  recipe.rule = ScaleRule::kPower;
  recipe.schedule = ScheduleKind::kWsd;
  recipe.scale_eps = true;
  recipe.budget_minutes = 1.0 / 3;
  const Json json = recipe_to_json(recipe);
  const Recipe back = recipe_from_json(Json::parse(json.dump()));
  EXPECT_EQ(recipe_to_json(back).dump(), json.dump());
  EXPECT_EQ(back.seed, recipe.seed);
  EXPECT_EQ(back.lr, recipe.lr);
  EXPECT_EQ(back.rule, ScaleRule::kPower);
  EXPECT_EQ(back.schedule, ScheduleKind::kWsd);
  EXPECT_TRUE(back.scale_eps);
}

TEST(RecipeJson, RefusesUnknownNames) {
  Json json = recipe_to_json(small_recipe());
  json["scale.rule"] = "cubic";
  testing::expect_error(ExitCode::kBadInput, {"cubic"}, [&] { recipe_from_json(json); });
}

TEST(RecipeJson, FingerprintIsOfWhatDecidesAboutResults) {
  const std::uint64_t before = recipe_fingerprint(small_recipe());
  Recipe recipe = small_recipe();
  recipe.leaf_size = 8;
  recipe.budget_minutes = 5;
  EXPECT_EQ(recipe_fingerprint(recipe), before);
  recipe.seed += 1;
  EXPECT_NE(recipe_fingerprint(recipe), before);
}

}  // namespace
}  // namespace lorascale::coordinator
