// seesaw (2510.14717): where the schedule has halved the rate, the batch doubles instead and the
// rate falls by sqrt(2) only.
//
// The schedule s(n) itself is not touched. At s = 2^-j the batch is 2^j B_start, and scale.rule
// sqrt multiplies the rate by 2^(j/2): from one doubling to the next the rate falls by sqrt(2), and
// between them it is eta s(n) 2^(j/2), continuous. The only jump is that of scale.rule at the
// doubling, which is logged and which scale.ramp can spread. At every n, eta / sqrt(B) is what the
// schedule without seesaw has: a sign-like optimizer whose gradient is mostly noise drifts by
// eta / sqrt(B) and diffuses by eta^2 / B per sample, so both stay the same at every sample. Under
// the linear rule, where SGD's drift per sample is eta / B, the rate does not fall from doubling to
// doubling at all (Smith et al. 2018). Valid where the batch is near the critical one or below.
#include <fmt/format.h>

#include "coordinator/mode_names.hpp"
#include "coordinator/policies/policies.hpp"
#include "coordinator/rates/schedule.hpp"

namespace lorascale::coordinator {
namespace {

class Seesaw : public BatchPolicy {
 public:
  std::optional<BatchWish> wish(const BatchContext& context) override {
    const Recipe& recipe = context.recipe;
    const Leg leg = leg_at(recipe, static_cast<double>(context.samples));
    if (static_cast<double>(context.samples - leg.warmup) < leg.begin) {
      return std::nullopt;  // a rate below half is on its way up
    }
    const double left = schedule_multiplier(recipe, static_cast<double>(context.samples), 1);
    std::int64_t batch = recipe.global_batch;
    std::int64_t halvings = 0;
    // Far enough: the guard allows less in one decision.
    for (double half = 0.5; left <= half && batch <= context.reach.most; half /= 2) {
      batch *= 2;
      ++halvings;
    }
    if (batch <= context.batch) {
      return std::nullopt;
    }
    return BatchWish{
        batch,
        fmt::format("the schedule is down to {}, a half {} times", to_text(left), halvings),
        {{"schedule", left}, {"halvings", halvings}}};
  }

  [[nodiscard]] std::string describe(const Recipe& recipe) const override {
    return fmt::format("the batch doubles from {} each time schedule {} has halved the rate",
                       recipe.global_batch, name_of(recipe.schedule));
  }

  [[nodiscard]] std::vector<std::string> contradictions(const Recipe& recipe) const override {
    std::vector<std::string> lines;
    if (recipe.schedule == ScheduleKind::kConstant || recipe.floor > 0.5) {
      lines.emplace_back(
          "batch.policy seesaw doubles the batch where the schedule halves the rate, which this "
          "one "
          "never does; use schedule cosine or linear with a floor of 0.5 or less, or another "
          "policy");
    }
    if (recipe.rule == ScaleRule::kNone) {
      lines.emplace_back(
          "batch.policy seesaw trades the rate for the batch through scale.rule, which is none; "
          "use "
          "sqrt (Adam) or linear (SGD)");
    }
    return lines;
  }
};

}  // namespace

std::unique_ptr<BatchPolicy> make_seesaw_policy() {
  return std::make_unique<Seesaw>();
}

}  // namespace lorascale::coordinator
