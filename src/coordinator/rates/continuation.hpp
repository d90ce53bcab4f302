// Going on beyond what was planned. What was done keeps its rates bit for bit, so a run may have
// another end only where no rate that was used depends on it: under `constant` always, under `wsd`
// until its decay begins. Everywhere else it goes on by a new leg of the schedule, from where it
// is. Both are pure functions of (recipe, position); a position counts samples, under adascale tau.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// How a leg for more begins. kPresent: with the rate that the schedule has come to. kRewarm: it
// rises to the recipe's peak first. kAuto: the present rate where it is above the floor and no
// warmup is under way, else a rise.
enum class LegStart { kAuto, kPresent, kRewarm };

// A leg for `samples` more than the run's budget, of the recipe's schedule, that begins at
// `position`. `warmup` (used where the rate rises) and `decay` (of wsd) are in samples.
Leg leg_for_more(const Recipe& recipe, double position, std::int64_t samples, LegStart start,
                 std::int64_t warmup, std::int64_t decay);
// A linear fall from the present rate to the floor over `samples`, which ends the run.
Leg cooldown_leg(const Recipe& recipe, double position, std::int64_t samples);
// Samples of a cooldown that takes `share` (below 1) of the run that it ends: with the floor, those
// of a wsd schedule whose budget is that run.
std::int64_t cooldown_samples(double position, double share);

// The recipe with one leg more, which ends with the new budget.
Recipe with_leg(Recipe recipe, const Leg& leg);

// What `now`, resolved anew at a start, must take over from `then`, the recipe of the run that goes
// on at `position`: lengths that were a share of the budget are fixed in samples at the first start
// (but for a last part that is still ahead), and legs stay where the budget is that of before them.
Recipe continued(const Recipe& then, Recipe now, double position);

// One line for each way in which `now` would have given another past: a budget, decay or start of
// an average that was moved over what was done, or other legs.
std::vector<std::string> changes_of_the_past(const Recipe& then, const Recipe& now,
                                             double position);

// One line for each leg that makes no sense, as only a damaged record has.
std::vector<std::string> leg_contradictions(const Recipe& recipe);

// A new leg in words, for the log.
std::string leg_text(const Recipe& recipe, const Leg& leg);

// What a user of a run at `position` can do to have more of it, in one line.
std::string ways_on(const Recipe& recipe, double position);

}  // namespace lorascale::coordinator
