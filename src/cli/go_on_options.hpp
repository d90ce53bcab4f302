// How a run goes on, as `train` is told on its command line.
#pragma once

#include "cli/common.hpp"
#include "train/go_on.hpp"

namespace lorascale::cli {

// --more, --leg-rate, --cooldown, --into, --at-step.
void add_go_on_options(options::options_description& description);

// What they say. Error(kUsage) where they contradict each other.
train::GoOn go_on_of(const options::variables_map& values);

}  // namespace lorascale::cli
