// What this process is doing and since when. Long phases report themselves; the watchdog, the
// collectives' deadlines and error reports read it. Any thread may read; one thread reports.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace lorascale {

struct Heartbeat {
  const char* phase = "start";
  std::int64_t step = 0;
  std::uint64_t count = 0;  // grows with every report
};

// `phase` is a string literal: it is kept by address.
void beat(const char* phase);
void set_current_step(std::int64_t step);
Heartbeat last_heartbeat();

// Reports a phase again and again from a thread of its own, for one long call that cannot report
// itself, such as loading libraries over a network. Not for ever: after `at_most_seconds` it falls
// silent, so that a call that never returns is still seen.
class KeepBeating {
 public:
  KeepBeating(const char* phase, double at_most_seconds);
  ~KeepBeating();
  KeepBeating(const KeepBeating&) = delete;
  KeepBeating& operator=(const KeepBeating&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;  // last: it uses the rest
};

// Time that this process was able to run. A look after a long gap (the process was stopped by a
// signal, the machine slept) counts as one second, so that a resumed job does not blame its peers.
class RunningClock {
 public:
  // Seconds since construction or restart; to be asked more often than once a second.
  double seconds();
  void restart();

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
  double seconds_ = 0;
};

}  // namespace lorascale
