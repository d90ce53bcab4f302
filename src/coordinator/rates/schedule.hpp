// The schedule: what the peak rate is multiplied by, a pure function of (recipe, samples). It never
// counts steps. It is a list of legs: the recipe's schedule, and what a run that went on beyond it
// was given (recipe.legs). A position belongs to the last leg that begins at it or before.
//
// Convention for an update that covers the samples (n, n + s]:
//   warmup, n < w:   min(1, (n + s) / w), at the END of the update. The first update moves the
//   weights; evaluated at
//                    its start it would use a rate of 0 and be thrown away. The update that ends or
//                    passes the warmup has the full rate.
//   decay,  n >= w:  the shape at the START of the update, so the first update after the warmup has
//   the full rate and the
//                    last update of the run is still above the floor.
// Both pieces are 1 at n = w, so there is no jump at the joint, whatever s is. A later leg is the
// same with n counted from its beginning, a rise from leg.from to leg.peak, and a fall from there.
// Against transformers' get_{constant,linear,cosine}_schedule_with_warmup at a constant batch:
// equal from the end of the warmup on; during the warmup update i (from 0) has (i + 1) / w here and
// i / w there, one update ahead.
#pragma once

#include <optional>

#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// In [0, 1]. constant: 1. linear, cosine: from 1 at the end of the warmup to `floor` at the end of
// the leg. wsd: 1, then linear to `floor` over the last decay_samples. 0 <= first < budget, samples
// > 0; with samples = 0, the rate that the schedule has come to at `first` <= budget. Both are
// whole numbers of samples, or adascale's tau and what an update adds to it.
double schedule_multiplier(const Recipe& recipe, double first, double samples);

// The leg that an update which begins at `position` belongs to; the recipe's own schedule as a leg
// where that is it.
Leg leg_at(const Recipe& recipe, double position);
// Where the next leg begins; nothing where `position` is in the last.
std::optional<double> next_leg_begin(const Recipe& recipe, double position);

// Whether rates before the end of the run depend on where that end is.
bool depends_on_budget(ScheduleKind kind);

}  // namespace lorascale::coordinator
