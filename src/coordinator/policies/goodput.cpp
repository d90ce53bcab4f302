// goodput (Pollux, Qiao et al. 2021): the batch with the most progress per second, B / T_step(B)
// samples per second times the statistical efficiency (phi + B0) / (phi + B), phi being the
// critical batch. Of 50 geometrically spaced batches within reach the best, if the model predicts
// more than 1.05 times the present goodput.
//
// Times differ from machine to machine and run to run: under this policy alone they influence the
// trajectory. They enter as facts that all ranks agreed on, so ranks cannot differ and a replay of
// the recorded facts takes the same decisions.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/portable_math.hpp"
#include "base/units.hpp"
#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/batch/throughput_model.hpp"
#include "coordinator/policies/policies.hpp"

namespace lorascale::coordinator {
namespace {

constexpr int kCandidates = 50;
constexpr double kLeastGain = 1.05;
constexpr std::int64_t kFreshUpdates = 10;  // measured since the last time it was considered

UpdateShape shape_of(std::int64_t batch, std::int64_t leaf_size, int world_size) {
  const std::int64_t leaves = batch / leaf_size;
  return {leaf_size, leaves_of_rank(leaves, 0, world_size).end, world_size};
}

// Geometrically spaced over the reach, rounded down to whole increments; both ends are among them.
std::set<std::int64_t> candidates(const BatchReach& reach, std::int64_t increment) {
  std::set<std::int64_t> batches = {reach.least, reach.most};
  const double least = static_cast<double>(reach.least);
  const double ratio = static_cast<double>(reach.most) / least;
  for (int i = 1; i + 1 < kCandidates; ++i) {
    const double batch = least * power(ratio, static_cast<double>(i) / (kCandidates - 1));
    const auto whole = static_cast<std::int64_t>(std::floor(batch)) / increment * increment;
    batches.insert(std::clamp(whole, reach.least, reach.most));
  }
  return batches;
}

class Goodput : public BatchPolicy {
 public:
  void observe(const StepPlan& plan, const StepFacts& facts, int world_size) override {
    // From a nanosecond to eleven days; what is outside was not measured.
    const auto measured = [](double seconds) { return seconds >= 1e-9 && seconds <= 1e6; };
    // A short leaf would pass for a fast one.
    if (!measured(facts.step_seconds) || !measured(facts.leaf_seconds) ||
        plan.samples % plan.leaf_size != 0) {
      return;
    }
    const UpdateShape shape = shape_of(plan.samples, plan.leaf_size, world_size);
    auto row = std::find_if(timings_.begin(), timings_.end(),
                            [&](const Timing& timing) { return timing.shape == shape; });
    if (row == timings_.end()) {
      row = timings_.insert(row, Timing{shape, 0, 0, 0});
    }
    row->add(facts.leaf_seconds, facts.step_seconds);
    ++fresh_;
  }

  std::optional<BatchWish> wish(const BatchContext& context) override {
    if (fresh_ < kFreshUpdates || !context.critical.usable()) {
      return std::nullopt;
    }
    fresh_ = 0;
    const Recipe& recipe = context.recipe;
    const int world_size = context.layout.world_size;
    const ThroughputFit fit = fit_throughput(timings_);
    const auto goodput = [&](std::int64_t batch) {
      const double seconds = step_seconds(
          fit.model, shape_of(batch, context.layout.leaves.leaf_size(batch), world_size));
      return static_cast<double>(batch) / seconds *
             efficiency(context.critical.samples, static_cast<double>(recipe.reference_batch),
                        static_cast<double>(batch));
    };
    const double now = goodput(context.batch);
    std::int64_t best = context.batch;
    for (const std::int64_t batch : candidates(context.reach, batch_increment(recipe))) {
      best = goodput(batch) > goodput(best) ? batch : best;
    }
    const double gain = goodput(best) / now;
    if (!(gain > kLeastGain)) {
      return std::nullopt;
    }
    return BatchWish{
        best,
        fmt::format("the model of step times predicts {} times the progress per second at a "
                    "critical batch of {} on {}",
                    to_text(gain), to_text(context.critical.samples), counted(world_size, "rank")),
        {{"gain", gain},
         {"critical_batch", context.critical.samples},
         {"relative_sd", context.critical.relative_sd},
         {"seconds_per_leaf", fit.model.per_leaf},
         {"seconds_per_sample", fit.model.per_sample},
         {"seconds_per_update", fit.model.per_update},
         {"seconds_per_rank", fit.model.per_rank},
         {"overlap", fit.model.overlap},
         {"log_rmse", fit.log_rmse}}};
  }

  [[nodiscard]] std::string describe(const Recipe& recipe) const override {
    return fmt::format(
        "the batch begins at {} and goes, not below {}, where measured step times and the critical "
        "batch promise {} times the progress per second; two runs may choose differently",
        recipe.global_batch, smallest_batch(recipe), to_text(kLeastGain));
  }

  [[nodiscard]] std::vector<std::string> contradictions(const Recipe& recipe) const override {
    const auto line = lacks_critical_batch(recipe, "batch.policy goodput");
    return line ? std::vector<std::string>{*line} : std::vector<std::string>();
  }

  [[nodiscard]] Json save() const override {
    Json rows = Json::array();
    for (const Timing& timing : timings_) {
      rows.push_back(timing_to_json(timing));
    }
    return {{"fresh", fresh_}, {"timings", rows}};
  }
  void load(const Json& state) override {
    fresh_ = state.at("fresh").get<std::int64_t>();
    timings_.clear();
    for (const Json& row : state.at("timings")) {
      timings_.push_back(timing_from_json(row));
    }
  }

 private:
  std::vector<Timing> timings_;  // in the order in which shapes appeared
  std::int64_t fresh_ = 0;
};

}  // namespace

std::unique_ptr<BatchPolicy> make_goodput_policy() {
  return std::make_unique<Goodput>();
}

}  // namespace lorascale::coordinator
