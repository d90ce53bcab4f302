#include "train/signals.hpp"

#include <csignal>
#include <initializer_list>

namespace lorascale::train {
namespace {

volatile std::sig_atomic_t requested = 0;

void on_signal(int) {
  requested = 1;
}

}  // namespace

void install_stop_handlers() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGUSR1}) {
    sigaction(signal, &action, nullptr);
  }
  std::signal(SIGPIPE, SIG_IGN);  // a reader of the log that is gone must not cost the run
}

bool stop_was_requested() {
  return requested != 0;
}

}  // namespace lorascale::train
