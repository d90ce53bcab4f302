// What one key alone cannot show: contradictions between keys, required keys that are missing, and
// settings that have no effect. Looks at no file and no machine.
#pragma once

#include <string>
#include <vector>

#include "config/problems.hpp"
#include "config/run_config.hpp"

namespace lorascale::config {

// What the configuration is to be used for; verbs that only load the model need no data.
enum class Purpose { kTraining, kModelOnly };

// Throws Error(kBadConfig) with a line for each contradiction and its remedy.
// Ranges are checked again, so configurations made in code are as safe as those read. Returns
// warnings, one line each: settings that have no effect.
std::vector<std::string> validate(const RunConfig& config, Purpose purpose = Purpose::kTraining);

// The same, adding to what reading the configuration found wrong.
std::vector<std::string> validate(const RunConfig& config, Purpose purpose, Problems& problems);

}  // namespace lorascale::config
