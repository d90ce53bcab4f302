// Requests to stop: SIGTERM, SIGUSR1, SIGINT (Ctrl-C) and SIGHUP (a closed terminal). The handler
// only sets a flag, which the ranks vote on after each update.
#pragma once

namespace lorascale::train {

// Who hears the requests: where ranks have a launcher, it decides when enough is enough.
enum class Listener {
  kOneOfSeveral,  // every request is the same one, however often it comes
  kAlone,  // says what a request does, and a SIGINT after SIGINT, SIGTERM or SIGHUP ends at once
};

// SIGINT and SIGHUP that were ignored when the process started (nohup, a script's background job)
// stay ignored.
void install_stop_handlers(Listener listener);
bool stop_was_requested();

}  // namespace lorascale::train
