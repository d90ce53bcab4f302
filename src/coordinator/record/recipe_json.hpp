// The recipe as JSON under the config's key names, and what may differ between the recipe of a
// saved state and the one it is continued under.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/recipe.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

// Every field, but for later ones at their default; doubles keep their bits.
Json recipe_to_json(const Recipe& recipe);
// The inverse. Throws Json::exception or Error(kBadInput) where a field is missing or of the wrong
// kind.
Recipe recipe_from_json(const Json& json);

Json leg_to_json(const Leg& leg);
// Errors as of recipe_from_json().
Leg leg_from_json(const Json& json);

// One line for each difference that a run at `position` (in samples, under adascale in tau) may not
// have when it goes on: all but leaf size and minutes, which decide about speed alone, and what
// changes nothing of what was done (continuation.hpp).
std::vector<std::string> forbidden_changes(const Recipe& then, const Recipe& now, double position);

// Digest of what decides about results: all fields but leaf size, minutes and budget.
std::uint64_t recipe_fingerprint(const Recipe& recipe);

}  // namespace lorascale::coordinator
