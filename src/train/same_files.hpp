// Whether all ranks see the same files.
#pragma once

#include <string>

#include "train/world.hpp"

namespace lorascale::train {

// Collective: Error(kBadInput) on all ranks, naming those whose `fingerprint` is not rank 0's;
// otherwise they would train on different things. `what` is the file.
void require_same_files(World& world, const std::string& what, const std::string& fingerprint);

}  // namespace lorascale::train
