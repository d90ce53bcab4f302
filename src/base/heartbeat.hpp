// What this process is doing and since when. Long phases report themselves; the watchdog, the
// collectives' deadlines and error reports read it. Any thread may read; one thread reports.
#pragma once

#include <chrono>
#include <cstdint>

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
