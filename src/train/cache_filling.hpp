// Results of frozen parts on disk before training asks for them.
#pragma once

#include "train/session.hpp"
#include "train/world.hpp"

namespace lorascale::train {

// This rank's share; no rank waits for another. What it did is said in the log.
workloads::CacheReport fill_caches(World& world, Session& session);

}  // namespace lorascale::train
