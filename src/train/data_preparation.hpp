// prepare/ on several ranks: rank 0 works, however long it takes, and the others wait for it.
#pragma once

#include "config/run_config.hpp"
#include "prepare/preparation.hpp"
#include "train/world.hpp"

namespace lorascale::train {

// What rank 0 prepared, known to every rank, which sees the files. Where any rank is asked to stop
// meanwhile, all throw with ExitCode::kStopped, and nothing is kept.
prepare::TokenFiles prepare_data(World& world, const config::RunConfig& config);

}  // namespace lorascale::train
