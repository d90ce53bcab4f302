// What a user should know before a run begins although nothing is wrong with it: settings that fit
// the machine or the model badly.
#pragma once

#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "models/llama/llama.hpp"

namespace lorascale::train {

// One line each, those of the model's own files included.
std::vector<std::string> start_warnings(const config::RunConfig& config,
                                        const models::llama::Llama& model);

}  // namespace lorascale::train
