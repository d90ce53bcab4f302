// One background thread that prepares leaves in the order they were asked for, while the trainer
// computes. An error in the thread comes out of next(). Requests and next() are called from one
// thread; destruction stops at once.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace lorascale::data {

template <typename Leaf>
class Prefetcher {
 public:
  using Task = std::function<Leaf()>;

  // Prepares at most `depth` leaves ahead of next().
  explicit Prefetcher(std::size_t depth) : depth_(depth), thread_([this] { work(); }) {}

  ~Prefetcher() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  void request(Task task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_all();
  }

  // Forgets what was asked for and not yet taken.
  void clear() {
    const std::lock_guard lock(mutex_);
    tasks_.clear();
    ready_.clear();
    ++generation_;
    changed_.notify_all();
  }

  // The next requested leaf; waits for it.
  Leaf next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty(); });
    Outcome outcome = std::move(ready_.front());
    ready_.pop_front();
    lock.unlock();
    changed_.notify_all();
    if (outcome.error) {
      std::rethrow_exception(outcome.error);
    }
    return std::move(outcome.leaf);
  }

 private:
  struct Outcome {
    Leaf leaf;
    std::exception_ptr error;
  };

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stopping_ || (!tasks_.empty() && ready_.size() < depth_); });
      if (stopping_) {
        return;
      }
      Task task = std::move(tasks_.front());
      tasks_.pop_front();
      const auto generation = generation_;
      lock.unlock();
      Outcome outcome;
      try {
        outcome.leaf = task();
      } catch (...) {
        outcome.error = std::current_exception();
      }
      lock.lock();
      if (generation == generation_) {
        ready_.push_back(std::move(outcome));
        changed_.notify_all();
      }
    }
  }

  std::size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::deque<Outcome> ready_;
  std::uint64_t generation_ = 0;  // of the requests; clear() begins another
  bool stopping_ = false;
  std::thread thread_;  // last: starts when all else exists
};

}  // namespace lorascale::data
