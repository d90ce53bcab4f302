#include "coordinator/noise/noise_monitor.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace lorascale::coordinator {
namespace {

constexpr double kScaleWorthLogging = 2;  // factor

Json reading_json(const NoiseReading& reading) {
  return {{"known", reading.known},
          {"b_simple", json_number(reading.b_simple)},
          {"relative_sd", json_number(reading.relative_sd)},
          {"trace", reading.trace},
          {"gradient_square", reading.gradient_square},
          {"updates", reading.updates}};
}

}  // namespace

NoiseMonitor::Group& NoiseMonitor::group_of(const std::string& name) {
  const auto found = std::find_if(groups_.begin(), groups_.end(),
                                  [&](const Group& group) { return group.name == name; });
  return found != groups_.end() ? *found : groups_.emplace_back(Group{name, {}, {}});
}

void NoiseMonitor::on_step(const StepPlan& plan, const StepFacts& facts, DecisionLog& log) {
  if (!facts.applied || facts.noise.empty()) {
    return;
  }
  const auto samples = static_cast<double>(plan.samples);
  NoiseMeasurement all_raw = NoiseFault::kNoGradient;
  NoiseMeasurement all_preconditioned = NoiseFault::kNoGradient;
  for (const GroupNorms& norms : facts.noise) {
    const auto measured = [&](const SquareNorms& squares) {
      return measure_noise(squares, norms.leaves, norms.weight, samples);
    };
    const NoiseMeasurement raw = measured(norms.raw);
    const NoiseMeasurement preconditioned = norms.preconditioned
                                                ? measured(*norms.preconditioned)
                                                : NoiseMeasurement(NoiseFault::kNotMeasured);
    Group& group = group_of(norms.group);
    group.raw.add(raw, samples, horizon_);
    group.preconditioned.add(preconditioned, samples, horizon_);
    all_raw = pooled(all_raw, raw);
    all_preconditioned = pooled(all_preconditioned, preconditioned);
  }
  pooled_raw_.add(all_raw, samples, horizon_);
  pooled_preconditioned_.add(all_preconditioned, samples, horizon_);
  announce(plan, log);
}

const NoiseTracker& NoiseMonitor::optimizer_metric() const {
  return pooled_preconditioned_.empty() ? pooled_raw_ : pooled_preconditioned_;
}

NoiseReport NoiseMonitor::report() const {
  NoiseReport report;
  for (const Group& group : groups_) {
    GroupNoise noise{group.name, group.raw.reading(), {}};
    if (!group.preconditioned.empty()) {
      noise.preconditioned = group.preconditioned.reading();
    }
    report.groups.push_back(std::move(noise));
  }
  if (!pooled_preconditioned_.empty()) {
    report.combined = pooled_preconditioned_.reading();
    report.source = "all groups in the preconditioned metric";
    return report;
  }
  for (const GroupNoise& noise : report.groups) {
    const bool smaller = !report.combined.known || noise.raw.b_simple < report.combined.b_simple;
    if (report.source.empty() || (noise.raw.known && smaller)) {
      report.combined = noise.raw;
      report.source = "group " + noise.group;
    }
  }
  if (report.combined.known) {
    report.source += ", the smallest known";
  }
  return report;
}

void NoiseMonitor::announce(const StepPlan& plan, DecisionLog& log) {
  const NoiseReport report = this->report();
  const NoiseReading& now = report.combined;
  if (!now.known || (announced_ > 0 && now.b_simple < kScaleWorthLogging * announced_ &&
                     now.b_simple > announced_ / kScaleWorthLogging)) {
    return;
  }
  Json inputs = {{"combined", reading_json(now)}, {"previous", announced_}};
  for (const GroupNoise& noise : report.groups) {
    Json& group = inputs["groups"][noise.group];
    group["raw"] = reading_json(noise.raw);
    if (noise.preconditioned) {
      group["preconditioned"] = reading_json(*noise.preconditioned);
    }
  }
  log.add(plan.step, plan.first_position + plan.samples, "noise",
          fmt::format(
              "the gradient noise scale is {} samples, relative sd {} over {} updates ({}); {}; a "
              "batch far above it wastes samples, one far below wastes steps",
              to_text(now.b_simple), to_text(now.relative_sd), to_text(now.updates), report.source,
              announced_ > 0 ? "it was " + to_text(announced_) : "known for the first time"),
          inputs);
  announced_ = now.b_simple;
}

Json NoiseMonitor::save() const {
  Json groups = Json::array();
  for (const Group& group : groups_) {
    groups.push_back({{"name", group.name},
                      {"raw", group.raw.save()},
                      {"preconditioned", group.preconditioned.save()}});
  }
  return {{"groups", groups},
          {"pooled_raw", pooled_raw_.save()},
          {"pooled_preconditioned", pooled_preconditioned_.save()},
          {"announced", announced_}};
}

void NoiseMonitor::load(const Json& state) {
  groups_.clear();
  for (const Json& saved : state.at("groups")) {
    Group& group = groups_.emplace_back(Group{saved.at("name").get<std::string>(), {}, {}});
    group.raw.load(saved.at("raw"));
    group.preconditioned.load(saved.at("preconditioned"));
  }
  pooled_raw_.load(state.at("pooled_raw"));
  pooled_preconditioned_.load(state.at("pooled_preconditioned"));
  announced_ = state.at("announced").get<double>();
}

}  // namespace lorascale::coordinator
