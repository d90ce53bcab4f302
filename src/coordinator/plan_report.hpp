// The arithmetic of a whole run, before it starts: the first entry of the decision log and what
// `plan` prints.
#pragma once

#include <string>

#include "coordinator/recipe.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

struct PlanReport {
  std::string reason;  // one sentence with every number that users ask for
  Json inputs;         // {recipe, world_size, plan: {...}, advice: [lines]}
};

// Of a sound recipe.
PlanReport make_plan_report(const Recipe& recipe, int world_size);

// "lr 0.0004 = 0.0002 x 2 (rule sqrt, k = 64/16 = 4)"
std::string explain_rate(const Recipe& recipe, std::int64_t samples);
// With the cap at `peak_batch` instead of the given peak (0: no cap).
std::string explain_rate(const Recipe& recipe, std::int64_t samples, double peak_batch);

}  // namespace lorascale::coordinator
