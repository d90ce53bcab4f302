#include "coordinator/rates/rates.hpp"

#include <algorithm>

#include "batch_support.hpp"
#include "coordinator/rates/schedule.hpp"
#include "coordinator/step_planner.hpp"

namespace lorascale::coordinator {
namespace {

using testing::facts_of;
using testing::growing_recipe;

std::vector<StepPlan> whole_run(const Recipe& recipe) {
  Coordinator coordinator(recipe, 2);
  std::vector<StepPlan> plans;
  while (const auto plan = coordinator.next_step()) {
    plans.push_back(*plan);
    coordinator.on_step(facts_of(plan->step));
  }
  return plans;
}

// From the old multiplier to the new one along a straight line, as sums over it say.
TEST(Rates, RampIsLinearInSamples) {
  const Recipe recipe = growing_recipe(BatchPolicyKind::kRamp);  // 700 samples of ramp
  const BatchState before = first_batch(recipe);
  const BatchState after = changed_batch(recipe, before, 3000, 64, 0, recipe.ramp_samples);
  const auto at = [&](std::int64_t n) { return rates_in_force(recipe, after, n, 64).multiplier; };
  const double low = std::sqrt(2.0);
  EXPECT_EQ(after.multiplier_before, low);
  EXPECT_NEAR(at(3000), low, 1e-15);
  for (std::int64_t n = 3000; n <= 3700; ++n) {
    const double share = static_cast<double>(n - 3000) / 700;
    ASSERT_NEAR(at(n), low + (2 - low) * share, 1e-14) << n;
  }
  EXPECT_EQ(at(3700), 2);  // bit for bit what there is without a ramp
  EXPECT_EQ(at(9000), 2);
  // The change in the middle of a ramp begins where the ramp is, downwards as well.
  for (const std::int64_t batch : {128, 32}) {
    const BatchState again = changed_batch(recipe, after, 3350, batch, 0, recipe.ramp_samples);
    EXPECT_NEAR(again.multiplier_before, (low + 2) / 2, 1e-15);
    EXPECT_NEAR(rates_in_force(recipe, again, 3350, batch).multiplier, (low + 2) / 2, 1e-15);
    EXPECT_EQ(rates_in_force(recipe, again, 4050, batch).multiplier,
              std::sqrt(static_cast<double>(batch) / 16));
  }
  // A short update on the ramp has the rate of its size times the ramp.
  EXPECT_NEAR(rates_in_force(recipe, after, 3350, 16).multiplier, (low + 2) / 4, 1e-15);
}

// How steep the rate may be at most per sample: warmup, the steepest decay (cosine: pi / 2 of the
// mean) and the ramps, for multipliers up to that of the largest batch.
double steepest(const Recipe& recipe) {
  const double most = std::sqrt(256.0 / 16);
  const double decay = 1.5708 / static_cast<double>(recipe.budget_samples - recipe.warmup_samples);
  const double warmup =
      recipe.warmup_samples > 0 ? 1 / static_cast<double>(recipe.warmup_samples) : 0;
  const double ramp = recipe.ramp_samples > 0 ? 1 / static_cast<double>(recipe.ramp_samples) : 0;
  return recipe.lr * most * (std::max(warmup, decay) + ramp);
}

struct Jumps {
  std::int64_t changes = 0;
  std::int64_t in_warmup = 0;
  std::int64_t jumps = 0;  // steeper than any part of the recipe
};

Jumps jumps_of(const Recipe& recipe) {
  Jumps found;
  const auto plans = whole_run(recipe);
  const double slope = steepest(recipe) * (1 + 1e-9);
  for (std::size_t i = 1; i + 1 < plans.size(); ++i) {  // the last update is short
    const StepPlan& a = plans[i - 1];
    const StepPlan& b = plans[i];
    if (a.samples != b.samples) {
      ++found.changes;
      found.in_warmup += b.first_position < recipe.warmup_samples ? 1 : 0;
    }
    // The warmup looks at the end of an update, the decay at its beginning.
    const std::int64_t apart =
        std::max(b.first_position - a.first_position,
                 b.first_position + b.samples - a.first_position - a.samples);
    found.jumps += std::abs(b.lr - a.lr) > slope * static_cast<double>(apart) ? 1 : 0;
  }
  return found;
}

// V15: as a function of samples the rate has no jump, inside the warmup and after it; without
// scale.ramp it has one at each change of the batch, by sqrt(B' / B), and no other.
TEST(Rates, V15NoJumpButTheDeclaredOnes) {
  for (const ScheduleKind schedule :
       {ScheduleKind::kConstant, ScheduleKind::kLinear, ScheduleKind::kCosine}) {
    for (const BatchPolicyKind policy :
         {BatchPolicyKind::kRamp, BatchPolicyKind::kNoiseScale, BatchPolicyKind::kSeesaw}) {
      if (policy == BatchPolicyKind::kSeesaw && schedule == ScheduleKind::kConstant) {
        continue;
      }
      Recipe recipe = growing_recipe(policy);
      recipe.schedule = schedule;
      recipe.samples_per_epoch = recipe.budget_samples = 400000;
      recipe.warmup_samples = 60000;
      recipe.batch_ramp_samples = policy == BatchPolicyKind::kRamp ? 300000 : 0;
      recipe.batch_dwell_samples = 20000;
      recipe.ramp_samples = 15000;
      const Jumps smooth = jumps_of(recipe);
      EXPECT_EQ(smooth.jumps, 0);
      EXPECT_GE(smooth.changes, 2);
      EXPECT_EQ(smooth.in_warmup > 0, policy != BatchPolicyKind::kSeesaw);
      recipe.ramp_samples = 0;
      const Jumps sudden = jumps_of(recipe);
      EXPECT_EQ(sudden.changes, smooth.changes);
      EXPECT_GT(sudden.jumps, 0);
      EXPECT_LE(sudden.jumps, sudden.changes);
    }
  }
}

TEST(Rates, WithoutARampTheRateJumpsByTheRule) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  recipe.schedule = ScheduleKind::kConstant;
  recipe.warmup_samples = 0;
  recipe.ramp_samples = 0;
  for (const StepPlan& plan : whole_run(recipe)) {
    ASSERT_EQ(plan.lr, recipe.lr * std::sqrt(static_cast<double>(plan.samples) / 16));
  }
}

// V14 in a run with changes of the batch, ramps, short updates and a cap: lambda lr / B stays what
// it was tuned at, schedule aside; betas and eps follow the size of the update.
TEST(Rates, V14CompanionsFollowEveryChange) {
  for (const ScaleRule rule : {ScaleRule::kLinear, ScaleRule::kSqrt, ScaleRule::kNone}) {
    Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
    recipe.rule = rule;
    recipe.surge_cap = true;
    recipe.critical_batch = 300;
    recipe.weight_decay = 0.1;
    recipe.beta1 = 0.95;
    recipe.scale_betas = recipe.scale_eps = recipe.scale_weight_decay = true;
    std::int64_t largest = 0;
    for (const StepPlan& plan : whole_run(recipe)) {
      const double k = static_cast<double>(plan.samples) / 16;
      ASSERT_NEAR(plan.weight_decay * plan.lr_multiplier / k / 0.1, 1, 1e-12);
      ASSERT_NEAR((1 - plan.beta1) / k / (1 - 0.95), 1, 1e-12);
      ASSERT_NEAR((1 - plan.beta2) / k / (1 - 0.999), 1, 1e-12);
      ASSERT_NEAR(plan.eps * std::sqrt(k) / 1e-8, 1, 1e-12);
      largest = std::max(largest, plan.samples);
    }
    EXPECT_EQ(largest, 256);
  }
}

// The half-life of averaged weights in samples, whatever the batch does on the way.
TEST(Rates, V14AveragesForgetInSamples) {
  for (const BatchPolicyKind policy : {BatchPolicyKind::kFixed, BatchPolicyKind::kRamp}) {
    Recipe recipe = growing_recipe(policy);
    recipe.ema_half_life_samples = 777;
    double left = 1;
    for (const StepPlan& plan : whole_run(recipe)) {
      left *= plan.ema_rho;
      const double seen = static_cast<double>(plan.first_position + plan.samples);
      ASSERT_NEAR(left / std::pow(2, -seen / 777), 1, 1e-12);
    }
    recipe.ema_half_life_samples = 0;
    EXPECT_EQ(whole_run(recipe)[3].ema_rho, 0);
  }
  Recipe recipe = growing_recipe(BatchPolicyKind::kFixed);
  recipe.ema_half_life_samples = 777;
  // The same as scaling rho by k.
  EXPECT_NEAR(average_factor(recipe, 256), scaled_average(average_factor(recipe, 32), 8), 1e-15);
}

// The equal mean takes every update that ends beyond its start, and no other.
TEST(Rates, EqualMeanBeginsAtItsStart) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kRamp);
  for (const StepPlan& plan : whole_run(recipe)) {
    EXPECT_FALSE(plan.swa);
  }
  recipe.swa_start_samples = recipe.budget_samples * 3 / 4;
  std::int64_t averaged = 0;
  for (const StepPlan& plan : whole_run(recipe)) {
    EXPECT_EQ(plan.swa, plan.first_position + plan.samples > recipe.swa_start_samples);
    averaged += plan.swa ? 1 : 0;
  }
  EXPECT_GT(averaged, 1);
  recipe.swa_start_samples = 0;
  for (const StepPlan& plan : whole_run(recipe)) {
    EXPECT_TRUE(plan.swa);
  }
}

double surge_formula(double batch, double peak) {
  return 1 / (0.5 * (std::sqrt(peak / batch) + std::sqrt(batch / peak)));
}

TEST(Rates, SurgeCapIsTheFormulaFromTheReferenceOn) {
  for (const double peak : {20.0, 300.0, 1e5}) {
    double highest = 0;
    double at = 0;
    for (double batch = 16; batch <= 1e7; batch *= 1.01) {
      const double cap = surge_cap(batch, 16, peak);
      ASSERT_NEAR(cap * surge_formula(16, peak) / surge_formula(batch, peak), 1, 1e-12);
      at = cap > highest ? batch : at;
      highest = std::max(cap, highest);
    }
    EXPECT_NEAR(at / peak, 1, 0.01);
  }
  EXPECT_EQ(surge_cap(16, 16, 300), 1);
  EXPECT_NEAR(surge_cap(64, 16, 1e12), 2, 1e-9);  // far below the peak: the sqrt rule
}

// Never above the rule, never below the smaller of rule and formula, nothing below B0.
TEST(Rates, SurgeCapNeverRaisesARate) {
  for (const ScaleRule rule :
       {ScaleRule::kNone, ScaleRule::kLinear, ScaleRule::kSqrt, ScaleRule::kPower}) {
    Recipe recipe = growing_recipe(BatchPolicyKind::kFixed);
    recipe.rule = rule;
    recipe.power = 0.7;
    for (const double peak : {5.0, 16.0, 60.0, 1000.0, 1e9}) {
      Recipe capped = recipe;
      capped.surge_cap = true;
      capped.critical_batch = peak;
      for (std::int64_t samples = 1; samples <= 5000; samples += 7) {
        const double plain = scaled_rates(recipe, samples).multiplier;
        const double with_cap = scaled_rates(capped, samples).multiplier;
        ASSERT_LE(with_cap, plain);
        const double batch = static_cast<double>(samples);
        const double expected =
            samples <= 16 ? plain
                          : std::min(plain, surge_formula(batch, peak) / surge_formula(16, peak));
        ASSERT_NEAR(with_cap / expected, 1, 1e-12);
      }
    }
  }
}

// V13, where the formula comes from: the best rate of one sign step on a quadratic of d equal
// coordinates with couplings r, eta = sum G s / (sum H_ii + sum H_ij s s), s = E sign =
// erf(m sqrt(B / 2)), m the signal to noise ratio of one sample. With Bn' = pi / (2 m^2) its peak
// is at about Bn' d / (sum of the couplings), and there is none without them.
TEST(Rates, V13SurgeOfAQuadratic) {
  const double d = 1000;
  const double noise = 1e4;  // Bn'
  const auto best_rate = [&](double coupling, double batch) {
    const double m = std::sqrt(std::acos(-1.0) / 2 / noise);
    const double s = std::erf(m * std::sqrt(batch / 2));
    return d * s / (d + d * (d - 1) * coupling * s * s);
  };
  for (const double coupling : {0.05, 0.5}) {
    const double expected = noise / ((d - 1) * coupling);
    double peak = 1;
    for (double batch = 1; batch < 1e6; batch *= 1.01) {
      peak = best_rate(coupling, batch) > best_rate(coupling, peak) ? batch : peak;
      if (batch < noise / 16) {  // where erf is still straight
        const double shape = surge_formula(batch, expected) / surge_formula(1, expected);
        ASSERT_NEAR(best_rate(coupling, batch) / best_rate(coupling, 1) / shape, 1, 0.025);
      }
    }
    EXPECT_NEAR(std::log2(peak / expected), 0, 0.1);
  }
  for (double batch = 1; batch < 1e6; batch *= 2) {
    EXPECT_LE(best_rate(0, batch), best_rate(0, 2 * batch));
  }
}

// Goyal's two forms of momentum on a quadratic whose rate changes by ramps: with the rate outside
// the velocity, as in src/optim/optimizer.cpp, no correction gives the trajectory that the form
// with the rate inside reaches only with its correction lr_new / lr_old.
TEST(Rates, MomentumWithTheRateOutsideNeedsNoCorrection) {
  Recipe recipe = growing_recipe(BatchPolicyKind::kNoiseScale);
  recipe.rule = ScaleRule::kLinear;
  recipe.lr = 0.01;
  double outside = 1, velocity_outside = 0;
  double corrected = 1, velocity_corrected = 0;
  double uncorrected = 1, velocity_uncorrected = 0;
  double before = 0;
  double apart = 0;
  for (const StepPlan& plan : whole_run(recipe)) {
    velocity_outside = 0.9 * velocity_outside + outside;
    outside -= plan.lr * velocity_outside;
    const double ratio = before > 0 ? plan.lr / before : 1;
    velocity_corrected = 0.9 * ratio * velocity_corrected + plan.lr * corrected;
    corrected -= velocity_corrected;
    velocity_uncorrected = 0.9 * velocity_uncorrected + plan.lr * uncorrected;
    uncorrected -= velocity_uncorrected;
    before = plan.lr;
    ASSERT_NEAR(outside, corrected, 1e-12) << plan.step;
    apart = std::max(apart, std::abs(outside - uncorrected));
  }
  EXPECT_GT(apart, 1e-3);
}

}  // namespace
}  // namespace lorascale::coordinator
