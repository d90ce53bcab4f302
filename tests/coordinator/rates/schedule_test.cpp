#include "coordinator/rates/schedule.hpp"

#include <algorithm>
#include <cmath>

#include "coordinator/mode_names.hpp"
#include "support.hpp"

namespace lorascale::coordinator {
namespace {

constexpr ScheduleKind kAll[] = {ScheduleKind::kConstant, ScheduleKind::kLinear,
                                 ScheduleKind::kCosine, ScheduleKind::kWsd};

// 100 updates of 8 samples, 10 of them warmup, 20 of them decay for wsd.
Recipe hundred_updates(ScheduleKind kind, double floor = 0) {
  Recipe recipe = testing::small_recipe();
  recipe.global_batch = 8;
  recipe.samples_per_epoch = 800;
  recipe.budget_samples = 800;
  recipe.warmup_samples = 80;
  recipe.decay_samples = 160;
  recipe.floor = floor;
  recipe.schedule = kind;
  return recipe;
}

struct Point {
  int update;
  double multiplier;
};

// Values of transformers 5.23: get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup,
// get_cosine_with_min_lr_schedule_with_warmup(min_lr_rate=0.1) and
// get_wsd_schedule(decay_type="linear", min_lr_ratio=0.1), all with 10 warmup steps of 100.
TEST(Schedule, EqualsTransformersAfterTheWarmup) {
  const auto expect = [](const Recipe& recipe, std::initializer_list<Point> points) {
    for (const auto& [update, multiplier] : points) {
      EXPECT_NEAR(schedule_multiplier(recipe, update * 8, 8), multiplier, 1e-15) << update;
    }
  };
  expect(hundred_updates(ScheduleKind::kLinear), {{10, 1.0},
                                                  {11, 0.9888888888888889},
                                                  {37, 0.7},
                                                  {55, 0.5},
                                                  {90, 0.1111111111111111},
                                                  {99, 0.011111111111111112}});
  expect(hundred_updates(ScheduleKind::kCosine), {{10, 1.0},
                                                  {11, 0.9996954135095479},
                                                  {37, 0.7938926261462366},
                                                  {55, 0.5},
                                                  {81, 0.10599462319663905},
                                                  {90, 0.03015368960704584},
                                                  {99, 0.00030458649045211894}});
  expect(hundred_updates(ScheduleKind::kCosine, 0.1), {{10, 1.0},
                                                       {11, 0.9997258721585931},
                                                       {37, 0.8145033635316129},
                                                       {55, 0.55},
                                                       {99, 0.10027412784140691}});
  expect(hundred_updates(ScheduleKind::kWsd, 0.1),
         {{10, 1.0}, {55, 1.0}, {80, 1.0}, {81, 0.955}, {90, 0.55}, {99, 0.145}});
}

TEST(Schedule, WarmupIsOneUpdateAheadOfTransformers) {
  for (const ScheduleKind kind : kAll) {
    const Recipe recipe = hundred_updates(kind, 0.1);
    for (int update = 0; update < 10; ++update) {
      EXPECT_DOUBLE_EQ(schedule_multiplier(recipe, update * 8, 8), (update + 1) / 10.0);
    }
  }
}

TEST(Schedule, NoUpdateIsThrownAwayAndTheLastIsAboveTheFloor) {
  for (const ScheduleKind kind : kAll) {
    for (const double floor : {0.0, 0.1}) {
      const Recipe recipe = hundred_updates(kind, floor);
      EXPECT_GT(schedule_multiplier(recipe, 0, 8), 0);
      EXPECT_GT(schedule_multiplier(recipe, 792, 8), floor);
    }
  }
}

// V15: as a function of n the multiplier has no jump, for whole and short updates, with and without
// warmup and decay.
TEST(Schedule, V15NoJumpAnywhere) {
  for (const ScheduleKind kind : kAll) {
    for (const std::int64_t warmup : {0, 1, 13, 80, 640}) {
      for (const std::int64_t decay : {1, 100, 160}) {
        for (const std::int64_t samples : {1, 5, 8, 64}) {
          Recipe recipe = hundred_updates(kind, 0.05);
          recipe.warmup_samples = warmup;
          recipe.decay_samples = decay;
          // The steepest slope that a piece of this schedule has, in multiplier per sample.
          const double pi_half = 1.5707963267948966;
          const double steepest_decay = kind == ScheduleKind::kWsd
                                            ? 1.0 / static_cast<double>(decay)
                                            : pi_half / static_cast<double>(800 - warmup);
          const double slope =
              std::max(warmup > 0 ? 1.0 / static_cast<double>(warmup) : 0, steepest_decay) + 1e-12;
          double before = schedule_multiplier(recipe, 0, samples);
          for (std::int64_t n = 1; n < 800; ++n) {
            const double now = schedule_multiplier(recipe, n, samples);
            ASSERT_LE(std::abs(now - before), slope) << name_of(kind) << " at " << n;
            ASSERT_GE(now, 0);
            ASSERT_LE(now, 1);
            before = now;
          }
        }
      }
    }
  }
}

// V15: consecutive updates that straddle the joint: up to the peak, then down from it, never past
// it.
TEST(Schedule, V15JointOfWarmupAndDecay) {
  for (const ScheduleKind kind : kAll) {
    Recipe recipe = hundred_updates(kind);
    recipe.warmup_samples = 83;  // not a multiple of the batch
    double before = 0;
    for (std::int64_t n = 0; n < 88; n += 8) {
      const double now = schedule_multiplier(recipe, n, 8);
      EXPECT_GT(now, before);
      before = now;
    }
    EXPECT_EQ(before, 1);  // the update over [80, 88) ends after the warmup
    const double next = schedule_multiplier(recipe, 88, 8);
    EXPECT_LE(next, 1);
    EXPECT_GT(next, 0.99);
  }
}

TEST(Schedule, WarmupOfTheWholeRun) {
  for (const ScheduleKind kind : kAll) {
    Recipe recipe = hundred_updates(kind);
    recipe.warmup_samples = 800;
    EXPECT_EQ(schedule_multiplier(recipe, 792, 8), 1);
    EXPECT_EQ(schedule_multiplier(recipe, 392, 8), 0.5);
  }
}

TEST(Schedule, NamesAndDependenceOnTheBudget) {
  EXPECT_EQ(name_of(ScheduleKind::kConstant), "constant");
  EXPECT_EQ(name_of(ScheduleKind::kLinear), "linear");
  EXPECT_EQ(name_of(ScheduleKind::kCosine), "cosine");
  EXPECT_EQ(name_of(ScheduleKind::kWsd), "wsd");
  for (const ScheduleKind kind : kAll) {
    Recipe recipe = hundred_updates(kind);
    const double before = schedule_multiplier(recipe, 700, 8);
    recipe.budget_samples = 1600;
    EXPECT_EQ(schedule_multiplier(recipe, 700, 8) != before, depends_on_budget(kind));
  }
}

}  // namespace
}  // namespace lorascale::coordinator
