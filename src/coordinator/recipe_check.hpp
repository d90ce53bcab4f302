// What is wrong with a recipe, and what is merely unwise. Both speak the config's key names and end
// in a remedy.
#pragma once

#include <string>
#include <vector>

#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// One line for each contradiction: what it is and what to change; empty for a sound recipe.
std::vector<std::string> contradictions(const Recipe& recipe, int world_size);

// Throws Error(kBadConfig) with all contradictions on one line.
void check_recipe(const Recipe& recipe, int world_size);

// "; packing made 5 rows of 45 documents, ..." where that is why an epoch is short, else nothing.
std::string packing_text(const Recipe& recipe);

// For a sound recipe: one line for each thing that works but wastes ranks, samples or a comparison.
struct Remark {
  std::string topic;  // "updates", "batch_policy", "schedule", "noise", "ranks", ...
  std::string text;
};
std::vector<Remark> remarks(const Recipe& recipe, int world_size);

}  // namespace lorascale::coordinator
