// Findings before the first update, from the recipe and the number of ranks alone.
#pragma once

#include <cstdint>
#include <optional>

#include "coordinator/advice/finding.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// All of them: those below, and the remarks of recipe_check.hpp under the name of their topic.
Findings findings_at_start(const Recipe& recipe, int world_size);

// Fewer updates an epoch than the field's 20 to 50, at a batch, where validations may end the run:
// so few updates decide nothing, and noise between two validations passes for an end of progress.
// `stopped`: that is what has happened, after so many updates.
std::optional<Finding> early_stop_finding(const Recipe& recipe, std::int64_t batch,
                                          std::optional<std::int64_t> stopped);

}  // namespace lorascale::coordinator
