#include "coordinator/rates/schedule.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "base/portable_math.hpp"

namespace lorascale::coordinator {
namespace {

// How far position n is into the stretch [begin, end), from 0 to 1.
double progress(double n, double begin, double end) {
  if (n <= begin || end <= begin) {
    return 0;
  }
  return std::min(1.0, (n - begin) / (end - begin));
}

double end_of(const Leg& leg) {
  return static_cast<double>(leg.end);
}

double warm_at(const Leg& leg) {
  return leg.begin + static_cast<double>(leg.warmup);
}

// Shapes of the decay: the fraction of the way from the floor to the peak at a position after the
// warmup.
double constant_shape(const Leg&, double) {
  return 1;
}

double linear_shape(const Leg& leg, double n) {
  return 1 - progress(n, warm_at(leg), end_of(leg));
}

double cosine_shape(const Leg& leg, double n) {
  return 0.5 * (1 + cos_pi(progress(n, warm_at(leg), end_of(leg))));
}

double wsd_shape(const Leg& leg, double n) {
  return 1 - progress(n, end_of(leg) - static_cast<double>(leg.decay), end_of(leg));
}

struct Schedule {
  ScheduleKind kind;
  bool depends_on_budget;
  double (*shape)(const Leg& leg, double n);
};

constexpr std::array kSchedules = {
    Schedule{ScheduleKind::kConstant, false, constant_shape},
    Schedule{ScheduleKind::kLinear, true, linear_shape},
    Schedule{ScheduleKind::kCosine, true, cosine_shape},
    Schedule{ScheduleKind::kWsd, true, wsd_shape},
};

const Schedule& schedule_of(ScheduleKind kind) {
  for (const Schedule& candidate : kSchedules) {
    if (candidate.kind == kind) {
      return candidate;
    }
  }
  LS_ASSERT(!"every schedule has a row");
  return kSchedules.front();
}

}  // namespace

bool depends_on_budget(ScheduleKind kind) {
  return schedule_of(kind).depends_on_budget;
}

Leg leg_at(const Recipe& recipe, double position) {
  const auto later = std::ranges::find_if(
      recipe.legs.rbegin(), recipe.legs.rend(),
      [position](const Leg& candidate) { return candidate.begin <= position; });
  if (later != recipe.legs.rend()) {
    return *later;
  }
  Leg leg;
  leg.end = recipe.legs.empty() ? recipe.budget_samples : recipe.first_leg_end;
  leg.shape = recipe.schedule;
  leg.warmup = recipe.warmup_samples;
  leg.decay = recipe.decay_samples;
  leg.floor = recipe.floor;
  return leg;
}

std::optional<double> next_leg_begin(const Recipe& recipe, double position) {
  const auto next = std::ranges::find_if(
      recipe.legs, [position](const Leg& candidate) { return candidate.begin > position; });
  return next == recipe.legs.end() ? std::nullopt : std::optional(next->begin);
}

double schedule_multiplier(const Recipe& recipe, double first, double samples) {
  const Leg leg = leg_at(recipe, first);
  const auto warmup = static_cast<double>(leg.warmup);
  const double into = first - leg.begin;
  if (into < warmup) {
    return leg.from + (leg.peak - leg.from) * std::min(1.0, (into + samples) / warmup);
  }
  return leg.floor + (leg.peak - leg.floor) * schedule_of(leg.shape).shape(leg, first);
}

}  // namespace lorascale::coordinator
