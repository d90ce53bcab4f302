#include "train/watchdog.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "base/logging.hpp"

namespace lorascale::train {

Watchdog::Watchdog(double deadline_seconds)
    : deadline_seconds_(deadline_seconds), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watchdog::set_deadline(double seconds) {
  const std::lock_guard lock(mutex_);
  deadline_seconds_ = seconds;
}

void Watchdog::on_hang(std::function<void(const std::string&)> report) {
  const std::lock_guard lock(mutex_);
  report_ = std::move(report);
}

void Watchdog::set_name(const std::string& name) {
  const std::lock_guard lock(mutex_);
  name_ = name;
}

void Watchdog::watch() {
  RunningClock silent;
  auto seen = last_heartbeat().count;
  std::unique_lock lock(mutex_);
  while (!done_) {
    wake_.wait_for(lock, std::chrono::milliseconds(200));
    const auto count = last_heartbeat().count;
    if (count != seen) {
      seen = count;
      silent.restart();
    } else if (const double seconds = silent.seconds(); !done_ && seconds > deadline_seconds_) {
      end_process(seconds);
    }
  }
}

void Watchdog::end_process(double silent_seconds) {
  const auto last = last_heartbeat();
  const auto message = fmt::format(
      "{} made no progress for {:.0f} s at step {}, in: {}; the newest checkpoint is "
      "intact, run again to go on (run.deadline_seconds sets the limit)",
      name_, silent_seconds, last.step, last.phase);
  report_failure(message);
  if (report_) {
    // The report touches a disk, which may be what hangs.
    std::thread([report = report_, message] { report(message); }).detach();
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  _exit(static_cast<int>(ExitCode::kHang));
}

}  // namespace lorascale::train
