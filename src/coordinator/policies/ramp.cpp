// ramp: from batch.global to batch.max in equal increments over batch.ramp_samples samples. With
// K = (max - global) / increment and R samples, B = global + increment * floor(n K / R) at n < R
// samples, then max: Megatron-LM's rampup_batch_size, but the rate follows by scale.rule.
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
        "the ramp has passed " + std::to_string(passed) + " of " +
            std::to_string(increments(recipe)) + " increments",
        {{"increments_passed", passed}, {"batch_ramp_samples", recipe.batch_ramp_samples}}};
  }

  [[nodiscard]] std::string describe(const Recipe& recipe) const override {
    return "the batch grows from " + std::to_string(recipe.global_batch) + " to " +
           std::to_string(recipe.batch_max) + " in " + std::to_string(increments(recipe)) +
           " increments over the first " + std::to_string(recipe.batch_ramp_samples) + " samples";
  }

  [[nodiscard]] std::vector<std::string> contradictions(const Recipe& recipe) const override {
    const std::string max = "batch.max " + std::to_string(recipe.batch_max);
    if (recipe.batch_max <= recipe.global_batch) {
      return {"batch.policy ramp grows to batch.max, which is " +
              (recipe.batch_max == 0 ? "not set" : std::to_string(recipe.batch_max)) +
              "; use more than batch.global " + std::to_string(recipe.global_batch) +
              ", or batch.policy fixed"};
    }
    if (recipe.batch_max % batch_increment(recipe) != 0) {
      return {"batch.policy ramp cannot reach " + max + " in increments of " +
              std::to_string(batch_increment(recipe)) + "; use batch.max " +
              std::to_string(recipe.batch_max / batch_increment(recipe) * batch_increment(recipe)) +
              ", or a batch.increment that divides it"};
    }
    if (recipe.batch_ramp_samples < 1 || recipe.batch_ramp_samples > recipe.budget_samples) {
      return {"batch.ramp is " + std::to_string(recipe.batch_ramp_samples) +
              " samples; batch.policy ramp needs 1 to " + std::to_string(recipe.budget_samples) +
              ", the budget"};
    }
    const BatchLimit limit = largest_batch(recipe);
    if (limit.batch < recipe.batch_max) {
      return {"batch.policy ramp cannot reach " + max + ": " + limit.reason + " allows " +
              std::to_string(limit.batch) +
              "; use that or less, a longer budget, or a smaller batch.min_steps"};
    }
    return {};
  }
};

}  // namespace

std::unique_ptr<BatchPolicy> make_ramp_policy() {
  return std::make_unique<Ramp>();
}

}  // namespace lorascale::coordinator
