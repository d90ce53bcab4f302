// The next update as a pure function of (recipe, batch in force, position), and under adascale of
// the gain's clock, which takes the place of the position in schedule and budget. Positions count
// samples over the whole run. An update never crosses the end of an epoch or of the budget, nor the
// beginning of a leg of the schedule: what is left there makes a smaller update, whose rates follow
// its true size.
#pragma once

#include <cstdint>

#include "coordinator/batch/batch_state.hpp"
#include "coordinator/facts.hpp"
#include "coordinator/noise/adascale.hpp"
#include "coordinator/rates/recovery.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// Update number `step` (from 1), which begins at `position` < budget with the batch in force, after
// the recoveries that there were. Under adascale `clock.tau` < budget instead.
StepPlan plan_step(const Recipe& recipe, const BatchState& state, std::int64_t step,
                   std::int64_t position, const GainClock& clock = {},
                   const Recovery& recovery = {});

// Samples of the largest update that a batch can make: a batch beyond an epoch or the budget is
// cut.
std::int64_t largest_update(const Recipe& recipe, std::int64_t batch);

// Updates of one whole epoch, and from `position` to the end of the budget, short ones included;
// under adascale at the present gain of a whole update, short ones left aside.
std::int64_t steps_per_epoch(const Recipe& recipe, std::int64_t batch);
std::int64_t steps_from(const Recipe& recipe, std::int64_t batch, std::int64_t position,
                        const GainClock& clock = {});

}  // namespace lorascale::coordinator
