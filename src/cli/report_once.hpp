// Errors that all ranks of a job make alike, said once.
#pragma once

#include "base/error.hpp"

namespace lorascale::cli {

// Tells the user. A wrong command line and a wrong configuration are wrong for every rank: rank 0
// says so, and the others wait to be ended by the launcher, with the same exit code, before their
// own end could have rank 0 ended first. Where nobody ends them, they say what may be theirs alone.
void report_once(const Error& error);

}  // namespace lorascale::cli
