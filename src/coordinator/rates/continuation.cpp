#include "coordinator/rates/continuation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/units.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/rates/schedule.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {
namespace {

using Lines = std::vector<std::string>;

double present_share(const Recipe& recipe, double position) {
  return schedule_multiplier(recipe, position, 0);
}

bool warming_up(const Leg& leg, double position) {
  return position < leg.begin + static_cast<double>(leg.warmup);
}

// Whether both put the beginning of a last part behind what was done.
bool still_ahead(std::int64_t then, std::int64_t now, double position) {
  return position <= static_cast<double>(std::min(then, now));
}

std::string budget_text(std::int64_t budget) {
  return budget == kNoSampleLimit ? "without an end in samples" : std::to_string(budget);
}

std::string moved(const char* key, std::int64_t then, std::int64_t now) {
  return fmt::format("{} was {} and is {}", key, budget_text(then), budget_text(now));
}

constexpr const char* kWithLeg = "keep the budget, and go on by a new leg with --more AMOUNT";

// Of a run without legs.
void check_budget(Lines& lines, const Recipe& then, const Recipe& now, double position) {
  const bool unlimited = then.budget_samples == kNoSampleLimit;
  const bool same_end = then.budget_samples == now.budget_samples;
  const std::string line = moved("budget.samples", then.budget_samples, now.budget_samples);
  if (!same_end && !unlimited && now.budget_samples < then.budget_samples) {
    lines.push_back(line + " (a budget may grow but not shrink)");
  } else if (!same_end &&
             (now.schedule == ScheduleKind::kCosine || now.schedule == ScheduleKind::kLinear)) {
    lines.push_back(
        fmt::format("{} (the {} schedule follows the budget, so the finished part would have had "
                    "other rates; {})",
                    line, name_of(now.schedule), kWithLeg));
  } else if (now.schedule == ScheduleKind::kWsd) {
    const std::int64_t begin = then.budget_samples - then.decay_samples;
    if ((same_end && then.decay_samples == now.decay_samples) ||
        still_ahead(begin, now.budget_samples - now.decay_samples, position)) {
      return;
    }
    const std::string what =
        same_end ? moved("schedule.decay_samples", then.decay_samples, now.decay_samples) : line;
    lines.push_back(
        fmt::format("{} (the decay of schedule wsd began at sample {}, and the run stands at {}; "
                    "{}, or go on from a checkpoint before the decay: --into FOLDER --at-step N)",
                    what, begin, to_text(position), kWithLeg));
  } else if (then.decay_samples != now.decay_samples) {
    lines.push_back(moved("schedule.decay_samples", then.decay_samples, now.decay_samples));
  }
}

void check_legs(Lines& lines, const Recipe& then, const Recipe& now, double position) {
  const bool kept = now.legs.size() >= then.legs.size() &&
                    std::equal(then.legs.begin(), then.legs.end(), now.legs.begin());
  if (!kept) {
    lines.push_back(fmt::format(
        "the run went on beyond its schedule by {}, from a budget of {} samples; set budget back "
        "to that, and go on with --more AMOUNT",
        counted(static_cast<std::int64_t>(then.legs.size()), "leg"), then.first_leg_end));
    return;
  }
  const bool added = now.legs.size() > then.legs.size();
  std::int64_t first_end = then.legs.empty() ? then.budget_samples : then.first_leg_end;
  if (then.legs.empty()) {  // the budget may have grown before the leg was asked for
    Recipe grown = now;
    grown.legs.clear();
    grown.budget_samples = now.first_leg_end;
    check_budget(lines, then, grown, position);
    first_end = now.first_leg_end;
  }
  if (now.first_leg_end != first_end ||
      (!then.legs.empty() && then.decay_samples != now.decay_samples) ||
      (!added && now.budget_samples != then.budget_samples) ||
      (added && now.legs[then.legs.size()].begin < position)) {
    lines.emplace_back("the legs of its schedule are others");
  }
}

}  // namespace

Leg leg_for_more(const Recipe& recipe, double position, std::int64_t samples, LegStart start,
                 std::int64_t warmup, std::int64_t decay) {
  const Leg before = leg_at(recipe, position);
  Leg leg;
  leg.cause = Leg::Cause::kMore;
  leg.begin = position;
  leg.end = recipe.budget_samples + samples;
  leg.shape = recipe.schedule;
  leg.from = present_share(recipe, position);
  const bool rises =
      start == LegStart::kRewarm ||
      (start == LegStart::kAuto && (leg.from <= recipe.floor || warming_up(before, position)));
  const auto length = static_cast<std::int64_t>(static_cast<double>(leg.end) - position);
  leg.peak = rises ? 1 : leg.from;
  leg.warmup = rises ? std::min(warmup, length) : 0;
  leg.decay = leg.shape == ScheduleKind::kWsd ? std::min(decay, length - leg.warmup) : 0;
  leg.floor = std::min(recipe.floor, leg.peak);
  return leg;
}

Leg cooldown_leg(const Recipe& recipe, double position, std::int64_t samples) {
  Leg leg;
  leg.cause = Leg::Cause::kCooldown;
  leg.begin = position;
  leg.end = static_cast<std::int64_t>(std::ceil(position)) + samples;
  leg.shape = ScheduleKind::kLinear;
  leg.from = present_share(recipe, position);
  leg.peak = leg.from;
  leg.floor = std::min(recipe.floor, leg.peak);
  return leg;
}

std::int64_t cooldown_samples(double position, double share) {
  return std::max<std::int64_t>(1, std::llround(position * share / (1 - share)));
}

Recipe with_leg(Recipe recipe, const Leg& leg) {
  if (recipe.legs.empty()) {
    recipe.first_leg_end = recipe.budget_samples;
  }
  recipe.legs.push_back(leg);
  recipe.budget_samples = leg.end;
  return recipe;
}

Recipe continued(const Recipe& then, Recipe now, double position) {
  now.warmup_samples = then.warmup_samples;
  now.ema_half_life_samples = then.ema_half_life_samples;
  now.batch_dwell_samples = then.batch_dwell_samples;
  now.batch_ramp_samples = then.batch_ramp_samples;
  now.ramp_samples = then.ramp_samples;
  if (!still_ahead(then.swa_start_samples, now.swa_start_samples, position)) {
    now.swa_start_samples = then.swa_start_samples;
  }
  if (!then.legs.empty()) {
    now.decay_samples = then.decay_samples;
    if (now.budget_samples == then.first_leg_end) {
      now.legs = then.legs;
      now.first_leg_end = then.first_leg_end;
      now.budget_samples = then.budget_samples;
    }
  } else if (!still_ahead(then.budget_samples - then.decay_samples,
                          now.budget_samples - now.decay_samples, position)) {
    now.decay_samples = then.decay_samples;
  }
  return now;
}

std::vector<std::string> changes_of_the_past(const Recipe& then, const Recipe& now,
                                             double position) {
  Lines lines;
  if (then.legs.empty() && now.legs.empty()) {
    check_budget(lines, then, now, position);
  } else {
    check_legs(lines, then, now, position);
  }
  if (then.swa_start_samples != now.swa_start_samples &&
      !still_ahead(then.swa_start_samples, now.swa_start_samples, position)) {
    lines.push_back(moved("average.start_samples", then.swa_start_samples, now.swa_start_samples));
  }
  return lines;
}

std::vector<std::string> leg_contradictions(const Recipe& recipe) {
  Lines lines;
  const auto share = [](double value) { return value >= 0 && value <= 1; };  // false for NaN
  double begin = 0;
  std::int64_t end = recipe.first_leg_end;
  for (const Leg& leg : recipe.legs) {
    const double length = static_cast<double>(leg.end) - leg.begin;
    const bool sound = leg.begin >= begin && leg.end <= kNoSampleLimit && length > 0 &&
                       share(leg.from) && share(leg.peak) && share(leg.floor) && leg.warmup >= 0 &&
                       leg.decay >= 0 && leg.decay <= leg.end &&
                       static_cast<double>(leg.warmup) <= length;
    if (!sound) {
      lines.push_back(fmt::format(
          "a leg of the schedule, from {} to {}, makes no sense; use an earlier checkpoint",
          to_text(leg.begin), leg.end));
    }
    begin = leg.begin;
    end = leg.end;
  }
  if (!recipe.legs.empty() && (end != recipe.budget_samples || recipe.first_leg_end < 1)) {
    lines.push_back(fmt::format(
        "the last leg of the schedule ends at {} and the budget at {}; use an earlier checkpoint",
        end, recipe.budget_samples));
  }
  return lines;
}

std::string leg_text(const Recipe& recipe, const Leg& leg) {
  const auto percent = [](double share) { return to_text(100 * share) + " %"; };
  std::string text = fmt::format("a {} of the schedule begins at {} and ends at {} samples: ",
                                 leg.cause == Leg::Cause::kMore ? "new leg" : "cooldown",
                                 to_text(leg.begin), leg.end);
  if (leg.peak != leg.from) {
    text += fmt::format("the rate rises from {} of the peak to {} over {} samples, then ",
                        percent(leg.from), percent(leg.peak), leg.warmup);
  } else {
    text += fmt::format("from the present rate, {} of the peak, ", percent(leg.from));
  }
  text += name_of(leg.shape);
  if (leg.shape == ScheduleKind::kWsd) {
    text += " with a decay over the last " + std::to_string(leg.decay);
  }
  if (leg.shape != ScheduleKind::kConstant) {
    text += ", down to " + to_text(recipe.lr * leg.floor);
  }
  return text + "; what was done keeps its rates";
}

std::string ways_on(const Recipe& recipe, double position) {
  const Leg leg = leg_at(recipe, position);
  const std::string cooldown =
      "; --cooldown 10% --into FOLDER takes the rate down to its floor from here or from a "
      "checkpoint before (--at-step N)";
  if (recipe.budget_samples == kNoSampleLimit) {
    return "schedule constant has no end: a longer budget goes on at any time" + cooldown;
  }
  if (!recipe.legs.empty() || leg.shape == ScheduleKind::kCosine ||
      leg.shape == ScheduleKind::kLinear) {
    return fmt::format(
        "schedule {} is made for its end: --more AMOUNT goes on beyond it by a new leg (budget may "
        "not change)",
        name_of(leg.shape));
  }
  if (leg.shape == ScheduleKind::kConstant) {
    return "schedule constant may have a longer budget at any time" + cooldown;
  }
  const std::int64_t begin = recipe.budget_samples - recipe.decay_samples;
  if (position <= static_cast<double>(begin)) {
    return fmt::format(
        "schedule wsd may have a longer budget until its decay begins at sample {}{}", begin,
        cooldown);
  }
  return fmt::format(
      "schedule wsd has begun its decay: --more AMOUNT goes on by a new leg, and a longer budget "
      "from a checkpoint of sample {} or before (--into FOLDER --at-step N)",
      begin);
}

}  // namespace lorascale::coordinator
