// The recipe as JSON under the config's key names, and what may differ between the recipe of a
// saved state and the one it is continued under.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/json_number.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// Every field, but for options at their defaults; doubles keep their bits.
Json recipe_to_json(const Recipe& recipe);
// The inverse. Throws Json::exception or Error(kBadInput) where a field is missing or of the wrong
// kind.
Recipe recipe_from_json(const Json& json);

// One line for each difference that a run may not have when it goes on: all but leaf size and
// minutes, which decide about speed alone, and a budget that grows under a schedule which does not
// look at its end.
std::vector<std::string> forbidden_changes(const Recipe& then, const Recipe& now);

// Digest of what decides about results: all fields but leaf size, minutes and budget.
std::uint64_t recipe_fingerprint(const Recipe& recipe);

}  // namespace lorascale::coordinator
