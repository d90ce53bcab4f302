// SIGTERM and SIGUSR1 ask for a stop: the handler only sets a flag, which the ranks vote on after
// each update.
#pragma once

namespace lorascale::train {

void install_stop_handlers();
bool stop_was_requested();

}  // namespace lorascale::train
