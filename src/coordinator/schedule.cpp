#include "coordinator/schedule.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "coordinator/portable_math.hpp"

namespace lorascale::coordinator {
namespace {

// How far position n is into the stretch [begin, end), from 0 to 1.
double progress(double n, std::int64_t begin, std::int64_t end) {
  const auto start = static_cast<double>(begin);
  if (n <= start || end <= begin) {
    return 0;
  }
  return std::min(1.0, (n - start) / static_cast<double>(end - begin));
}

// Shapes of the decay: the fraction of the way from the floor to the peak at position n >= w.
double constant_shape(const Recipe&, double) {
  return 1;
}

double linear_shape(const Recipe& recipe, double n) {
  return 1 - progress(n, recipe.warmup_samples, recipe.budget_samples);
}

double cosine_shape(const Recipe& recipe, double n) {
  return 0.5 * (1 + cos_pi(progress(n, recipe.warmup_samples, recipe.budget_samples)));
}

double wsd_shape(const Recipe& recipe, double n) {
  return 1 - progress(n, recipe.budget_samples - recipe.decay_samples, recipe.budget_samples);
}

struct Schedule {
  ScheduleKind kind;
  std::string_view name;
  bool depends_on_budget;
  double (*shape)(const Recipe& recipe, double n);
};

constexpr std::array kSchedules = {
    Schedule{ScheduleKind::kConstant, "constant", false, constant_shape},
    Schedule{ScheduleKind::kLinear, "linear", true, linear_shape},
    Schedule{ScheduleKind::kCosine, "cosine", true, cosine_shape},
    Schedule{ScheduleKind::kWsd, "wsd", true, wsd_shape},
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

std::string_view name_of(ScheduleKind kind) {
  return schedule_of(kind).name;
}

bool depends_on_budget(ScheduleKind kind) {
  return schedule_of(kind).depends_on_budget;
}

double schedule_multiplier(const Recipe& recipe, double first, double samples) {
  const auto warmup = static_cast<double>(recipe.warmup_samples);
  if (first < warmup) {
    return std::min(1.0, (first + samples) / warmup);
  }
  const double shape = schedule_of(recipe.schedule).shape(recipe, first);
  return recipe.floor + (1 - recipe.floor) * shape;
}

}  // namespace lorascale::coordinator
