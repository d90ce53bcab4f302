#include "train/signals.hpp"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <initializer_list>
#include <string_view>

namespace lorascale::train {
namespace {

volatile std::sig_atomic_t requested = 0;
volatile std::sig_atomic_t asked_to_end = 0;  // by a person, or by who ends this process
volatile std::sig_atomic_t alone = 0;

std::string_view announcement(int signal) {
  switch (signal) {
    case SIGINT:
      return "lorascale: SIGINT: finishing the update, then stopping; a second one ends at once\n";
    case SIGHUP:
      return "lorascale: SIGHUP: finishing the update, then stopping\n";
    default:
      return "lorascale: SIGTERM: finishing the update, then stopping; SIGINT ends at once\n";
  }
}

// All that a handler may do to speak. A terminal that is gone takes no words; that costs nothing.
void say(std::string_view text) {
  static_cast<void>(!write(STDERR_FILENO, text.data(), text.size()));
}

void on_signal(int signal) {
  const int error = errno;
  requested = 1;
  if (signal != SIGUSR1) {
    if (alone != 0 && signal == SIGINT && asked_to_end != 0) {
      say("lorascale: second request: ending now; what follows the newest checkpoint is lost\n");
      // Takes effect when this handler returns; who waits for the process sees what ended it.
      std::signal(SIGINT, SIG_DFL);
      static_cast<void>(raise(SIGINT));
    } else if (alone != 0 && asked_to_end == 0) {
      say(announcement(signal));
    }
    asked_to_end = 1;
  }
  errno = error;
}

bool is_ignored(int signal) {
  struct sigaction before = {};
  return sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN;
}

}  // namespace

void install_stop_handlers(Listener listener) {
  alone = listener == Listener::kAlone ? 1 : 0;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGUSR1}) {
    sigaction(signal, &action, nullptr);
  }
  for (const int signal : {SIGINT, SIGHUP}) {
    if (!is_ignored(signal)) {
      sigaction(signal, &action, nullptr);
    }
  }
  std::signal(SIGPIPE, SIG_IGN);  // a reader of the log that is gone must not cost the run
}

bool stop_was_requested() {
  return requested != 0;
}

}  // namespace lorascale::train
