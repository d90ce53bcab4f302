// Whether this process may end in the usual way. Where a call into a driver hangs, whatever runs at
// the end of a process (destructors, MPI_Finalize, the driver's own) would wait for it.
#pragma once

#include <atomic>

namespace lorascale {

// Set once, by whoever leaves such a call alone; main() then ends by _exit.
inline std::atomic<bool> end_abruptly{false};

}  // namespace lorascale
