#include "base/heartbeat.hpp"

#include <algorithm>
#include <atomic>

namespace lorascale {
namespace {

// Of the process, as its progress is: plain atomics, nothing to construct or destroy.
std::atomic<const char*> current_phase{"start"};
std::atomic<std::int64_t> current_step{0};
std::atomic<std::uint64_t> beats{0};

}  // namespace

void beat(const char* phase) {
  current_phase.store(phase, std::memory_order_relaxed);
  beats.fetch_add(1, std::memory_order_relaxed);
}

void set_current_step(std::int64_t step) {
  current_step.store(step, std::memory_order_relaxed);
}

Heartbeat last_heartbeat() {
  return {current_phase.load(std::memory_order_relaxed),
          current_step.load(std::memory_order_relaxed), beats.load(std::memory_order_relaxed)};
}

KeepBeating::KeepBeating(const char* phase, double at_most_seconds) {
  beat(phase);
  thread_ = std::thread([this, phase, at_most_seconds] {
    constexpr std::chrono::milliseconds kPause{100};
    RunningClock clock;
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, kPause, [this] { return done_; }) &&
           clock.seconds() < at_most_seconds) {
      beat(phase);
    }
  });
}

KeepBeating::~KeepBeating() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

double RunningClock::seconds() {
  const auto now = Clock::now();
  seconds_ += std::min(1.0, std::chrono::duration<double>(now - last_).count());
  last_ = now;
  return seconds_;
}

void RunningClock::restart() {
  last_ = Clock::now();
  seconds_ = 0;
}

}  // namespace lorascale
