// Ends a process that makes no progress, with exit code 86. A thread of its own watches the
// heartbeat; the report says rank, host, step and phase. Made before MPI starts, so that a start-up
// that hangs is seen too.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace lorascale::train {

class Watchdog {
 public:
  explicit Watchdog(double deadline_seconds);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void set_deadline(double seconds);
  // Called once before the process ends, on another thread and for at most two seconds.
  void on_hang(std::function<void(const std::string& message)> report);
  // What reports call this process, e.g. "rank 2 (node7)".
  void set_name(const std::string& name);

 private:
  void watch();
  [[noreturn]] void end_process(double silent_seconds);

  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  double deadline_seconds_;
  std::string name_ = "this process";
  std::function<void(const std::string&)> report_;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace lorascale::train
