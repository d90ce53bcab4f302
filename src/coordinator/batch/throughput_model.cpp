#include "coordinator/batch/throughput_model.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.hpp"
#include "base/portable_math.hpp"
#include "coordinator/least_squares.hpp"

namespace lorascale::coordinator {
namespace {

// Logarithms of the five parameters, in the order of ThroughputParameters: 0.1 us to a day.
const std::array<Bounds, 5>& bounds() {
  static const Bounds time{natural_log(1e-7), natural_log(86400)};
  static const std::array<Bounds, 5> all = {
      time, {natural_log(1e-10), natural_log(86400)}, time, time, {0, natural_log(10)}};
  return all;
}

ThroughputParameters parameters_of(std::span<const double> logs) {
  return {exponential(logs[0]), exponential(logs[1]), exponential(logs[2]), exponential(logs[3]),
          exponential(logs[4])};
}

// (a^g + b^g)^(1/g) without overflow.
double overlapped(double a, double b, double g) {
  const double larger = std::max(a, b);
  const double ratio = std::min(a, b) / larger;
  return ratio > 0 ? larger * power(1 + power(ratio, g), 1 / g) : larger;
}

// A point of the right size: each leaf time is `share` fixed, and what the leaves do not explain
// of a step comes once per update.
std::vector<double> first_guess(std::span<const Timing> timings, double share, double overlap) {
  double updates = 0;
  double log_leaf = 0;
  double log_size = 0;
  double rest = 0;
  double others = 1;
  for (const Timing& timing : timings) {
    const double weight = static_cast<double>(timing.updates);
    const double leaf = exponential(timing.log_leaf);
    updates += weight;
    log_leaf += weight * timing.log_leaf;
    log_size += weight * natural_log(static_cast<double>(timing.shape.leaf_size));
    rest += weight * std::max(0.01 * leaf, exponential(timing.log_step) -
                                               static_cast<double>(timing.shape.leaves) * leaf);
    others = std::max(others, static_cast<double>(timing.shape.world_size - 2));
  }
  log_leaf /= updates;
  rest /= updates;
  return {log_leaf + natural_log(share), log_leaf + natural_log(1 - share) - log_size / updates,
          natural_log(rest / 2), natural_log(rest / (2 * others)), natural_log(overlap)};
}

}  // namespace

double leaf_seconds(const ThroughputParameters& model, std::int64_t leaf_size) {
  return model.per_leaf + model.per_sample * static_cast<double>(leaf_size);
}

double step_seconds(const ThroughputParameters& model, const UpdateShape& shape) {
  const double leaf = leaf_seconds(model, shape.leaf_size);
  const double once =
      model.per_update + model.per_rank * static_cast<double>(std::max(shape.world_size - 2, 0));
  return static_cast<double>(shape.leaves - 1) * leaf + overlapped(leaf, once, model.overlap);
}

void Timing::add(double leaf, double step) {
  LS_ASSERT(leaf > 0 && step > 0);
  updates = std::min(updates + 1, kMemory);
  const double share = 1 / static_cast<double>(updates);
  log_leaf += share * (natural_log(leaf) - log_leaf);
  log_step += share * (natural_log(step) - log_step);
}

Json timing_to_json(const Timing& timing) {
  return {{"leaf_size", timing.shape.leaf_size},   {"leaves", timing.shape.leaves},
          {"world_size", timing.shape.world_size}, {"updates", timing.updates},
          {"log_leaf", timing.log_leaf},           {"log_step", timing.log_step}};
}

Timing timing_from_json(const Json& json) {
  const Timing timing{{json.at("leaf_size").get<std::int64_t>(),
                       json.at("leaves").get<std::int64_t>(), json.at("world_size").get<int>()},
                      json.at("updates").get<std::int64_t>(),
                      json.at("log_leaf").get<double>(),
                      json.at("log_step").get<double>()};
  const auto sound = [](double log) { return log > -100 && log < 100; };
  if (timing.shape.leaf_size < 1 || timing.shape.leaves < 1 || timing.shape.world_size < 1 ||
      timing.updates < 1 || !sound(timing.log_leaf) || !sound(timing.log_step)) {
    throw_bad_input("the coordinator's state is damaged: its measured time is " + json.dump() +
                    "; use an earlier checkpoint");
  }
  return timing;
}

ThroughputFit fit_throughput(std::span<const Timing> timings) {
  LS_ASSERT(!timings.empty());
  double updates = 0;
  for (const Timing& timing : timings) {
    updates += static_cast<double>(timing.updates);
  }
  const Residuals residuals = [&](std::span<const double> logs, std::span<double> out) {
    const ThroughputParameters model = parameters_of(logs);
    for (std::size_t i = 0; i < timings.size(); ++i) {
      const Timing& timing = timings[i];
      const double weight = std::sqrt(static_cast<double>(timing.updates));
      out[2 * i] =
          weight * (natural_log(leaf_seconds(model, timing.shape.leaf_size)) - timing.log_leaf);
      out[2 * i + 1] = weight * (natural_log(step_seconds(model, timing.shape)) - timing.log_step);
    }
  };
  LeastSquaresFit best;
  for (const double share : {0.5, 0.05}) {
    for (const double overlap : {1.2, 3.0}) {
      const LeastSquaresFit fit =
          minimise(residuals, 2 * timings.size(), first_guess(timings, share, overlap), bounds());
      if (best.parameters.empty() || fit.cost < best.cost) {
        best = fit;
      }
    }
  }
  return {parameters_of(best.parameters), std::sqrt(best.cost / (2 * updates))};
}

double efficiency(double critical_batch, double reference_batch, double batch) {
  return (critical_batch + reference_batch) / (critical_batch + batch);
}

}  // namespace lorascale::coordinator
