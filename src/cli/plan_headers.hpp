// The part of `plan` that a login node may do: no MPI, no weights, no data beyond headers.
#pragma once

#include "cli/common.hpp"

namespace lorascale::cli {

// Checks what `train` would refuse for `ranks` ranks, as far as settings, config.json and the
// headers of weights and data sets show it, and prints what was looked at. Throws as `train` does.
void check_headers(const options::variables_map& values, int ranks);

}  // namespace lorascale::cli
