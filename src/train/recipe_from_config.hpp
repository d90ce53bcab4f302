// The recipe of a run: its configuration with every length in samples.
#pragma once

#include <cstdint>

#include "base/units.hpp"
#include "config/run_config.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::train {

// `rows` and `tokens_per_row` (0: they are not made of tokens) describe the training set. `units`,
// where it is not null, becomes what amounts of this run are resolved by. Error(kBadConfig) where
// lengths do not fit together.
coordinator::Recipe make_recipe(const config::RunConfig& config, std::int64_t rows,
                                double tokens_per_row, int world_size, UnitContext* units);

}  // namespace lorascale::train
