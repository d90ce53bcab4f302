// ramp: from batch.global to batch.max in equal increments over batch.ramp_samples samples. With
// K = (max - global) / increment and R samples, B = global + increment * floor(n K / R) at n < R
// samples, then max: Megatron-LM's rampup_batch_size, but the rate follows by scale.rule.
#include <fmt/format.h>

#include <cmath>

#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/policies/policies.hpp"

namespace lorascale::coordinator {
namespace {

std::int64_t increments(const Recipe& recipe) {
  return (recipe.batch_max - recipe.global_batch) / batch_increment(recipe);
}

class Ramp : public BatchPolicy {
 public:
  std::optional<BatchWish> wish(const BatchContext& context) override {
    const Recipe& recipe = context.recipe;
    std::int64_t passed = increments(recipe);
    if (context.samples < recipe.batch_ramp_samples) {
      // Exact while n K stays below 2^53; beyond that an increment could come one update late.
      const double of_all = static_cast<double>(context.samples) * static_cast<double>(passed) /
                            static_cast<double>(recipe.batch_ramp_samples);
      passed = static_cast<std::int64_t>(std::floor(of_all));
    }
    const std::int64_t batch = recipe.global_batch + passed * batch_increment(recipe);
    if (batch <= context.batch) {
      return std::nullopt;
    }
    return BatchWish{
        batch,
        fmt::format("the ramp has passed {} of {} increments", passed, increments(recipe)),
        {{"increments_passed", passed}, {"batch_ramp_samples", recipe.batch_ramp_samples}}};
  }

  [[nodiscard]] std::string describe(const Recipe& recipe) const override {
    return fmt::format("the batch grows from {} to {} in {} increments over the first {} samples",
                       recipe.global_batch, recipe.batch_max, increments(recipe),
                       recipe.batch_ramp_samples);
  }

  [[nodiscard]] std::vector<std::string> contradictions(const Recipe& recipe) const override {
    if (recipe.batch_max <= recipe.global_batch) {
      return {
          fmt::format("batch.policy ramp grows to batch.max, which is {}; use more than "
                      "batch.global {}, or batch.policy fixed",
                      recipe.batch_max == 0 ? "not set" : std::to_string(recipe.batch_max),
                      recipe.global_batch)};
    }
    if (recipe.batch_max % batch_increment(recipe) != 0) {
      return {
          fmt::format("batch.policy ramp cannot reach batch.max {} in increments of {}; use "
                      "batch.max {}, or a batch.increment that divides it",
                      recipe.batch_max, batch_increment(recipe),
                      recipe.batch_max / batch_increment(recipe) * batch_increment(recipe))};
    }
    if (recipe.batch_ramp_samples < 1 || recipe.batch_ramp_samples > recipe.budget_samples) {
      return {fmt::format("batch.ramp is {} samples; batch.policy ramp needs 1 to {}, the budget",
                          recipe.batch_ramp_samples, recipe.budget_samples)};
    }
    const BatchLimit limit = largest_batch(recipe);
    if (limit.batch < recipe.batch_max) {
      return {
          fmt::format("batch.policy ramp cannot reach batch.max {}: {} allows {}; use that or "
                      "less, a longer budget, or a smaller batch.min_steps",
                      recipe.batch_max, limit.reason, limit.batch)};
    }
    return {};
  }
};

}  // namespace

std::unique_ptr<BatchPolicy> make_ramp_policy() {
  return std::make_unique<Ramp>();
}

}  // namespace lorascale::coordinator
